"""Short forms of benchmarks/same_model.py: a model against itself, as docs/noise.md states it."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

REPETITIONS = 1000


@pytest.fixture(scope="module")
def same() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    try:
        import same_model
    finally:
        sys.path.pop(0)
    return same_model


def slack(rate: float, repetitions: int = REPETITIONS) -> float:
    """Three standard errors."""
    return 3 * (rate * (1 - rate) / repetitions) ** 0.5


@pytest.mark.parametrize("noise", ["normal", "of skewed times (exponential)", "heavy tails (Student t, 3)"])
@pytest.mark.parametrize(("own", "compared"), [(6, 6), (12, 6)])
def test_later_comparisons_stay_within_the_floor(
    same: ModuleType, noise: str, own: int, compared: int
) -> None:
    row = same.simulate(noise, own, compared, repetitions=REPETITIONS, seed=2)
    limit = 0.05 + slack(0.05)
    assert row.beyond <= limit
    assert row.guarded <= row.unguarded <= limit


def test_what_sets_the_two_apart_is_in_the_floor(same: ModuleType) -> None:
    row = same.simulate("the second self 3 sd slower", 6, 6, repetitions=REPETITIONS, seed=2)
    assert row.unguarded > 0.9, "the test alone takes it for a property of the model"
    assert row.guarded <= row.beyond <= 0.05 + slack(0.05)


def test_blocks_that_resemble_each_other_need_the_floor(same: ModuleType) -> None:
    row = same.simulate("blocks resemble each other", 6, 12, repetitions=REPETITIONS, seed=2)
    assert row.unguarded > 0.15 and row.guarded <= 0.05 + slack(0.05)


def test_the_floor_leaves_power(same: ModuleType) -> None:
    row = same.simulate("normal", 6, 6, repetitions=REPETITIONS, seed=2)
    assert 0.5 < row.found_guarded < row.found


def test_whole_experiments_of_one_network_claim_nothing_beyond_their_level(same: ModuleType) -> None:
    shares = same.families(2, 6, experiments=150, seed=2)
    assert max(shares.values()) <= 0.05 + slack(0.05, 150)


@pytest.mark.slow
def test_a_network_against_itself_on_this_machine(same: ModuleType) -> None:
    """Measured in earnest; three of four come out by chance once in thousands of times."""
    ratios = same.measured(4, 6, disturbed=False, seed=2)
    assert all(values.any() for values in ratios.values()), "nothing was measured"
    assert max(same.told_apart(values).sum() for values in ratios.values()) < 3
