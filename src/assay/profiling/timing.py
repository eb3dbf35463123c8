"""Repeat and time, until the median is known as well as asked or time is up."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.autograd import profiler

from assay.profiling.clock import Clock, clock_of
from assay.profiling.summarise import summarise

WARMUP_CALLS = 3
"""Calls thrown away however long they take: the first ones choose kernels and compile."""

MAX_SAMPLES = 100_000

_NEXT_LOOK = 1.25
"""By how much the samples grow from one look at the interval to the next: few looks, so that luck ends little."""

Lap = Callable[[str], None]
"""Says that the named part of a step ends here."""


@dataclass(frozen=True)
class Sampling:
    """How many samples are taken: at least `samples` and for at least `seconds`; then until the interval of the median is
    `width` of the median wide, or for `most_seconds`. width None: no longer than the least."""

    samples: int
    seconds: float = 0.0
    most_seconds: float = 0.0
    width: float | None = None


def time_calls(
    call: Callable[[], object],
    device: torch.device,
    *,
    warmup_seconds: float,
    samples: int,
    seconds: float = 0.0,
    most_seconds: float = 0.0,
    width: float | None = None,
) -> list[float]:
    """Seconds of each call, in order, as many as `Sampling` says.

    On a CPU by the monotonic clock, on a GPU by events on its stream, each call finished before the next one.
    Calls of the warm-up are not among them.

    Raises: RuntimeError where one of PyTorch's profilers records this process: its cost would be in every sample.
    """
    refuse_profiler()
    clock = clock_of(device)

    def take() -> list[float]:
        before = clock.mark()
        call()
        return clock.seconds([before, clock.mark()])

    warm_up(take, warmup_seconds)
    return sample(take, Sampling(samples, seconds, most_seconds, width))


def warm_up(take: Callable[[], object], seconds: float) -> None:
    end = time.perf_counter() + seconds
    calls = 0
    while calls < WARMUP_CALLS or time.perf_counter() < end:
        take()
        calls += 1


def sample(take: Callable[[], list[float]], plan: Sampling) -> list[float]:
    """What `take` returns, one or several samples at a time, in order. Raises: RuntimeError under a profiler."""
    refuse_profiler()
    found: list[float] = []
    began, look = time.perf_counter(), 0.0
    while True:
        found += take()
        seconds = time.perf_counter() - began
        if len(found) < plan.samples or (seconds < plan.seconds and len(found) < MAX_SAMPLES):
            continue
        if plan.width is None or seconds >= plan.most_seconds or len(found) >= MAX_SAMPLES:
            break
        if len(found) >= look:
            width = summarise(found).width
            if width is not None and width <= plan.width:
                break
            look = len(found) * _NEXT_LOOK
    refuse_profiler()  # the model itself may have started one
    return found


def time_steps(step: Callable[[Lap], None], clock: Clock, count: int) -> list[Mapping[str, float]]:
    """Seconds of each part of `count` steps in a row, by name; a part that comes up again within a step adds up.

    A step ends with its last lap, where the next one begins: all time is some part's. The device is waited for
    after the last step alone, so that the CPU runs ahead of a GPU as it does in training.
    """
    marks, names, ends = [clock.mark()], [], []

    def lap(name: str) -> None:
        marks.append(clock.mark())
        names.append(name)

    for _ in range(count):
        step(lap)
        ends.append(len(names))
    seconds = clock.seconds(marks)
    steps: list[Mapping[str, float]] = []
    for first, last in zip([0, *ends], ends, strict=False):
        parts: dict[str, float] = {}
        for name, value in zip(names[first:last], seconds[first:last], strict=True):
            parts[name] = parts.get(name, 0.0) + value
        steps.append(parts)
    return steps


def refuse_profiler() -> None:
    """Raises: RuntimeError while a profiler of PyTorch's is active, on this thread or another."""
    if profiler._is_profiler_enabled or torch._C._autograd._profiler_enabled():
        raise RuntimeError(
            "a profiler of PyTorch's is active in this process: nothing is timed under it; "
            "remove it from the model, `profile.traces: true` takes kernel traces apart from timings"
        )
