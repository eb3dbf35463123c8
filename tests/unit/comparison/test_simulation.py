"""Short forms of benchmarks/verdict_simulation.py: the error rates that docs/statistics.md states."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

REPETITIONS = 1000


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    try:
        import verdict_simulation
    finally:
        sys.path.pop(0)
    return verdict_simulation


def slack(rate: float) -> float:
    """Three standard errors."""
    return 3 * (rate * (1 - rate) / REPETITIONS) ** 0.5


@pytest.mark.parametrize("distribution", ["normal", "heavy tails (Student t, 3)"])
@pytest.mark.parametrize("n", [3, 6, 10])
def test_false_verdicts_under_symmetry(simulation: ModuleType, distribution: str, n: int) -> None:
    row = simulation.simulate(distribution, n, repetitions=REPETITIONS, seed=2)
    limit = 0.05 + slack(0.05)
    assert row.verdict <= row.test <= limit
    assert row.equivalence <= limit
    if n < 6:
        assert row.test == 0


def test_skew_is_what_the_docs_say(simulation: ModuleType) -> None:
    row = simulation.simulate("skewed (exponential)", 10, repetitions=REPETITIONS, seed=2)
    assert row.verdict <= 0.10 + slack(0.10)


def test_coverage_and_power(simulation: ModuleType) -> None:
    row = simulation.simulate("normal", 10, repetitions=REPETITIONS, seed=2)
    assert row.coverage >= 0.88
    assert row.power >= 0.7


def test_families(simulation: ModuleType) -> None:
    outcome = simulation.families(6, 1, 3, repetitions=REPETITIONS, seed=2)
    assert outcome["chains"]["error"] <= 0.05 + slack(0.05)
    # Six seeds cannot conclude anything on three metrics under Holm; in order, they can.
    assert outcome["holm over all"]["claims"] == 0 < 0.7 < outcome["chains"]["claims"]
    assert simulation.families(10, 3, 3, repetitions=300, seed=2)["chains"]["error"] <= 0.09


@pytest.mark.parametrize("seeds", [2, 6])
@pytest.mark.parametrize(
    "name", ["normal", "right or wrong, seeds alike", "right or wrong, seeds differ much"]
)
def test_interval_for_other_seeds_and_examples_covers(simulation: ModuleType, name: str, seeds: int) -> None:
    alone, other, both = simulation.coverage_of_both(name, seeds, repetitions=400, seed=2)
    assert both >= 0.95 - 3 * (0.95 * 0.05 / 400) ** 0.5
    assert both > min(alone, other)


@pytest.mark.parametrize(
    ("case", "distribution"),
    [
        ("four alike", "normal"),
        ("four alike", "heavy tails (Student t, 3)"),
        ("two alike, two apart", "normal"),
    ],
)
def test_all_pairs_and_ranks(simulation: ModuleType, case: str, distribution: str) -> None:
    row = simulation.ranks(case, distribution, 10, repetitions=600, seed=2)
    limit = 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5
    assert row.error <= limit
    assert 1 - row.coverage <= limit
    assert row.width > 3.9 if case == "four alike" else row.claims > 0.6


@pytest.mark.parametrize("distribution", ["normal", "heavy tails (Student t, 3)"])
def test_credible_intervals_cover(simulation: ModuleType, distribution: str) -> None:
    covered, better, within = simulation.credible(distribution, 6, repetitions=120, seed=2)
    assert covered >= 0.95 - 3 * (0.95 * 0.05 / 120) ** 0.5
    assert better <= 0.025 + 3 * (0.025 * 0.975 / 120) ** 0.5
    assert within <= 0.05 + 3 * (0.05 * 0.95 / 120) ** 0.5


def test_pooling_over_seeds_holds_its_level_where_adding_up_does_not(simulation: ModuleType) -> None:
    ours, naive = simulation.pooled_error(6, repetitions=300, seed=2)
    assert ours <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    assert naive > 0.1
