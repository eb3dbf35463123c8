"""Bounds on the memory and the processes of a job, watched by the process that started it.

`supervise` forks. The child goes on with the job, at a place of its own; this process stays behind to watch everything
that descends from it, hands on signals, and ends all of it when a bound is crossed. It reads `/proc` and needs no
privilege, so a bound means the same on a workstation, on a cluster and in a container. What grows faster than it looks
is stopped by the kernel, where that can be had (`containment`).
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from assay.isolation.attempts import Ended, Evidence
from assay.isolation.containment import Containment, contain
from assay.isolation.gpu_places import MOST_RUNS
from assay.isolation.places import Place, take
from assay.isolation.processes import (
    adopt_orphans,
    at_most,
    children,
    descendants,
    end_descendants,
    end_with,
    held,
    is_sampler,
    reap,
)

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
POLL_SECONDS, SHORTEST_POLL_SECONDS = 0.1, 0.02
FASTEST_GROWTH = 4 * 2**30
"""Bytes a second that a process may be expected to fill: how soon it must be looked at again."""
LEAST_PROCESSES, PROCESSES_PER_CORE = 512, 32
OOM_SCORE = 500
"""Of jobs: where the machine itself runs out, the kernel takes the largest of them, not what started them."""
_REFRESH_SECONDS = 1.0
_MIB = 2**20


@dataclass(frozen=True)
class Bounds:
    """What a job may hold at most: memory in MiB, processes and threads; None: as much as it likes."""

    memory_mb: float | None = None
    processes: int | None = None
    retry_memory: bool = False
    """Whether a job that crosses the bound on memory fails, to be started again with more; else it is a result."""


@dataclass(frozen=True)
class Crossing:
    """A bound that was crossed, and what was held then."""

    ended: Ended
    message: str
    attempt: int = 1
    started: str = ""

    @property
    def outcome(self) -> Literal["out_of_memory", "failed"]:
        """As records tell it."""
        return "out_of_memory" if self.ended == "out_of_memory" else "failed"


class Watch:
    """Looks at everything that descends from this process."""

    def __init__(self, bounds: Bounds, evidence: Evidence, containment: Containment) -> None:
        self.bounds = bounds
        self.containment = containment
        self.interval = POLL_SECONDS if bounds.memory_mb is None else SHORTEST_POLL_SECONDS
        self.evidence = evidence
        self._shared = 0
        """How much the cheap sum exceeded what was really held, when that was last found out."""
        self._next_walk = 0.0

    def look(self, reaped: int = 0) -> Crossing | None:
        """One look, after which the next is due in `interval` seconds.

        reaped: processes that were there a moment ago, and count.
        """
        processes = list(descendants(os.getpid()))
        sizes = [at_most(process) for process in processes]
        memory = self._memory(processes, sum(size for size, _ in sizes)) / _MIB
        if processes:
            self.evidence.peak(memory)
        return self._too_many(reaped + sum(threads for _, threads in sizes)) or self._too_much(memory)

    def _too_many(self, count: int) -> Crossing | None:
        most = self.bounds.processes
        if most is None:
            return None
        refused = self.containment.refused()
        if count <= most and not refused:
            return None
        many = f"{self.containment.tasks} and one more asked for" if refused else f"{count} at once"
        text = (
            f"processes and threads: {many}, more than the bound of {most}; "
            f"if it needs so many, write bounds: {{processes: {2 * most}}}"
        )
        return Crossing("too_many_processes", text)

    def _too_much(self, memory: float) -> Crossing | None:
        """memory: MiB held."""
        bound = self.bounds.memory_mb
        if bound is None:
            return None
        counted = self.containment.out_of_memory()
        if counted is not None:
            memory = max(memory, counted / _MIB)
            self.evidence.peak(memory)
        if memory > bound or counted is not None:
            text = (
                f"memory: {memory:.0f} MiB held, more than the bound of {bound:.0f} MiB; "
                f"if it needs so much, write bounds: {{memory_mb: {2 * bound:.0f}}}"
            )
            return Crossing("out_of_memory", text)
        room = (bound - memory) * _MIB / FASTEST_GROWTH
        self.interval = min(max(room, SHORTEST_POLL_SECONDS), POLL_SECONDS)
        return None

    def _memory(self, processes: list[int], cheap: int) -> int:
        """Bytes held. The cheap sum will do until it crosses the bound; then pages that are shared count once."""
        estimate = max(cheap - self._shared, 0)
        bound = self.bounds.memory_mb
        if bound is None or cheap <= bound * _MIB:
            return cheap
        if estimate > bound * _MIB or time.monotonic() > self._next_walk:
            estimate = held(processes)
            self._shared = max(cheap - estimate, 0)
            self._next_walk = time.monotonic() + _REFRESH_SECONDS
        return estimate


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the rules say of a job's bounds."""
    group = parser.add_argument_group("bounds", "without them the job runs in this very process, unbounded")
    group.add_argument("--memory-mb", type=float, help="MiB that the job may hold, mapped files aside")
    group.add_argument(
        "--processes",
        type=lambda word: most_processes() if word == "auto" else int(word),
        help="processes and threads that the job may have at once; auto: by the cores that there are",
    )
    group.add_argument(
        "--at-memory-bound",
        choices=["result", "retry"],
        default="result",
        help="a job that crosses it leaves that as its result, or fails, to be started again with more",
    )
    group.add_argument(
        "--runs-per-gpu",
        type=int,
        choices=range(1, MOST_RUNS + 1),
        default=1,
        metavar=f"1..{MOST_RUNS}",
        help="how many jobs may share a GPU, this one among them",
    )


