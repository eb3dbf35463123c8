"""Nothing is timed while a profiler records: not at the start, and not where the model starts one on the way."""

import threading

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from assay.profiling.timing import time_calls

CPU = torch.device("cpu")


def times(call) -> list[float]:
    return time_calls(call, CPU, warmup_seconds=0.0, samples=5)


def test_calls_are_timed_without_a_profiler() -> None:
    assert len(times(lambda: torch.zeros(1))) == 5


@pytest.mark.parametrize(
    "profiler",
    [lambda: profile(activities=[ProfilerActivity.CPU]), lambda: torch.autograd.profiler.profile()],
)
def test_nothing_is_timed_under_an_active_profiler(profiler) -> None:
    calls = []
    with profiler(), pytest.raises(RuntimeError, match="a profiler of PyTorch's is active"):
        times(lambda: calls.append(1))
    assert calls == []
    assert len(times(lambda: torch.zeros(1))) == 5, "and again once it has ended"


def test_one_that_the_model_starts_is_noticed() -> None:
    started = []

    def call() -> None:
        if not started:
            started.append(profile(activities=[ProfilerActivity.CPU]))
            started[0].start()

    try:
        with pytest.raises(RuntimeError, match=r"profile\.traces: true"):
            times(call)
    finally:
        started[0].stop()


def test_one_of_another_thread_is_noticed() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with profile(activities=[ProfilerActivity.CPU]):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert entered.wait(10)
        with pytest.raises(RuntimeError, match="active in this process"):
            times(lambda: None)
    finally:
        leave.set()
        thread.join()
