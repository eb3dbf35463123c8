"""The search for the largest batch: what is tried stays below the bound, also where memory does not grow evenly."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.profiling.largest import CALLS, MOST_IMAGES, Cost, Found, find_largest


class Machine:
    """Memory (MiB) and seconds by batch size. What asks for more than the bound is refused, and counted."""

    def __init__(self, memory, bound: float = 1000.0, seconds=lambda size: 1e-5 * size) -> None:
        self.memory, self.bound, self.seconds = memory, bound, seconds
        self.sizes: list[int] = []

    def __call__(self, size: int) -> Cost | None:
        self.sizes.append(size)
        if self.memory(size) > self.bound:
            return None
        return Cost(size=size, memory_mb=self.memory(size), seconds=self.seconds(size))

    def search(self, start: int = 8, seconds: float = 1e9, gain: float | None = None) -> Found | None:
        return find_largest(self, start, bound_mb=self.bound, most_seconds=seconds, least_gain=gain)


def test_an_even_growth_is_foretold_and_nothing_is_refused() -> None:
    machine = Machine(lambda size: 100 + size)
    found = machine.search()
    assert found.limit == "memory" and found.refused == []
    assert 900 / 1.125 < found.size <= 900
    assert found.tried[-1].size == found.size == max(machine.sizes)


@given(
    base=st.floats(0, 500),
    slope=st.floats(0.01, 50),
    step=st.sampled_from([0, 1, 32, 100]),
    start=st.sampled_from([1, 2, 8, 64]),
)
def test_growth_in_steps_above_a_line_overshoots_by_a_step_at_most(base, slope, step, start) -> None:
    """As allocators round up: what is refused was foretold to fit, and lies no further above than they round."""

    def memory(size: int) -> float:
        grown = base + slope * size
        return math.ceil(grown / step) * step if step else grown

    machine = Machine(memory)
    found = machine.search(start=start)
    for size in machine.sizes:
        if size > start:
            assert memory(size) <= machine.bound + 2 * step + slope * size * 0.5
    if found is not None:
        assert memory(found.size) <= machine.bound
        assert found.size == max(one.size for one in found.tried)
    assert len(machine.sizes) < 60


@pytest.mark.parametrize("at", [9, 33, 200, 1025])
def test_a_jump_is_refused_and_what_fits_below_it_is_found(at) -> None:
    """No line through smaller sizes foretells it."""
    machine = Machine(lambda size: 100 + size * 0.001 + (5000 if size >= at else 0))
    found = machine.search()
    assert found.limit == "memory"
    assert all(size >= at for size in found.refused) and found.refused
    assert at / 1.3 < found.size < at


def test_what_does_not_even_fit_at_the_start_is_not_searched() -> None:
    machine = Machine(lambda size: 2000.0)
    assert machine.search(start=8) is None
    assert machine.sizes == [4, 8]


def test_time_ends_it_before_it_is_spent() -> None:
    machine = Machine(lambda size: 1.0, seconds=lambda size: 0.01 * size)
    found = machine.search(seconds=60)
    assert found.limit == "time"
    assert sum(machine.seconds(size) * CALLS for size in machine.sizes) <= 60 < 60 * 2


def test_a_slow_start_tries_nothing_larger() -> None:
    machine = Machine(lambda size: 1.0, seconds=lambda size: float(size))
    assert machine.search(seconds=1).limit == "time"
    assert machine.sizes == [4, 8]


def test_no_more_throughput_ends_it_where_that_is_asked() -> None:
    def flat(size: int) -> float:
        return size * 1e-5 if size > 64 else 64e-5

    found = Machine(lambda size: 1.0, seconds=flat).search(gain=0.05)
    assert (found.limit, found.size) == ("gain", 256)
    assert Machine(lambda size: 1.0, seconds=flat).search().limit == "images"


def test_it_ends_at_last() -> None:
    found = Machine(lambda size: 1.0).search()
    assert (found.limit, found.size) == ("images", MOST_IMAGES)
    assert Machine(lambda size: 1.0).search(start=1).size == MOST_IMAGES
