"""Sampling ends when the median is known, or when time is up; nothing is timed while a profiler records, not even where
the model starts one on the way."""

import itertools
import threading
import time
from statistics import median

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from assay.profiling.clock import CpuClock
from assay.profiling.summarise import summarise
from assay.profiling.timing import Sampling, sample, time_calls, time_steps

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
            leave.wait(300)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert entered.wait(300)
        with pytest.raises(RuntimeError, match="active in this process"):
            times(lambda: None)
    finally:
        leave.set()
        thread.join()


def values(*numbers: float):
    """A source of samples that gives the numbers in turn, again and again."""
    source = itertools.cycle(numbers)
    return lambda: [next(source)]


def test_sampling_ends_once_the_median_is_known() -> None:
    found = sample(values(1.0, 1.001, 0.999), Sampling(30, most_seconds=60, width=0.05))
    assert len(found) == 30


def test_least_samples_and_seconds_are_taken_however_well_the_median_is_known() -> None:
    began = time.perf_counter()

    def slow() -> list[float]:
        time.sleep(0.001)
        return [1.0]

    found = sample(slow, Sampling(5, seconds=0.05, most_seconds=600, width=0.5))
    assert len(found) > 5 and 0.05 <= time.perf_counter() - began < 600
    assert len(sample(values(1.0), Sampling(500, most_seconds=60, width=0.5))) == 500


def test_noise_ends_by_time_and_its_width_tells() -> None:
    generator = np.random.default_rng(0)

    def noisy() -> list[float]:
        time.sleep(0.001)
        return [float(generator.lognormal(0, 3))]

    began = time.perf_counter()
    found = sample(noisy, Sampling(5, most_seconds=0.2, width=0.01))
    assert 0.2 <= time.perf_counter() - began < 300
    assert summarise(found).width > 0.01


def test_samples_that_cling_to_each_other_are_not_taken_for_knowledge() -> None:
    """Independent ones of the same spread would do in a moment."""
    generator, level = np.random.default_rng(1), 0.0

    def clinging() -> list[float]:
        nonlocal level
        level = 0.999 * level + float(generator.normal(0, 0.01))
        return [float(np.exp(level))]

    def independent() -> list[float]:
        return [float(np.exp(generator.normal(0, 0.2)))]

    plan = Sampling(3000, most_seconds=0.3, width=0.05)
    width = summarise(sample(clinging, plan)).width
    assert width is None or width > 0.05
    assert summarise(sample(independent, plan)).width <= 0.05


def test_without_a_width_exactly_the_least_is_taken() -> None:
    assert len(sample(values(1.0, 50.0), Sampling(7, most_seconds=60))) == 7


class Ticks:
    """A clock whose marks are told beforehand."""

    def __init__(self, *marks: float) -> None:
        self.marks = iter(marks)

    def mark(self) -> float:
        return next(self.marks)

    def seconds(self, marks: list[float]) -> list[float]:
        return [after - before for before, after in itertools.pairwise(marks)]


def test_parts_of_steps_add_up_and_leave_nothing_out() -> None:
    def step(lap) -> None:
        for _ in range(2):
            lap("forward")
            lap("backward")
        lap("update")

    steps = time_steps(step, Ticks(0, 1, 3, 6, 10, 15, 16, 18, 21, 25, 40), 2)
    assert steps == [
        {"forward": 4, "backward": 6, "update": 5},
        {"forward": 4, "backward": 6, "update": 15},
    ]
    assert sum(sum(one.values()) for one in steps) == 40


def test_real_time_of_a_part_is_its_own() -> None:
    def step(lap) -> None:
        lap("before")
        time.sleep(0.01)
        lap("slow")
        lap("after")

    steps = time_steps(step, CpuClock(), 21)
    assert min(one["slow"] for one in steps) >= 0.01
    assert median(one["before"] + one["after"] for one in steps) < 0.002, "of a step that nobody interrupted"
