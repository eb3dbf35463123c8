"""The process beside a job that samples its GPUs and its machine, until the job ends, however it ends.

`start` of `assay.telemetry.beside` runs it by a bare interpreter: it imports next to nothing, so that it costs
milliseconds, and reads its orders from standard input, where the job's end is an end of file.
"""

import json
import os
import select
import signal
import time

from assay.clock import now
from assay.telemetry.machine import Machine
from assay.telemetry.nvml import Gpu, Lost, blank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SELDOM_SECONDS = 1.0
"""Least time between two readings of what changes slowly or is slow to ask: NVML measures PCIe traffic for 20 ms."""
FLUSH_SECONDS = 1.0
"""Lines wait for at most this long, and so memory is bounded."""


class Sampler:
    """orders: path, interval (s), gpus (UUIDs), job (process), family (process), identity (fields of every line), root."""

    def __init__(self, orders: "dict[str, Any]") -> None:
        self._interval = float(orders["interval"])
        self._job = int(orders["job"])
        self._family = int(orders["family"])
        self._identity: dict[str, Any] = orders["identity"]
        self._file = os.open(orders["path"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._pending: list[str] = []
        self._flushed = self._seldom = float("-inf")
        self._inbox = b""
        self._machine = Machine(self._job, orders.get("root", "/"))
        self._gpus: dict[str, Gpu | None] = dict.fromkeys(orders["gpus"])
        self._names = {uuid: uuid for uuid in self._gpus}
        self._noted: set[str] = set()

    def run(self) -> None:
        self._start()
        due = time.monotonic()
        while True:
            self._sample()
            due = max(
                due + self._interval, time.monotonic()
            )  # a slow call shifts the rhythm, no burst follows
            if not self._wait(due):
                break
        self._sample(last=True)
        self._write("end")
        self._flush()

    def _start(self) -> None:
        described, notes = [], [f"cpu: {note}" for note in self._machine.notes]
        for uuid in self._gpus:
            try:
                gpu = Gpu(uuid, self._job, self._family)
                self._gpus[uuid] = gpu
                self._names[uuid] = gpu.uuid
                described.append(gpu.describe())
            except (
                Exception
            ) as error:  # no library, no driver, no such GPU: all mean that nothing can be read
                notes.append(f"gpu {uuid}: {type(error).__name__}: {error}")
        self._write(
            "start",
            pid=os.getpid(),
            job=self._job,
            interval_s=self._interval,
            gpus=described,
            cpu=self._machine.describe(),
            notes=notes,
        )

    def _sample(self, *, last: bool = False) -> None:
        stamp, began = now(), time.monotonic()
        seldom = last or began - self._seldom >= SELDOM_SECONDS
        if seldom:
            self._seldom = began
        gpus = []
        for uuid, gpu in self._gpus.items():
            if gpu is None:
                gpus.append(blank(self._names[uuid]))
                continue
            try:
                gpus.append(gpu.read(seldom=seldom))
            except Lost as error:
                self._gpus[uuid] = None
                self._write("lost", uuid=gpu.uuid, message=str(error))
                gpus.append(blank(gpu.uuid))
            for note in gpu.notes:
                if (text := f"gpu {gpu.uuid}: {note}") not in self._noted:
                    self._noted.add(text)
                    self._write("note", message=text)
        self._write("sample", timestamp=stamp, monotonic=began, cpu=self._machine.read(), gpus=gpus)
        if began - self._flushed >= FLUSH_SECONDS:
            self._flush()

    def _wait(self, due: float) -> bool:
        """Until the next sample is due, taking marks meanwhile; False once the job has ended or says so."""
        while (left := due - time.monotonic()) > 0:
            if not select.select([0], [], [], left)[0]:
                break
            received = os.read(0, 65536)
            if not received:
                return False
            *lines, self._inbox = (self._inbox + received).split(b"\n")
            for line in lines:
                mark = json.loads(line)
                if mark.get("event") == "end":
                    return False
                self._pending.append(json.dumps(self._identity | mark))
        return os.getppid() == self._job

    def _write(self, event: str, **fields: "Any") -> None:
        times = {"timestamp": now(), "monotonic": time.monotonic()}
        line = times | self._identity | {"event": event} | fields
        self._pending.append(json.dumps(line))

    def _flush(self) -> None:
        content = "".join(line + "\n" for line in self._pending).encode()
        self._pending.clear()
        while content:
            content = content[os.write(self._file, content) :]
        self._flushed = time.monotonic()


def main() -> None:
    # Whoever stops the job stops its group too: the last sample is taken after the job's own end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with open(0, "rb", buffering=0, closefd=False) as orders_file:
        orders = json.loads(orders_file.readline())
    if os.getppid() == orders["job"]:
        Sampler(orders).run()
