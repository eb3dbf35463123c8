"""Repeat and time."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import profiler

WARMUP_CALLS = 3
"""Calls thrown away however long they take: the first ones choose kernels and compile."""

MAX_SAMPLES = 100_000


def time_calls(
    call: Callable[[], object],
    device: torch.device,
    *,
    warmup_seconds: float,
    seconds: float = 0.0,
    samples: int,
) -> list[float]:
    """Seconds of each call, in order: at least `samples` of them and for at least `seconds`.

    On a CPU by the monotonic clock, on a GPU by events on its stream, each call finished before the next one.
    Calls of the warm-up are not among them.

    Raises: RuntimeError where one of PyTorch's profilers records this process: its cost would be in every sample.
    """
    refuse_profiler()
    clock = _on_gpu if device.type == "cuda" else _on_cpu
    end = time.perf_counter() + warmup_seconds
    calls = 0
    while calls < WARMUP_CALLS or time.perf_counter() < end:
        clock(call)
        calls += 1
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < samples or (time.perf_counter() < end and len(found) < MAX_SAMPLES):
        found.append(clock(call))
    refuse_profiler()  # the model itself may have started one
    return found


def refuse_profiler() -> None:
    """Raises: RuntimeError while a profiler of PyTorch's is active, on this thread or another."""
    if profiler._is_profiler_enabled or torch._C._autograd._profiler_enabled():
        raise RuntimeError(
            "a profiler of PyTorch's is active in this process: nothing is timed under it; "
            "remove it from the model, `profile.traces: true` takes kernel traces apart from timings"
        )


def _on_cpu(call: Callable[[], object]) -> float:
    before = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - before) / 1e9


def _on_gpu(call: Callable[[], object]) -> float:
    before: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    after: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    before.record()
    call()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after)) / 1e3
