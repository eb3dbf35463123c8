"""A process whose first thread has ended before another: as one that was killed looks while it still dies."""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

EXIT_OF_A_THREAD = {"x86_64": 60, "aarch64": 93}
"""The kernel's number for it."""
CODE = """
import ctypes, os, sys, threading, time
child = os.fork()
if child == 0:
    threading.Thread(target=time.sleep, args=(600,)).start()
    ctypes.CDLL(None).syscall(int(sys.argv[1]), 0)
print(child, flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def leaderless() -> Iterator[tuple[int, int]]:
    """The numbers of its parent, which does not reap it, and its own."""
    command = [sys.executable, "-c", CODE, str(EXIT_OF_A_THREAD[platform.machine()])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        try:
            _wait_for(lambda: state(process) == "Z" and threads(process) == 2)
            yield parent.pid, process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            parent.kill()


def wait_until_dead(process: int) -> None:
    _wait_for(lambda: threads(process) == 1)


def state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def threads(process: int) -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
