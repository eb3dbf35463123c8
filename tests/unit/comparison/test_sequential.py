"""Looks with the error rate held: exact over all sign patterns, by simulation, and through the judge."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.comparison import statistics
from assay.comparison.repeated import repeated_interval
from assay.comparison.sequential import Schedule, SequentialTest, levels
from assay.config.looks import Spending, idle, spent

SPENDINGS: list[Spending] = ["obrien-fleming", "pocock"]
MAGNITUDES = {
    "different": [0.9, 2.1, 0.4, 1.7, 3.3, 0.2, 1.1, 2.6],
    "ties": [1.0, 1.0, 2.0, 1.0, 1.0, 2.0, 1.0, 1.0],
    "one large": [0.1, 0.2, 0.1, 9.0, 0.3, 0.1, 0.2, 0.1],
    "zeros": [0.0, 1.0, 0.0, 2.0, 1.5, 0.0, 0.7, 1.2],
}


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    try:
        import looks_intervals
        import looks_simulation

        assert looks_intervals
    finally:
        sys.path.pop(0)
    return looks_simulation


def patterns(magnitudes: list[float]) -> list[np.ndarray]:
    signs = itertools.product((1.0, -1.0), repeat=len(magnitudes))
    return [np.array(one) * np.array(magnitudes) for one in signs]


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("sizes", MAGNITUDES)
def test_the_level_holds_exactly_whatever_the_sizes(sizes: str, spending: Spending, two_sided: bool) -> None:
    """Under no difference all signs are equally likely: no more of them cross up to a look than may be spent there."""
    schedule, alpha = Schedule((4, 6, 8), spending), 0.2
    tests = [SequentialTest(one, schedule, two_sided=two_sided) for one in patterns(MAGNITUDES[sizes])]
    crossed = np.array([[look.crossed for look in test.at(alpha)] for test in tests])
    shares = [crossed[:, : look + 1].any(axis=1).mean() for look in range(3)]
    allowed = [schedule.spent(look, alpha) for look in schedule.looks]
    assert all(share <= limit + 1e-12 for share, limit in zip(shares, allowed, strict=True))
    if sizes == "different":
        assert shares[-1] > 0.5 * alpha, "the level is used, not merely kept"
    told = [0.02, 0.05, 0.1, alpha, 0.5]
    p = np.array([test.p(told) for test in tests])
    for level in told:
        assert (p <= level).mean() <= level + 1e-12
    assert (p[~crossed.any(axis=1)] > alpha).all(), "what is told by p has crossed"


@pytest.mark.parametrize("last", [12, 20])
def test_a_later_look_leaves_the_earlier_ones_as_they_were(last: int) -> None:
    schedule = Schedule((6, 9, last), "pocock")
    differences = np.random.default_rng(4).normal(0.5, 1, last)
    whole = SequentialTest(differences, schedule).at(0.05)
    for number, look in enumerate(schedule.looks[:-1], start=1):
        earlier = SequentialTest(differences[:look], schedule).at(0.05)
        assert [one.crossed for one in earlier] == [one.crossed for one in whole[:number]]
        assert [one.p for one in earlier] == pytest.approx([one.p for one in whole[:number]])
        assert [one.boundary for one in earlier] == pytest.approx([one.boundary for one in whole[:number]])


def test_p_never_rises_from_look_to_look() -> None:
    schedule, rng = Schedule((6, 9, 12), "pocock"), np.random.default_rng(8)
    told = levels(0.05, 1, 1)
    for _ in range(20):
        differences = np.abs(rng.normal(0.7, 1, 12))
        p = [SequentialTest(differences[:look], schedule).p(told) for look in schedule.looks]
        assert p == sorted(p, reverse=True)


def test_where_early_looks_can_show_nothing_the_last_is_the_test_of_one_look() -> None:
    schedule, rng = Schedule((3, 4, 12), "obrien-fleming"), np.random.default_rng(2)
    assert idle([3, 4, 12], "obrien-fleming", 0.05) == [3, 4]
    for _ in range(50):
        differences = rng.normal(0.6, 1, 12)
        last = SequentialTest(differences, schedule).at(0.05)[-1]
        assert last.p == pytest.approx(statistics.sign_flip_p(differences))
        assert last.crossed == (last.p <= 0.05)


def test_levels_that_decide_are_told_without_rounding() -> None:
    told = levels(0.05, 3, 6)
    for share in range(1, 7):
        assert any(level * share <= 0.05 < level * share * (1 + 1e-6) for level in told)


@pytest.mark.parametrize(
    ("spending", "information", "share"),
    [
        ("obrien-fleming", 0.5, 0.0055746),
        ("obrien-fleming", 0.25, 0.0000886),
        ("pocock", 0.5, 0.0310057),
        ("pocock", 0.25, 0.0178695),
        ("pocock", 1.0, 0.05),
        ("obrien-fleming", 1.0, 0.05),
    ],
)
def test_spending_as_published(spending: Spending, information: float, share: float) -> None:
    assert spent(spending, information, 0.05) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("distribution", ["normal", "heavy tails (Student t, 3)"])
@pytest.mark.parametrize(("looks", "spending"), [((6, 8, 10), "pocock"), ((8, 16, 24), "obrien-fleming")])
def test_false_verdicts_over_all_looks(
    simulation: ModuleType, distribution: str, looks: tuple[int, ...], spending: Spending
) -> None:
    """The naive way, every look at 5%, is what the test has to tell apart: it exceeds the level."""
    repetitions = 600
    draws = simulation.DISTRIBUTIONS[distribution](np.random.default_rng(looks), (repetitions, looks[-1]))
    row = simulation.simulate(Schedule(looks, spending), draws)
    limit = 0.05 + 3 * (0.05 * 0.95 / repetitions) ** 0.5
    assert row.verdict <= row.test <= limit
    assert row.naive > row.test


def test_fewer_seeds_where_there_is_a_difference(simulation: ModuleType) -> None:
    draws = np.random.default_rng(3).normal(1.2, 1, (300, 12))
    row = simulation.simulate(Schedule((8, 10, 12), "pocock"), draws)
    assert row.pairs < 11
    assert row.verdict > row.fixed - 0.12


# --- through the judge ----------------------------------------------------------------------------------

FIRST = [0.90, 0.91, 0.92, 0.90, 0.91, 0.93, 0.92, 0.90]
CLEAR = [0.021, 0.018, 0.025, 0.020, 0.017, 0.022, 0.019, 0.024]
SMALL = [0.010, -0.009, 0.008, -0.007, 0.012, 0.002, -0.006, 0.004]


def at_look(make: Callable[..., Any], differences: list[float], looks: list[int], **settings: Any) -> Any:
    other = [value + d for value, d in zip(FIRST, differences, strict=True)]
    comparison = {"looks": looks, "spending": "pocock"}
    return make({"accuracy": {"a": FIRST, "b": other}}, comparison=comparison, **settings)


def test_a_clear_difference_ends_the_experiment_early(make: Callable[..., Any]) -> None:
    comparison = at_look(make, CLEAR, [8, 12, 16]).compare()
    (contrast,) = comparison.metrics[0].contrasts
    assert contrast.verdict == "better"
    found = comparison.sequential
    assert (found.look, found.seeds, found.looks) == (1, 8, [8, 12, 16])
    assert found.alpha_spent == pytest.approx(0.0310057, abs=1e-6)
    assert found.decided
    assert found.stopped_early
    (look,) = contrast.looks
    assert (look.pairs, look.p, look.crossed) == (8, 0.0078125, True)
    assert look.p <= look.boundary <= look.spent
    assert 0.0078125 <= contrast.test.p <= 0.05
    assert "look 1 of 3" in contrast.test.method
    assert any("overstated" in text for text in comparison.warnings)
    interval = contrast.interval
    assert interval.method.startswith("repeated over looks") and interval.confidence == 0.95
    assert 0 < interval.low < contrast.estimate < interval.high
    once = at_look(make, CLEAR, [4, 8]).compare().metrics[0].contrasts[0].interval
    assert interval.low <= once.low and once.high <= interval.high, (
        "the last look may spend more than the first"
    )


def test_an_open_question_goes_on(make: Callable[..., Any]) -> None:
    comparison = at_look(make, SMALL, [8, 12, 16]).compare()
    (contrast,) = comparison.metrics[0].contrasts
    assert contrast.verdict == "inconclusive"
    assert not comparison.sequential.decided
    assert "the next look is after 12 seeds" in contrast.sentence
    assert contrast.needed is None
    last = at_look(make, SMALL, [4, 8]).compare()
    assert (last.sequential.look, last.sequential.stopped_early) == (2, False)


def test_what_one_look_would_call_significant_is_not_at_an_early_one(make: Callable[..., Any]) -> None:
    """At eight of sixteen seeds O'Brien and Fleming's type may use 0.0056 of the level, and the smallest p is 0.0078."""
    settings = {"looks": [8, 16], "spending": "obrien-fleming"}
    other = [value + d for value, d in zip(FIRST, CLEAR, strict=True)]
    values = {"accuracy": {"a": FIRST, "b": other}}
    comparison = make(values, comparison=settings).compare()
    assert comparison.metrics[0].contrasts[0].verdict == "inconclusive"
    assert "nothing can be significant" in comparison.metrics[0].contrasts[0].sentence
    assert make(values).compare().metrics[0].contrasts[0].verdict == "better", "in one look"


def test_equivalence_is_sequential_too(make: Callable[..., Any]) -> None:
    near = [0.001, -0.001, 0.002, -0.002, 0.001, 0.001, -0.001, 0.0]
    choice = [{"name": "accuracy", "margin": 0.02}]
    comparison = at_look(make, near, [8, 12, 16], metrics=choice).compare()
    (contrast,) = comparison.metrics[0].contrasts
    assert contrast.verdict == "equivalent"
    assert 2**-8 < contrast.equivalence.p <= 0.05, "dearer than in one look"
    assert comparison.sequential.stopped_early


def test_nothing_more_is_run_for_what_seeds_cannot_decide(make: Callable[..., Any]) -> None:
    made = at_look(make, SMALL, [8, 12, 16])
    made.edit("b", 3, "evaluate", lambda record: record.update(outcome="failed"))
    assert made.compare().sequential.decided, "a pair is missing for good"
    made = at_look(make, SMALL, [8, 12, 16])
    made.edit("b", 3, "evaluate", lambda record: record.update(data_sha256="1" * 64))
    comparison = made.compare()
    assert not comparison.valid
    assert comparison.sequential.decided


def test_blocks_are_all_there_at_every_look(make: Callable[..., Any]) -> None:
    latency = {"a": [5.0, 5.1, 5.0, 5.2, 5.1, 5.0], "b": [4.0, 4.1, 4.0, 4.2, 4.1, 4.05]}
    values = {"accuracy": {"a": FIRST, "b": FIRST[::-1]}, "latency_ms": latency}
    settings = {"comparison": {"looks": [8, 16]}}
    looked = make(values, **settings).compare().metrics[1].contrasts[0]
    assert looked.looks is None
    assert looked == make(values).compare().metrics[1].contrasts[0]


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("sizes", MAGNITUDES)
def test_intervals_hold_over_all_looks_exactly(sizes: str, spending: Spending) -> None:
    """Of all sign patterns about a true difference, as many as may have an interval at some look that does not have it in."""
    schedule, alpha, truth = Schedule((4, 6, 8), spending), 0.2, 3.0
    lost = used = 0
    for one in patterns(MAGNITUDES[sizes]):
        if one[0] < 0:
            continue  # the mirror image of one that is looked at
        found = [repeated_interval(one[:look] + truth, schedule, alpha) for look in schedule.looks]
        lost += not all(low <= truth <= high for low, high in found)
        used += 1
        assert all(np.diff([high - low for low, high in found if np.isfinite(low)]) <= 0.01), (
            "each is within those before"
        )
    assert lost <= alpha * used
    if sizes == "different":
        assert lost > 0.3 * alpha * used, "the level is used, not merely kept"


def test_an_interval_excludes_no_difference_exactly_where_the_test_has_crossed() -> None:
    schedule, rng = Schedule((6, 9, 12), "pocock"), np.random.default_rng(5)
    seen = set()
    for mean in (0.0, 0.6, 1.2) * 6:
        differences = rng.normal(mean, 1, 12)
        for look in schedule.looks:
            low, high = repeated_interval(differences[:look], schedule, 0.05)
            crossed = any(one.crossed for one in SequentialTest(differences[:look], schedule).at(0.05))
            assert (low > 0 or high < 0) == crossed
            seen.add(crossed)
    assert seen == {True, False}


def test_a_look_that_may_spend_too_little_has_no_interval(make: Callable[..., Any]) -> None:
    assert repeated_interval(np.arange(8.0), Schedule((8, 12, 16), "obrien-fleming"), 0.05) == (
        -np.inf,
        np.inf,
    )
    comparison = at_look(make, SMALL, [8, 400]).compare()
    interval = comparison.metrics[0].contrasts[0].interval
    assert interval.low is interval.high is None and "too little of the error rate" in interval.reason


def test_simulated_intervals_hold_where_those_of_one_look_do_not(simulation: ModuleType) -> None:
    """A short form of benchmarks/looks_intervals.py: four standard errors below the level at most."""
    import looks_intervals

    differences = simulation.DISTRIBUTIONS["normal"](np.random.default_rng(2), (120, 12)) + 0.7
    row = looks_intervals.simulate(Schedule((8, 10, 12), "pocock"), differences, 0.7)
    assert row.repeated_all >= 0.95 - 4 * np.sqrt(0.05 * 0.95 / 120)
    assert row.bca_all < row.repeated_all and row.repeated_width > row.bca_width
