"""Bounds on a job that the kernel holds, so that nothing in it can outrun whoever looks at it.

For processes, the first that this machine offers: a control group of the job's own; a user namespace, in which Linux
(≥ 5.14) counts the processes of a user for themselves, so that RLIMIT_NPROC bounds the job alone, which binds all but
root; nothing, and then the supervisor's looks are all there is. For memory: a control group, or the looks.

The kernel's limits lie a quarter above the bounds. Those are judged by looks, in the same way everywhere; the kernel
stops what grows faster than it is looked at.
"""

import contextlib
import ctypes
import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from assay.isolation.machine import control_groups

Holder = Literal["control group", "user namespace", "polling"]

ABOVE = 1.25
"""The kernel's limit over the bound."""
_LIMITS = {"pids": ("pids.max",), "memory": ("memory.max", "memory.limit_in_bytes")}
_OWN_LIMITS = ("pids.max", "memory.max", "memory.high", "cpu.max")
_CLONE_NEWUSER, _CAPABILITIES_3 = 0x10000000, 0x20080522
_REMOVAL_SECONDS = 10.0


@dataclass
class Containment:
    """What the kernel holds one job to."""

    tasks: int | None = None
    """Processes and threads at most."""
    groups: Mapping[str, Path] | None = None
    """The job's own control group by controller."""
    by_namespace: bool = False

    @property
    def held_by(self) -> dict[str, str]:
        """Who holds which bound."""
        groups = self.groups or {}
        processes: Holder = "user namespace" if self.by_namespace else "polling"
        return {
            "processes": "control group" if "pids" in groups else processes,
            "memory": "control group" if "memory" in groups else "polling",
        }

    def admit(self, job: int) -> None:
        """Put a process that has not begun its work into the job's groups; without them if the kernel does not allow it."""
        try:
            for folder in set((self.groups or {}).values()):
                (folder / "cgroup.procs").write_text(str(job))
        except OSError:
            self.remove()

    def enter(self) -> None:
        """In the job, before it starts a thread: what a process can only do to itself."""
        if self.by_namespace:
            assert self.tasks is not None
            enter_namespace(self.tasks)

    def refused(self) -> bool:
        """Whether the kernel refused the job a process or thread."""
        folder = (self.groups or {}).get("pids")
        if folder is None or not _count(folder, ("pids.events",), "max"):
            return False
        # Refusals by a group above count here too; where the kernel keeps the peak (Linux ≥ 6.1), it tells.
        with contextlib.suppress(OSError, ValueError):
            return int((folder / "pids.peak").read_text()) >= (self.tasks or 0)
        return True

    def out_of_memory(self) -> int | None:
        """Bytes that the group's memory came to, page cache included, if the kernel ended a process of it for that."""
        folder = (self.groups or {}).get("memory")
        if folder is None or not _count(folder, ("memory.events", "memory.oom_control"), "oom_kill"):
            return None
        for name in ("memory.peak", "memory.max_usage_in_bytes", *_LIMITS["memory"]):
            with contextlib.suppress(OSError, ValueError):
                return int((folder / name).read_text())
        return 0

    def forbid_forks(self) -> None:
        """From here on the job gets no further process: what is killed is not replaced."""
        if folder := (self.groups or {}).get("pids"):
            with contextlib.suppress(OSError):
                (folder / "pids.max").write_text("0")

    def remove(self) -> None:
        """Take the groups away once nothing is in them."""
        for folder in set((self.groups or {}).values()):
            _remove(folder, _REMOVAL_SECONDS)
        self.groups = None


def contain(memory_mb: float | None, processes: int | None) -> Containment:
    """The best that is to be had here. memory_mb: MiB; processes: processes and threads; None: unbounded."""
    tasks = None if processes is None else int(processes * ABOVE)
    limits = {} if tasks is None else {"pids": tasks}
    if memory_mb is not None:
        limits["memory"] = int(memory_mb * ABOVE) * 2**20
    groups = make_groups(limits)
    by_namespace = tasks is not None and "pids" not in groups and namespaces_work(tasks)
    return Containment(tasks, groups, by_namespace)


