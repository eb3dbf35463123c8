"""What one run of the workflow holds while it goes: the experiment's lock and the process that forks jobs."""

import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import IO

from assay import holding
from assay.forkserver import Server

VARIABLE = "ASSAY_SESSION"
"""Names the process that holds the session to the jobs that it starts on this machine."""


class ExperimentInUse(RuntimeError):
    """Another run of the same experiment is going on in the same folder."""


class Session:
    """Held by the Snakemake process from its first job to its last.

    The lock is the kernel's: it ends with the process that holds it, also by `kill -9`, so there is nothing
    to unlock afterwards.
    """

    def __init__(self, python: str = sys.executable) -> None:
        self._python = python
        self._lock: IO[str] | None = None
        self._server: Server | None = None

    def start(self, experiment: str, *, fork_jobs: bool = True) -> None:
        """Raises: ExperimentInUse naming the process that holds the experiment."""
        self._lock = hold(Path("results") / experiment / ".lock")
        os.environ[VARIABLE] = str(os.getpid())
        if fork_jobs:
            self._server = Server(self._python)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def end_with_session() -> None:
    """Ask this process to end (SIGTERM) when the session that started it ends, however that ends.

    A measurement that outlives its session would disturb the next one's. Jobs on other machines are the
    cluster's to end.
    """
    number = os.environ.get(VARIABLE)
    if number is None or not hasattr(os, "pidfd_open"):
        return
    try:
        session = os.pidfd_open(int(number))
    except OSError:  # on another machine, or gone already
        return

    def watch() -> None:
        select.select([session], [], [])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def hold(path: Path) -> IO[str]:
    """The experiment's lock. Raises: ExperimentInUse."""
    try:
        return holding.hold(path)
    except holding.InUse as holder:
        raise ExperimentInUse(
            f"{path.parent}: another run of this experiment is going on (process {holder}); "
            "wait for it, stop it, or give this experiment another `name`"
        ) from None
