"""A short form of benchmarks/judge_simulation.py: the error rates that docs/judge.md states."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.release.judge.evidence import ODDS, LabelTest, MarginTest, ScoreTest
from assay.release.judge.judge import Judge
from assay.release.schema import Judge as Settings
from assay.release.schema import Step

RELEASES = 100
MOST = 5 + 3 * (RELEASES * 0.05 * 0.95) ** 0.5
"""Of so many that may be turned back falsely at a level of 5%: three standard deviations above."""


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    try:
        import judge_simulation
    finally:
        sys.path.pop(0)
    return judge_simulation


def count(seen: Any, *names: str) -> float:
    return RELEASES * float(seen.turned_back(names))


def test_identical_versions_are_rarely_turned_back_and_broken_judges_are_seen(simulation: ModuleType) -> None:
    scenario = simulation.Scenario(users=2500, seconds=120)
    seen = simulation.simulate(scenario, RELEASES, np.random.default_rng(0), others=True)
    assert count(seen, "errors", "latency", "business") <= MOST
    assert count(seen, "requests") > MOST
    assert count(seen, "z-test") > MOST


def test_a_test_that_ignores_the_ramp_is_seen(simulation: ModuleType) -> None:
    """Users of an earlier step's candidate in the comparison, at the share of those whom the step moved."""
    paths = simulation.paths
    events = []
    for number in range(RELEASES):
        rng = np.random.default_rng(number)
        bucket, (one,) = simulation.drawn(simulation.Scenario((0.5,), users=6000), rng)
        everyone = paths.compared(one, 0.0, bucket, 600.0, 30.0)
        events.append(everyone.first_errors)
    right = np.isfinite(paths.label_test(events, 0.5, 0.05)).sum()
    wrong = np.isfinite(paths.label_test(events, 0.25 / 0.75, 0.05)).sum()
    assert right <= MOST < wrong


@pytest.mark.parametrize(
    ("metric", "effect"),
    [("errors", {"errors": 10}), ("latency", {"latency": 1.5}), ("business", {"value": 0.8})],
)
def test_what_is_worse_is_found(simulation: ModuleType, metric: str, effect: dict[str, float]) -> None:
    scenario = simulation.Scenario((0.5,), simulation.Effect(**effect), users=4000)
    seen = simulation.simulate(scenario, 20, np.random.default_rng(1), (metric,))
    assert seen.turned_back([metric]) >= 0.75


@pytest.mark.parametrize(
    ("metric", "effect"),
    [("errors", {"errors": 2.6}), ("latency", {"latency": 1.2}), ("business", {"value": 0.96})],
)
def test_worse_by_the_margin_is_rarely_shown_to_be_harmless(
    simulation: ModuleType, metric: str, effect: dict[str, float]
) -> None:
    scenario = simulation.Scenario((0.5,), simulation.Effect(**effect), users=4000)
    seen = simulation.simulate(scenario, RELEASES // 2, np.random.default_rng(2), (metric,), margins=True)
    assert np.isfinite(seen.shown[metric]).sum() <= 2.5 + 3 * (RELEASES / 2 * 0.05 * 0.95) ** 0.5


def test_the_judge_itself_comes_to_the_same_numbers(simulation: ModuleType) -> None:
    traffic, paths = sys.modules["judge_traffic"], simulation.paths
    rng = np.random.default_rng(3)
    population, settings = traffic.Population.drawn(2000, rng), Settings()
    judge = Judge(settings, [Step(share=share) for share in (0.1, 0.5, 1.0)], traffic.has)
    judge._look = lambda: None  # type: ignore[method-assign]
    for number, (low, share) in enumerate([(0.0, 0.1), (0.1, 0.5)]):
        one = traffic.visits(population, share, 300.0, traffic.Effect(errors=3, latency=1.2), rng)
        judge.feed(*traffic.lines(population, one, 1e6 * number, 300.0))
        events = paths.compared(one, low, population.bucket, 300.0, settings.user_seconds)
        step = judge.steps[share]
        assert step.latency is not None and step.candidate_share == pytest.approx(events.share)
        labels = LabelTest(len(ODDS))
        for label in events.first_errors[1]:
            labels.update(label, events.share, np.log(ODDS))
        scores = ScoreTest()
        for _, label, slow in zip(*paths.slow_shares(*events.latencies, 0.95), strict=True):
            scores.score(label, events.share, slow)
        margin = MarginTest(step.errors.margin.margins)
        for label, wrong in zip(*events.windows[1:3], strict=True):
            margin.update(label, events.share, wrong)
        assert float(labels.log_e) == pytest.approx(float(step.errors.test.log_e))
        assert float(scores.log_e) == pytest.approx(float(step.latency.test.log_e))
        assert margin.log_e() == pytest.approx(step.errors.margin.log_e())


def test_the_whole_judge_rarely_turns_back_what_meets_an_outage_and_a_rush(simulation: ModuleType) -> None:
    """Guards, tests and ratio check, line by line; guards that do not ask whether a burst is chance are seen."""
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    try:
        import judge_whole as whole
    finally:
        sys.path.pop(0)
    seen = [
        whole.judged([seed, 0], shares, 500, disturbed=True, seconds=150.0)
        for shares, count in (((0.5,), 20), ((0.1, 0.5), 10), ((0.0,), 20), ((1.0,), 20))
        for seed in range(count)
    ]
    chance = 0.05 * len(seen)
    assert sum(one.turned_back for one in seen) <= chance + 3 * chance**0.5
    assert sum(one.guard is not None for one in seen) <= 1, "they have a tenth of the level"
    assert sum(one.limits for one in seen) >= 5
    broken = whole.judged(
        [0], (0.5,), 500, disturbed=False, effect=simulation.Effect(errors=1e6), seconds=60.0
    )
    assert broken.guard is not None and broken.turned_back
