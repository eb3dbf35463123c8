"""Starting and ending the sampler from the job's side. No call here waits for the driver for long.

A process of its own, started by exec: an NVML call that hangs in the kernel hangs nobody else, a sample costs the job
no time under its interpreter lock, and the start costs the job 0.2 ms, where a fork of a process with PyTorch loaded
costs it 6 ms (`benchmarks/telemetry.py`).
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from assay.records import end_torn_line, now

STOP_SECONDS = 3.0
"""For its last sample and lines; one that takes longer and does nothing hangs in the driver, and is left to the kernel."""
PATIENCE_SECONDS = 60.0
"""For one that takes longer because it waits for a core or was stopped."""
ASK_SECONDS = 30.0
"""For the start of an interpreter on a busy machine, and one question to the driver."""

_PROGRAM = (
    "import sys; sys.path[:0] = {paths!r}; from assay.telemetry.sampler import main; main(); "
    "sys.stderr.flush(); __import__('os')._exit(0)"
)


class Sampler:
    """Samples into a JSONL file from construction to `stop`, or to the end of this process.

    Args:
        path: lines are appended.
        interval: seconds between samples; None: nothing is sampled, and nothing started.
        gpus: UUIDs of the GPUs that this job uses, and of no other.
        identity: fields that every line carries.
        family: the process below which all processes are the job's own; None: this one. So are those above it.
        root: stands for `/`, so that a test can show another machine.
    """

    def __init__(
        self,
        path: Path,
        *,
        interval: float | None,
        gpus: Sequence[str] = (),
        identity: Mapping[str, str | int] | None = None,
        family: int | None = None,
        root: str = "/",
    ) -> None:
        self.path = path
        self.notes: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        if interval is None or not hasattr(os, "getppid") or sys.platform == "win32":
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        end_torn_line(path)
        orders = {
            "path": str(path),
            "interval": interval,
            "gpus": list(gpus),
            "job": os.getpid(),
            "family": os.getpid() if family is None else family,
            "identity": dict(identity or {}),
            "root": root,
        }
        try:
            self._process = subprocess.Popen(_command(bool(gpus)), stdin=subprocess.PIPE)
        except OSError as error:
            self.notes.append(f"no telemetry: the sampler could not be started: {error}")
            return
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        self._send(orders)

    def mark(self, event: str, **fields: object) -> None:
        """A line of the job's own among the samples, with the time of this call."""
        self._send({"timestamp": now(), "monotonic": time.monotonic(), "event": event, **fields})

    def stop(self) -> list[str]:
        """End it and wait for its last lines. Returns what went wrong with the sampling as such."""
        self._send({"event": "end"})  # processes forked from this one may hold the pipe open
        process, self._process = self._process, None
        if process is None:
            return self.notes
        assert process.stdin is not None
        process.stdin.close()
        status = _ended(process)
        if status is None:
            self.notes.append("the sampler did not answer any more: a call of the driver hangs")
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        elif status != 0:
            self.notes.append(f"the sampler ended with status {status}")
        return self.notes

    def _send(self, line: Mapping[str, Any]) -> None:
        if self._process is None:
            return
        try:
            os.write(self._pipe, json.dumps(line).encode() + b"\n")
        except OSError:  # it has ended or hangs: `stop` tells
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _ended(process: "subprocess.Popen[bytes]") -> int | None:
    """The status of a sampler that was asked to end; None where it hangs."""
    last = time.monotonic() + PATIENCE_SECONDS
    before = _progress(process.pid)
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(STOP_SECONDS)
        # One that was stopped, or waited for a core, at either end of that time may have had none of it.
        after = _progress(process.pid)
        if (after == before and after.state not in "RTt") or time.monotonic() > last:
            return None
        before = after


class _Progress(NamedTuple):
    state: str
    done: list[str]
    """What grows while it does anything: pages that it waited for, time that it computed."""


def _progress(process: int) -> _Progress:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _Progress("X", [])
    return _Progress(fields[0], [fields[9], fields[11], fields[12]])


def visible_gpu() -> str | None:
    """UUID of the one GPU that this process may use, asked for in another one that may hang; None where not sure."""
    program = "from assay.telemetry.nvml import visible_uuid; print(visible_uuid() or '')"
    command = _command(True, "import sys; sys.path[:0] = {paths!r}; " + program)
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def _command(with_gpus: bool, program: str = _PROGRAM) -> list[str]:
    """A bare interpreter that finds this package and, where a GPU is asked for, nvidia-ml-py, and nothing else."""
    paths = [str(Path(__file__).parents[2])]
    if with_gpus and (found := importlib.util.find_spec("pynvml")) is not None and found.origin:
        paths.append(str(Path(found.origin).parent))
    return [sys.executable, "-I", "-S", "-c", program.format(paths=paths)]
