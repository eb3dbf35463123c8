"""Points in time as the device sees them: by the monotonic clock on a CPU, by events on the stream of a GPU."""

import itertools
import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Marks are cheap; what lies between them is known once the device has passed them."""

    def mark(self) -> Any:
        """A point in the device's order of work."""

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        """From each mark to the next one. Waits until the device has passed the last one."""


class CpuClock:
    """The work is done when a call returns."""

    def mark(self) -> int:
        return time.perf_counter_ns()

    def seconds(self, marks: Sequence[int]) -> list[float]:
        return [(after - before) / 1e9 for before, after in itertools.pairwise(marks)]


class CudaClock:
    """A call only puts work on the stream: an event on it is reached when what was put before is done.

    Time between events includes that in which the GPU waited for the CPU to give it work. Events tell time to about
    half a microsecond (CUDA runtime, `cudaEventElapsedTime`).
    """

    def mark(self) -> Any:
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        marks[-1].synchronize()
        return [before.elapsed_time(after) / 1e3 for before, after in itertools.pairwise(marks)]


def clock_of(device: torch.device) -> Clock:
    return CudaClock() if device.type == "cuda" else CpuClock()
