"""A lock that ends with its holder: the kernel's, so that nothing has to be unlocked after `kill -9` (ADR 3)."""

import contextlib
import fcntl
import os
import random
import time
from pathlib import Path
from typing import IO


class InUse(RuntimeError):
    """Somebody else holds it."""


def hold(path: Path) -> IO[str]:
    """An exclusive lock on `path` that lasts until the file is closed or the process ends.

    Raises: InUse whose text names the process that holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+", encoding="utf-8")
    while not _locked(file, fcntl.LOCK_EX):
        if not _locked(file, fcntl.LOCK_SH):
            name = holder_of(file)
            file.close()
            raise InUse(name)
        # Nobody holds it: somebody looks whether it is held (`holder`), and that is over in a moment.
        fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(random.uniform(0.001, 0.02))
    with contextlib.suppress(OSError):  # without room it is held all the same, only nobody is named
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"{os.getpid()} on {os.uname().nodename}\n".encode())
    return file


def holder(path: Path) -> str | None:
    """Who holds it, `PROCESS on HOST`; None: nobody does."""
    try:
        with path.open("r", encoding="utf-8") as file:
            if not _locked(file, fcntl.LOCK_SH):
                return holder_of(file)
    except FileNotFoundError:
        pass
    return None


def _locked(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder_of(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "unknown"