def most_processes() -> int:
    """Libraries start threads and processes by the number of cores."""
    return max(LEAST_PROCESSES, PROCESSES_PER_CORE * len(os.sched_getaffinity(0)))


def bounds_of(arguments: argparse.Namespace) -> Bounds:
    return Bounds(arguments.memory_mb, arguments.processes, arguments.at_memory_bound == "retry")


def supervise(arguments: argparse.Namespace, folder: Path, execution: Mapping[str, Any]) -> Crossing | None:
    """Fork: returns None in the child, which is the job, and in this process a bound that was crossed.

    arguments: with the options of `add_options`; without bounds nothing is forked.
    folder: of the stage, for `attempt.json`.
    execution: the arm's section of that name, by which the job gets its place.

    This process ends as the job ended (SystemExit), and takes everything along that the job left running.
    """
    bounds = bounds_of(arguments)
    if bounds.memory_mb is None and bounds.processes is None:
        return None
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    devices = execution.get("devices", 1)
    threads = execution.get("threads", 1) * devices
    device, runs = execution.get("device", "auto"), getattr(arguments, "runs_per_gpu", 1)
    place = take(threads=threads, device=device, devices=devices, runs=runs)
    containment = contain(bounds.memory_mb, bounds.processes)
    evidence = Evidence(folder, bounds.memory_mb, containment.held_by)
    adopt_orphans()
    waited_for = {*FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    parent = os.getpid()
    admitted, admit = os.pipe()
    job = os.fork()
    if job == 0:
        os.close(admit)
        _become_job(parent, place, containment, admitted)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    os.close(admitted)
    containment.admit(job)
    place.bounds = evidence.held_by(containment.held_by)
    with os.fdopen(admit, "w") as answer:
        json.dump(place.bounds, answer)
    watch = Watch(bounds, evidence, containment)
    try:
        crossing = _Supervisor(job, watch, Company(job, place.cores)).wait(waited_for)
    finally:
        containment.remove()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    place.enter()
    return crossing


def _become_job(parent: int, place: Place, containment: Containment, admitted: int) -> None:
    """In the child: a process group of its own, the first to be taken when the machine runs out, at its place."""
    os.setpgid(0, 0)
    make_first_to_go()
    place.leave()
    with os.fdopen(admitted) as answer:
        place.bounds = json.load(answer)
    containment.enter()
    end_with(parent)
    place.enter()


def make_first_to_go() -> None:
    """Let the kernel take this process, and what descends from it, before those that started it."""
    with contextlib.suppress(OSError, ValueError):
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(max(int(score.read_text()), OOM_SCORE)))


