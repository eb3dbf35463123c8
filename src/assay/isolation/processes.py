"""The processes that descend from this one: which they are, what memory they hold, and their end."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CHEAP = re.compile(rb"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB$", re.MULTILINE)
_THREADS = re.compile(rb"^Threads:\s+(\d+)$", re.MULTILINE)
_ANONYMOUS = re.compile(rb"^RssAnon:\s+(\d+) kB$", re.MULTILINE)
_SHARE = re.compile(rb"^(Pss_Anon|Pss_Shmem|SwapPss):\s+(\d+) kB$", re.MULTILINE)
_MAPPING = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)$")
_NAMELESS = (b"/memfd:", b"/SYSV", b"/dev/zero")
_END_SECONDS = 30.0


def adopt_orphans() -> None:
    """Whatever descends from this process stays its descendant: orphans become its children (Linux ≥ 3.4)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with(parent: int) -> None:
    """This process ends (SIGKILL) when its parent does, however that ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    import ctypes  # not by those who start no job

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def descendants(root: int) -> Iterator[int]:
    """Processes below `root`, parents before their children; who asks may end each before its children are read."""
    found = [root]
    while found:
        below = children(found.pop())
        yield from below
        found += below


def children(process: int) -> list[int]:
    """Children of all threads of a process; none of one that is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{process}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def is_sampler(process: int) -> bool:
    """Whether a process takes a job's telemetry, which takes next to no time of a core."""
    return b"assay.telemetry.sampler" in _read(process, "cmdline")


def at_most(process: int) -> tuple[int, int]:
    """Bytes of memory that a process can be charged with, at most, and its threads; (0, 0) of one that is gone.

    Cheap, and takes no lock that the process needs.
    Anonymous pages, shared memory and what of them was swapped out. Mapped files are no memory of a process: the kernel
    drops their pages at will. Pages that processes share count for each of them.
    """
    status = _read(process, "status")
    return _kibibytes(_CHEAP, status), sum(map(int, _THREADS.findall(status)))


def held(processes: Iterable[int]) -> int:
    """Bytes of memory that processes hold together, pages that they share counted once. Walks their page tables.

    Proportional set size of anonymous pages and swap, and of shared memory that has no name in a file system: a named
    file that happens to lie in one made of memory is data. At least what the largest process has alone: pages that it
    shares with the process that it was forked from are its own all the same, as they are in one started anew.
    """
    total = largest = 0
    for process in processes:
        shares = {name: int(size) * 1024 for name, size in _SHARE.findall(_read(process, "smaps_rollup"))}
        if b"Pss_Anon" not in shares:  # before Linux 5.4
            total += at_most(process)[0]
            continue
        total += shares[b"Pss_Anon"] + shares.get(b"SwapPss", 0)
        if shares.get(b"Pss_Shmem"):
            total += min(shares[b"Pss_Shmem"], _nameless(_read(process, "smaps")))
        largest = max(largest, _kibibytes(_ANONYMOUS, _read(process, "status")))
    return max(total, largest)


def _nameless(mappings: bytes) -> int:
    """Bytes of shared mappings without a name in a file system: of PyTorch's workers, say."""
    total, counts = 0, False
    for line in mappings.splitlines():
        header = _MAPPING.match(line)
        if header is not None:
            counts = header[1].startswith(_NAMELESS) or header[1].endswith(b" (deleted)")
        elif counts and line.startswith(b"Pss:"):
            total += int(line.split()[1]) * 1024
    return total


def _read(process: int, name: str) -> bytes:
    """A file of the process's in /proc; nothing of one that is gone or somebody else's."""
    with contextlib.suppress(OSError), open(f"/proc/{process}/{name}", "rb") as file:
        return file.read()
    return b""


def _kibibytes(fields: "re.Pattern[bytes]", text: bytes) -> int:
    return sum(map(int, fields.findall(text))) * 1024


def reap() -> dict[int, int]:
    """Wait status by process of every child that has ended, orphans that came to this process included."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def end_descendants(root: int) -> dict[int, int]:
    """Kill everything below `root` until nothing of it runs; returns what was reaped if `root` is this process.

    A process that has a fatal signal pending cannot fork any more. So each is killed before its children are read, and
    what was born in between is found by the next pass. A pass that finds nothing but what was dead before it began is
    the last: the children of one that dies during a pass come to `root`, whose children that pass has read already.
    The dead are reaped when all are: until then they take up room below a limit of the kernel that others could be
    born into. Raises: TimeoutError if something cannot be killed.
    """
    deadline = time.monotonic() + _END_SECONDS
    dead: set[int] = set()
    while True:
        alive = []
        for process in descendants(root):
            if process not in dead:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
                alive.append(process)
        if not alive:
            return reap() if root == os.getpid() else {}
        dead |= set(filter(_is_zombie, alive))
        if time.monotonic() > deadline and (left := set(alive) - dead):
            raise TimeoutError(f"{len(left)} processes could not be killed")
        time.sleep(0.002)


def _is_zombie(process: int) -> bool:
    """Whether a process is dead, with all of its threads.

    Its first thread may be gone before the others, which hold its memory, its files and the children that they started.
    """
    fields = _read(process, "stat").rpartition(b")")[2].split()
    return not fields or (fields[0] in (b"Z", b"X") and int(fields[17]) <= 1)
