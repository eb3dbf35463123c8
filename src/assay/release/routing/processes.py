"""Processes that outlive whoever started them, as /proc shows them."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

HARDER_SECONDS = 15.0
"""On a machine that is busy even a process that was killed takes a while to end."""


def command_line(pid: int) -> str:
    """A process's command or title; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for its parent to notice.

    Its first thread may be gone before the others, which hold its files and ports.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return True
    fields = stat.rpartition(")")[2].split()
    return fields[0] in "ZX" and int(fields[17]) <= 1


def children(pid: int) -> list[int]:
    """Of a process with one thread; none where it has ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def holders(path: Path) -> list[int]:
    """This user's processes that have a file open."""
    real = str(path.resolve())
    return holding(lambda name: name == real)


def printing_to(path: Path) -> list[int]:
    """This user's processes whose standard output a file is; who only reads it is none of them."""
    real = str(path.resolve())
    return [pid for pid in holders(path) if _link(Path(f"/proc/{pid}/fd/1")) == real]


def holding(meant: Callable[[str], bool]) -> list[int]:
    """This user's processes that have a file open whose name (as the kernel has it, without links) is meant."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid() and _has_open(process, meant):
            found.append(int(process.name))
    return sorted(found)


def send(process: int, number: int) -> None:
    """A signal; nothing where the process has just ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def end(processes: Sequence[int], signals: Iterable[int], seconds: float) -> bool:
    """Whether all have ended: the first signal has `seconds`, each harder one that follows `HARDER_SECONDS`."""
    for number in signals:
        for process in processes:
            send(process, number)
        if wait_for(lambda: all(ended(process) for process in processes), seconds):
            return True
        seconds = HARDER_SECONDS
    return False


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _has_open(process: Path, meant: Callable[[str], bool]) -> bool:
    try:
        links = list((process / "fd").iterdir())
    except OSError:
        return False
    for link in links:
        with contextlib.suppress(OSError):  # closed meanwhile
            if meant(str(link.readlink())):
                return True
    return False
