"""The files in which a supervisor, its groups of workers and their observers meet.

service/            run/ROLE of a release, or what --folder says
  service.json      Service: who supervises, where it listens, which group answers
  wanted.json       Wanted: what a person or the controller asks for
  groups/N/         one group of workers: one version, one gunicorn
    settings.json   Settings
    group.json      Process: gunicorn's master
    open            there: accept connections; not there: stay warm, answer those that are there and end them
    workers/PID.json  Worker
    metrics/        Prometheus's values, one file per worker
    output.log      what its processes print
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from assay.records import Typed, write_atomically

Gate = Literal["open", "closed"]
Action = Literal["swap", "back", "retire", "abandon"]
"""What is asked of a supervisor: all but the last wait for the one before."""


class Process(Typed):
    """A process that is told from others that had or will have its number."""

    pid: int
    started: int
    """Clock ticks from the machine's start to its own."""

    @property
    def alive(self) -> bool:
        return started_at(self.pid) == self.started


def started_at(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine did; None: there is none, or it only waits to be reaped.

    Its first thread may be gone before the others, which hold its files and ports.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" and int(fields[17]) <= 1 else int(fields[19])


def this_process() -> Process:
    return process_of(os.getpid())


def process_of(pid: int) -> Process:
    started = started_at(pid)
    return Process(pid=pid, started=-1 if started is None else started)


class Worker(Typed):
    """What a worker says of itself; written at every change, and each second."""

    process: Process
    state: Literal["loading", "ready", "refused"]
    accepting: bool = False
    connections: int = 0
    reason: str | None = None
    """Why it is refused."""
    health: dict[str, Any] = {}
    """What `/health/ready` says."""


class Wanted(Typed):
    """An order to the supervisor. number: grows with every order."""

    number: int
    action: Action
    bundle: str | None = None


class Swap(Typed):
    """How an order went."""

    number: int
    action: str
    bundle: str | None
    state: Literal["preparing", "loading", "switching", "done", "failed"]
    reason: str | None = None
    group: int | None = None
    began: str
    ended: str | None = None


class Service(Typed):
    """What runs in a service's folder."""

    process: Process
    address: str
    port: int
    role: str
    active: int | None = None
    """The group that answers."""
    standby: int | None = None
    """The group that answered before, still warm."""
    taken: int | None = None
    """Number of the last order that was taken; null: not known."""
    swaps: list[Swap] = []
    """The last ones; the newest is last."""


Kind = TypeVar("Kind", bound=Typed)


def read_file(path: Path, kind: type[Kind]) -> Kind | None:
    """None where it is not there, or not whole."""
    with contextlib.suppress(OSError, ValueError):
        return kind.model_validate_json(path.read_bytes())
    return None


def write_file(path: Path, content: Typed) -> None:
    write_atomically(path, _text(content))


def write_quickly(path: Path, content: Typed) -> None:
    """Whole or absent for other processes, but not waiting for the disk: for what dies with its process.

    Who looks for files of its kind does not find it twice while it is written: the temporary one ends otherwise.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(_text(content))
    temporary.replace(path)


def _text(content: Typed) -> bytes:
    return (json.dumps(content.model_dump(mode="json"), indent=1) + "\n").encode()


@dataclass(frozen=True)
class GroupFiles:
    """The folder of one group."""

    folder: Path

    @property
    def settings(self) -> Path:
        return self.folder / "settings.json"

    @property
    def group(self) -> Path:
        return self.folder / "group.json"

    @property
    def workers(self) -> Path:
        return self.folder / "workers"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics"

    @property
    def output(self) -> Path:
        return self.folder / "output.log"

    @property
    def was_ready(self) -> Path:
        """Exists once every worker was: from then on one that cannot start is tried again."""
        return self.folder / "was-ready"

    @property
    def gate(self) -> Gate:
        return "open" if self._open.exists() else "closed"

    def set_gate(self, gate: Gate) -> None:
        """By a file that is there or not: closing needs no room on a disk that is full."""
        if gate == "open":
            self._open.touch()
        else:
            self._open.unlink(missing_ok=True)

    @property
    def _open(self) -> Path:
        return self.folder / "open"

    def worker(self, pid: int) -> Path:
        return self.workers / f"{pid}.json"

    def socket(self, pid: int) -> Path:
        """Where a worker hands its listening socket to a supervisor that comes anew."""
        return self.workers / f"{pid}.sock"

    def living_workers(self) -> list[Worker]:
        found = (read_file(path, Worker) for path in sorted(self.workers.glob("*.json")))
        return [worker for worker in found if worker is not None and worker.process.alive]

    def processes(self) -> list[Process]:
        """Master and workers that live."""
        master = read_file(self.group, Process)
        alive = [master] if master is not None and master.alive else []
        return [*alive, *(worker.process for worker in self.living_workers())]
