"""Requests a second per address: one count for all workers of Assay's own front."""

import multiprocessing
from pathlib import Path

import pytest

from assay.release.routing.rates import SLOTS, Rates

SECOND = 10**9


def test_the_rate_and_a_burst_of_as_many_as_nginx_counts(tmp_path: Path) -> None:
    rates = Rates(tmp_path / "rates")
    assert [rates.take("a", 2, now=SECOND) for _ in range(5)] == [True, True, True, False, False]
    assert rates.take("b", 2, now=SECOND)
    assert [rates.take("a", 2, now=SECOND * 3 // 2) for _ in range(2)] == [True, False]
    assert [rates.take("a", 2, now=60 * SECOND) for _ in range(4)] == [True, True, True, False]


def test_who_asks_all_the_time_has_the_rate(tmp_path: Path) -> None:
    rates = Rates(tmp_path / "rates")
    passed = sum(rates.take("a", 7, now=SECOND + number * SECOND // 100) for number in range(1001))
    assert passed == 8 + 10 * 7 - 1 or passed == 8 + 10 * 7


def test_a_clock_that_began_anew_shuts_nobody_out(tmp_path: Path) -> None:
    Rates(tmp_path / "rates").take("a", 1, now=10**6 * SECOND)
    assert Rates(tmp_path / "rates").take("a", 1, now=SECOND)


def take(path: Path, count: int) -> int:
    rates = Rates(path)
    return sum(rates.take("a", 100, now=SECOND) for _ in range(count))


def test_workers_count_together(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as workers:
        passed = workers.starmap(take, [(tmp_path / "rates", 90)] * 3)
    assert sum(passed) == 101


@pytest.mark.parametrize("how", ["nowhere", "damaged"])
def test_without_the_file_each_worker_counts_for_itself(how: str, tmp_path: Path) -> None:
    path = tmp_path / "rates"
    if how == "nowhere":
        path = Path("/proc/nowhere/rates")
    else:
        path.write_text("no table")
    one, other = Rates(path), Rates(path)
    assert [one.take("a", 1, now=SECOND) for _ in range(3)] == [True, True, False]
    assert other.take("a", 1, now=SECOND)


def test_beyond_the_most_those_due_first_are_forgotten(tmp_path: Path) -> None:
    rates = Rates(tmp_path / "rates")
    size = 0
    for number in range(SLOTS + 1000):
        assert rates.take(str(number), 1, now=SECOND + number)
        size = size or (tmp_path / "rates").stat().st_size
    assert (tmp_path / "rates").stat().st_size == size
