"""A run on several devices: torchrun on every node, watched over.

torchrun starts one process per device and ends them all when one fails. What it does not do is done here: it gives
signals thirty seconds and then kills, turns every ending into status 1, lets SIGUSR1 end it and leave its
processes behind, and tells no other node of a failure. So it runs in a thread of this process, which hands signals on,
ends what is left when a rank died anywhere, and says who died and how.
"""

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args
from torch.distributed.run import run as torchrun

from assay.config.arm import Execution
from assay.forkserver import VARIABLE as FORKSERVER
from assay.records import now
from assay.training.board import MEETING_SECONDS, Board
from assay.training.checkpoint import sole_writer
from assay.training.ending import Ending, conclude
from assay.training.folder import Run, lock
from assay.training.rendezvous import Meeting, meeting
from assay.training.run import StopRequest

_POLL_SECONDS = 0.1
_PARTING_SECONDS = 30.0
"""How long a node waits for its own killed processes, and the first node for the others to have read the board."""


def launch(run: Run, command: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Run `command` once per device of this node; returns the exit status of the whole run, alike on every node.

    Raises: ValueError where the nodes cannot meet.
    """
    started = now()
    place = meeting(run.settings.execution, environment)
    first = place.node == 0
    stop = StopRequest()
    with stop.listening(), sole_writer(lock(run)) if first else nullcontext():
        board = _board(place)
        with tempfile.TemporaryDirectory(prefix="assay-ranks-") as folder:
            ending = _Node(run.settings.execution, place, board, stop).follow(command, folder)
        return conclude(run, ending, started=started, first=first)


def _board(place: Meeting) -> Board:
    try:
        return Board(place.host, place.port, keeper=place.node == 0)
    except (DistError, RuntimeError) as error:
        raise ValueError(
            f"execution.nodes: node {place.node} of {place.nodes} did not meet the others at {place.host}:{place.port}: "
            f"{str(error).splitlines()[0]}"
        ) from None


class _Node:
    """This node's ranks while they run."""

    def __init__(self, settings: Execution, place: Meeting, board: Board, stop: StopRequest) -> None:
        self.settings, self.place, self.board, self.stop = settings, place, board, stop
        first = place.node * settings.devices
        self.ranks = range(first, first + settings.devices)
        self.processes: dict[int, int] = {}
        self.given_up = False
        self.error: BaseException | None = None

    def follow(self, command: Sequence[str], folder: str) -> Ending | None:
        """Until the ranks of this node have ended; how the run ended, None where it completed."""
        self._prepare(folder)
        thread = threading.Thread(target=self._torchrun, args=(command, folder), daemon=True)
        thread.start()
        dead = None
        try:
            while thread.is_alive():
                thread.join(_POLL_SECONDS)
                self._hand_on()
                ending, dead = self.board.ending, self._dead()
                if dead is not None or (ending is not None and ending["kind"] != "stopped"):
                    break
            self._end_ranks(thread)
            if self.error is not None and self.board.ending is None:
                self.board.end(**self._post_mortem(dead))
            return self._part()
        except DistError:
            self._end_ranks(thread)
            lost = f"the first node, {self.place.host}:{self.place.port}, does not answer any more"
            return Ending("failed", socket.gethostname(), lost)

    def _prepare(self, folder: str) -> None:
        """What the ranks inherit; and torchrun's warning that signals are not its own is no news.

        folder: for their temporary files too, which they leave: PyTorch makes some, and they end in no orderly way.
        """
        os.environ["TMPDIR"] = folder
        os.environ.pop(FORKSERVER, None)
        os.environ.setdefault("OMP_NUM_THREADS", str(self.settings.threads))
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        if self.place.nodes == 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)

    def _torchrun(self, command: Sequence[str], folder: str) -> None:
        place, devices = self.place, str(self.settings.devices)
        options = [
            *("--nnodes", str(place.nodes), "--nproc-per-node", devices, "--node-rank", str(place.node)),
            *("--master-addr", place.host, "--master-port", str(self.board.port)),
            *("--rdzv-conf", f"timeout={MEETING_SECONDS}", "--max-restarts", "0"),
            *("--log-dir", folder, "--no-python", *command),
        ]
        try:
            torchrun(parse_args(options))  # type: ignore[no-untyped-call]
        except BaseException as error:  # told by the thread that waits
            self.error = error

    def _hand_on(self) -> None:
        """A signal that asks the run to end goes to every rank; before they have met there is nothing to save."""
        self._look_for_ranks()
        number, self.stop.number = self.stop.number, 0
        if number and self.board.get("met") is None:
            self.board.end(kind="stopped", signal=number)
            self.given_up = True
        if self.given_up:  # whenever a rank tells its number: none may have done so yet
            number = signal.SIGKILL
        if number:
            self._signal(number)

    def _look_for_ranks(self) -> None:
        for rank in self.ranks:
            if rank not in self.processes and (process := self.board.get(f"process/{rank}")) is not None:
                self.processes[rank] = process

    def _signal(self, number: int) -> None:
        for process in self.processes.values():
            if _alive(process):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)

    def _dead(self) -> int | None:
        """A rank of this node that is gone without having said that it is done."""
        for rank, process in self.processes.items():
            if not _alive(process) and self.board.get(f"done/{rank}") is None:
                return rank
        return None

    def _end_ranks(self, thread: threading.Thread) -> None:
        """By force: a rank that waits inside a GPU's kernel for a dead one hears nothing else."""
        end = time.monotonic() + _PARTING_SECONDS
        while thread.is_alive() and time.monotonic() < end:
            with contextlib.suppress(DistError):
                self._look_for_ranks()
            self._signal(signal.SIGKILL)
            thread.join(_POLL_SECONDS)

    def _post_mortem(self, dead: int | None) -> dict[str, Any]:
        """What torchrun saw of the rank that died first."""
        failures = self.error.failures if isinstance(self.error, ChildFailedError) else {}
        rank = dead if dead in failures else min(failures, default=None)
        here = {"kind": "failed", "host": socket.gethostname()}
        if rank is None:
            return here | {"message": f"torchrun: {self.error}"}
        code, process = failures[rank].exitcode, failures[rank].pid
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return here | {"rank": rank, "process": process, "message": how}

    def _part(self) -> Ending | None:
        """How the run ended; the first node stays until the others have read it."""
        notes, about = self.board.ending, self.board.get("run") or {}
        if self.place.node:
            self.board.put(f"parted/{self.place.node}")
        end = time.monotonic() + _PARTING_SECONDS
        silent = list(range(1, self.place.nodes)) if self.place.node == 0 else []
        while (silent := [n for n in silent if not self.board.get(f"parted/{n}")]) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        if notes is not None and notes["kind"] == "failed" and silent:
            notes["message"] += f"; node {', '.join(map(str, silent))} does not answer any more"
        return None if notes is None else Ending(**notes, about=about)


def _alive(process: int) -> bool:
    """Whether a process runs; one that has ended and was not yet fetched does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
