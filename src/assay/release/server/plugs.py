"""Where other parts of the release join a request: who asks, what is written down, what is copied to a shadow."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from assay.release.log import PredictionLog, Served
from assay.release.routing.copies import Copies
from assay.release.security.admission import Admission
from assay.release.security.sources import Standing
from assay.release.server.settings import Settings

Headers = Mapping[bytes, bytes]
"""Names in lower case."""


class Plugs(NamedTuple):
    """None: nobody joins there. All are called in the worker's event loop and wait for nothing."""

    identify: Callable[[Sequence[bytes]], str] | None = None
    """From the values of all headers `Authorization` to the user's digest, empty where nobody is named. Raises: Refusal."""
    check: Callable[[bytes, bytes, Headers, bytes, bytes], None] | None = None
    """Of method, target, headers, body and request id, whether the caller signed them. Raises: Refusal."""
    log: Callable[[Served], None] | None = None
    shadow: Callable[[Headers, bytes], None] | None = None
    """Given what was answered; loses what it cannot take."""
    keys: Callable[[], dict[str, Standing]] | None = None
    """How the files of keys stand."""


def load_plugs(
    settings: Settings,
    told: Callable[[str, int], None] = lambda *_: None,
    copied: Callable[[str], None] = lambda _: None,
) -> Plugs:
    """What the settings ask for; called in the worker.

    told: with how many lines of the prediction log were `written` or `dropped`; copied: with `handed` or `lost`, for each
    copy of a request. Raises: ValueError naming what is missing or wrong.
    """
    serving = settings.serving
    identify = check = log = keys = None
    if serving.jwt is not None or serving.signatures is not None:
        admission = Admission(serving, settings.role, settings.salt, settings.shared)
        keys = admission.standings
        identify = None if serving.jwt is None else admission.identify
        check = None if serving.signatures is None else admission.check
    if settings.predictions is not None:
        limits = (serving.log_megabytes, serving.log_files)
        log = PredictionLog(settings.predictions, *limits, told, _after_answers).put
    shadow = None if settings.copies is None else Copies(settings.copies, copied).offer
    return Plugs(identify, check, log, shadow, keys)


def _after_answers(work: Callable[[], None]) -> None:
    """Run it in the next round of the event loop: this one's requests are answered by then."""
    asyncio.get_running_loop().call_soon(work)