def make_groups(limits: Mapping[str, int]) -> dict[str, Path]:
    """A new control group by controller, with its limit; those that cannot be had are left out."""
    made: dict[str, Path] = {}
    for parent, controllers in _parents(limits):
        wanted = [name for name in controllers if name in limits and name not in made]
        group = parent / f"assay-{_pid_namespace()}-{os.getpid()}"
        if not wanted:
            continue
        _remove_abandoned(parent)
        try:
            group.mkdir()
            for name in wanted:
                _write_limit(group, name, limits[name])
        except OSError:
            _remove(group, 0)
            continue
        made |= dict.fromkeys(wanted, group)
    return made


def _parents(controllers: Iterable[str]) -> Iterable[tuple[Path, list[str]]]:
    """Groups below which others may be made, and controllers that hold there.

    Version 1: this process's own group of each controller. Version 2 gives no controller to groups below one that has
    processes, so as a rule a job's group stands beside this process's own: but only where that has no limit itself,
    because the job would get out of it.
    """
    for name in controllers:
        own = next(iter(control_groups(name)), None)
        if own is None:
            continue
        if not (own / "cgroup.controllers").exists():
            yield own, [name]
            continue
        for folder in (own, own.parent) if _is_unlimited(own) else (own,):
            with contextlib.suppress(OSError):
                yield folder, (folder / "cgroup.subtree_control").read_text().split()
        return


def _is_unlimited(group: Path) -> bool:
    for name in _OWN_LIMITS:
        with contextlib.suppress(OSError, IndexError):
            if (group / name).read_text().split()[0] != "max":
                return False
    return True


def _write_limit(group: Path, controller: str, limit: int) -> None:
    """Raises: OSError."""
    found = [group / name for name in _LIMITS[controller] if (group / name).exists()]
    if not found:
        raise FileNotFoundError(f"{group}: no limit of {controller}")
    found[0].write_text(str(limit))
    if controller == "memory":  # all of the job or nothing of it; version 1 ends one process
        with contextlib.suppress(OSError):
            (group / "memory.oom.group").write_text("1")


def _remove(group: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while group.exists():
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        if time.monotonic() > deadline:
            return
        time.sleep(0.005)


def _remove_abandoned(parent: Path) -> None:
    """Groups of supervisors that were killed. They are empty: their jobs ended with them."""
    with contextlib.suppress(OSError):
        for group in parent.glob(f"assay-{_pid_namespace()}-*"):
            supervisor = group.name.rpartition("-")[2]
            if supervisor == str(os.getpid()) or not Path("/proc", supervisor).exists():
                _remove(group, 0)


def _pid_namespace() -> int:
    """Process numbers mean something in one of them only."""
    return Path("/proc/self/ns/pid").stat().st_ino


def _count(folder: Path, names: Iterable[str], event: str) -> int:
    for name in names:
        with contextlib.suppress(OSError):
            found = dict(line.split() for line in (folder / name).read_text().splitlines())
            return int(found.get(event, 0))
    return 0


def namespaces_work(tasks: int) -> bool:
    """Whether RLIMIT_NPROC bounds a job in a user namespace: tried by a process that is gone afterwards."""
    if os.getuid() == 0 or _kernel() < (5, 14):
        return False
    return _succeeds(lambda: enter_namespace(tasks))


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(filter(str.isdigit, minor)) or 0)


def _succeeds(attempt: Callable[[], None]) -> bool:
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(OSError, ValueError):
            attempt()
            status = 0
        os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def enter_namespace(tasks: int) -> None:
    """Be the same user in a new user namespace, without privilege there, with so many processes and threads at most.

    Only a process with one thread can. Raises: OSError, after which this process is of no use any more.
    """
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = tasks if hard == resource.RLIM_INFINITY else min(tasks, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    none = (ctypes.c_uint32 * 6)()
    if libc.capset((ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0), none) != 0:
        raise OSError(ctypes.get_errno(), "capset")
