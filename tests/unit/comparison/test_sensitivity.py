"""Missing pairs: what the test would say, whatever they had come to."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from assay.comparison import statistics

Make = Callable[..., Any]


def lost(record: dict[str, Any]) -> None:
    record.update(outcome="diverged", message="the loss is not finite")


def levels(low: float, high: float, seeds: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(2)
    mlp, cnn = ((level + 0.003 * rng.normal(size=seeds)).round(3) for level in (low, high))
    return {"mlp": mlp.tolist(), "cnn": cnn.tolist()}


def test_one_failure_may_turn_a_small_difference(make: Make) -> None:
    made = make({"accuracy": levels(0.95, 0.97, 8)})
    made.edit("cnn", 3, "evaluate", lost)
    contrast = made.compare().metrics[0].contrasts[0]
    assert contrast.verdict == "inconclusive"
    found = contrast.sensitivity
    assert (found.missing, found.worst, found.best) == (1, "inconclusive", "better")
    assert found.worst_estimate == pytest.approx((7 * 0.02 - 0.95) / 8, abs=0.003)
    assert found.best_estimate == pytest.approx((7 * 0.02 + 0.05) / 8, abs=0.003)
    assert (
        "(diverged); the remaining pairs alone would be a selection, so they are not compared."
        in contrast.sentence
    )
    assert (
        "Had the missing pair come to the worst for cnn, the test would find it undecided (−10"
        in contrast.sentence
    )
    assert "percentage points); to the best, better (+2" in contrast.sentence


def test_a_great_difference_outlasts_the_worst(make: Make) -> None:
    made = make({"accuracy": levels(0.3, 0.97, 12)})
    made.edit("cnn", 3, "evaluate", lost)
    contrast = made.compare().metrics[0].contrasts[0]
    assert contrast.verdict == "inconclusive"
    assert (contrast.sensitivity.worst, contrast.sensitivity.best) == ("better", "better")
    assert "Whatever the missing pair had come to, the test would find cnn better (+" in contrast.sentence


def test_where_less_is_better(make: Make) -> None:
    settings = {"metrics": [{"name": "accuracy", "direction": "lower"}]}
    made = make({"accuracy": levels(0.97, 0.3, 12)}, **settings)
    made.edit("mlp", 0, "evaluate", lost)
    found = made.compare().metrics[0].contrasts[0].sensitivity
    assert (found.worst, found.best) == ("better", "better")
    assert found.best_estimate < found.worst_estimate < 0


def test_metrics_without_bounds_and_pairs_that_are_all_missing(make: Make) -> None:
    made = make({"loss": levels(0.3, 0.1, 6), "accuracy": levels(0.8, 0.9, 6)})
    made.edit("cnn", 3, "evaluate", lost)
    loss, accuracy = (metric.contrasts[0] for metric in made.compare().metrics)
    assert loss.sensitivity is None
    assert accuracy.sensitivity is not None
    for seed in range(6):
        made.edit("cnn", seed, "evaluate", lost)
    assert made.compare().metrics[1].contrasts[0].sensitivity is None


def test_whole_pairs_have_none(make: Make) -> None:
    assert make({"accuracy": levels(0.8, 0.9, 6)}).compare().metrics[0].contrasts[0].sensitivity is None


def test_extremes_bound_what_the_test_says_in_between() -> None:
    """The one-sided p falls in every difference, whatever the others are."""
    rng = np.random.default_rng(4)
    for _ in range(40):
        differences = np.repeat(rng.normal(size=(1, 9)), 30, axis=0)
        differences[:, 4] = np.linspace(-3, 3, 30)
        p = statistics.sign_flip_p_less(-differences)
        assert (np.diff(p) <= 1e-12).all()
