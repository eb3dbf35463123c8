"""What holds for all tests."""

import contextlib
import signal

# A shell that starts the tests in the background has them ignore Ctrl-C, and every process that they start inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure of what is tested: an example may take its time, and so may finding one.
with contextlib.suppress(ImportError):
    from hypothesis import HealthCheck, settings

    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")