class _Supervisor:
    """Waits for one job."""

    def __init__(self, job: int, watch: Watch, company: "Company") -> None:
        self._job, self._watch, self._company = job, watch, company
        self._asked: int | None = None
        self._kills = kernel_kills()

    def wait(self, waited_for: set[signal.Signals]) -> Crossing:
        """The bound that was crossed, once nothing of the job is left; SystemExit as the job ended."""
        _outrank(self._job, self._watch)
        status = crossing = None
        while status is None and crossing is None:
            received = signal.sigtimedwait(waited_for, self._watch.interval)
            # A process that was stopped and goes on may get anything here: CPython returns what it did not fill in.
            if received is not None and received.si_signo in FORWARDED:
                self._hand_on(received.si_signo)
            ended = reap()
            status = ended.get(self._job)
            if status != 0:  # a refused process or a kill for memory may be what it ended by
                crossing = self._watch.look(len(ended))
            if status is None:
                self._company.look()
        self._watch.containment.forbid_forks()
        rest = end_descendants(os.getpid())
        if crossing is None and status == signal.SIGKILL:
            crossing = self._ended_by_kernel()
        if crossing is None:
            assert status is not None
            sys.exit(self._end(status))
        # It may have ended well in the moment between: then nothing was crossed that matters.
        if rest.get(self._job) == 0:
            sys.exit(self._end(0))
        return self._crossed(crossing)

    def _crossed(self, crossing: Crossing) -> Crossing:
        self._watch.evidence.end(crossing.ended, signal.SIGKILL)
        print(crossing.message, file=sys.stderr, flush=True)
        if crossing.ended == "out_of_memory" and self._watch.bounds.retry_memory:
            print("to be started again with more memory", file=sys.stderr, flush=True)
            sys.exit(1)
        attempt = self._watch.evidence.attempt
        return Crossing(crossing.ended, crossing.message, attempt.attempt, attempt.started)

    def _ended_by_kernel(self) -> Crossing | None:
        """Whether memory ran out outside the job's own group: of a Slurm job, which is this job's; or of the machine.

        That of the machine is nobody's result: the job fails, and is started again.
        """
        if kernel_kills() == self._kills:
            return None
        peak = self._watch.evidence.attempt.peak_memory_mb
        held = "an unknown amount" if peak is None else f"{peak:.0f} MiB"
        text = f"memory: the kernel ended this job, which held {held}, because memory ran out"
        if "SLURM_JOB_ID" in os.environ:
            return Crossing("out_of_memory", f"{text} in the Slurm job")
        print(f"{text} on this machine", file=sys.stderr, flush=True)
        self._watch.evidence.end("out_of_memory", signal.SIGKILL)
        sys.exit(128 + signal.SIGKILL)

    def _hand_on(self, number: int) -> None:
        self._asked = number
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._job, number)

    def _end(self, status: int) -> int:
        code = os.waitstatus_to_exitcode(status)
        interrupted = self._asked is not None and code in (128 + self._asked, -self._asked)
        how: Ended = "completed" if code == 0 else "interrupted" if interrupted else "error"
        self._watch.evidence.end(how, -code if code < 0 else self._asked if interrupted else None)
        return code if code >= 0 else 128 - code


class Company:
    """Whether somebody who takes no places computes on a job's cores: then it is let off them, to wherever there is room.

    A job that is bound to a core waits for it when another program is put there; one that is not would be moved.
    """

    WAITING = 0.25
    """Share of a second for which a job may wait for its core."""
    SECONDS = 3
    """So many in turn, and it has company."""

    def __init__(self, job: int, cores: list[int] | None) -> None:
        self._job, self._bound = job, cores is not None
        self._anywhere = os.sched_getaffinity(0)
        self._before: tuple[float, int] | None = None
        self._crowded = 0

    def look(self) -> None:
        if not self._bound or (self._before and time.monotonic() - self._before[0] < 1):
            return
        waited = self._waited()
        if waited is None or not all(map(is_sampler, children(self._job))):  # what a job starts is no company
            self._bound = False
            return
        moment = time.monotonic()
        if self._before is not None:
            share = (waited - self._before[1]) / 1e9 / (moment - self._before[0])
            self._crowded = self._crowded + 1 if share > self.WAITING else 0
        self._before = (moment, waited)
        if self._crowded >= self.SECONDS:
            self._bound = False
            with contextlib.suppress(OSError):
                for thread in Path(f"/proc/{self._job}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), self._anywhere)

    def _waited(self) -> int | None:
        """Nanoseconds for which the job's main thread could have run and did not."""
        try:
            return int(Path(f"/proc/{self._job}/schedstat").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return None


def kernel_kills() -> int:
    """Processes that the kernel ended so far because memory ran out, of the machine or of a control group."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def _outrank(job: int, watch: Watch) -> None:
    """Be served before the job, so that one that forks without end cannot keep its end waiting.

    Root may raise its priority. Others get a limit where nothing better holds them: the kernel counts all processes of
    the user for it, so it is a generous one.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    most = watch.bounds.processes
    if most is None or watch.containment.held_by["processes"] != "polling":
        return
    limit = _tasks_of_user() + 4 * most
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.prlimit(job, resource.RLIMIT_NPROC)
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.prlimit(job, resource.RLIMIT_NPROC, (allowed, hard))


def _tasks_of_user() -> int:
    """Processes and threads of this user, as RLIMIT_NPROC counts them."""
    count, user = 0, os.getuid()
    with os.scandir("/proc") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and entry.stat().st_uid == user:
                    count += Path(entry.path, "task").stat().st_nlink - 2
    return count
