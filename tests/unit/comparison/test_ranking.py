"""More than two arms: all pairs under one error rate, and ranks with their uncertainty."""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from assay.comparison import statistics
from assay.comparison.multiplicity import holm
from assay.comparison.ranking import rank_sets, ranks_of, shares_of_best
from assay.comparison.terminal import text

Make = Callable[..., Any]
ALL = {"comparison": {"contrasts": "all"}}


def levels(*means: float, seeds: int = 8) -> dict[str, list[float]]:
    rng = np.random.default_rng(3)
    return {
        arm: (mean + 0.002 * rng.normal(size=seeds)).round(3).tolist()
        for arm, mean in zip(("mlp", "cnn", "vit", "gru"), means, strict=False)
    }


def test_all_pairs(make: Make) -> None:
    comparison = make({"accuracy": levels(0.90, 0.93, 0.96)}, **ALL).compare()
    metric = comparison.metrics[0]
    assert [(one.arm, one.baseline) for one in metric.contrasts] == [("cnn", "mlp"), ("vit", "mlp")]
    assert [(one.arm, one.baseline) for one in metric.between] == [("vit", "cnn")]
    assert metric.between[0].sentence.startswith("vit recognises better than cnn: ")
    assert metric.between[0].estimate == pytest.approx(0.03, abs=0.003)
    # Three hypotheses, Holm: 2/256 at eight seeds, times three.
    assert {one.test.p_adjusted for one in (*metric.contrasts, *metric.between)} == {3 / 128}
    assert "each pair of arms tests" in comparison.multiplicity


def test_all_pairs_take_more_seeds_than_the_baseline_alone(make: Make) -> None:
    values = {"accuracy": levels(0.90, 0.93, 0.96, 0.98, seeds=7)}
    assert {one.verdict for one in make(values).compare().metrics[0].contrasts} == {"better"}
    metric = make(values, **ALL).compare().metrics[0]
    assert len(metric.between) == 3
    found = {one.verdict for one in (*metric.contrasts, *metric.between)}
    assert found == {"inconclusive"}
    assert "needs at least 8 seeds" in metric.between[0].sentence


def test_swapping_the_order_of_arms_turns_the_sign(make: Make) -> None:
    values = levels(0.90, 0.93, 0.96)
    first = make({"accuracy": values}, **ALL).compare().metrics[0].between[0]
    turned = {arm: values[arm] for arm in ("mlp", "vit", "cnn")}
    second = make({"accuracy": turned}, **ALL).compare().metrics[0].between[0]
    assert (first.arm, second.arm) == ("vit", "cnn")
    assert first.estimate == pytest.approx(-second.estimate)
    assert first.test == second.test


def test_counts_and_costs_have_all_pairs_too(make: Make) -> None:
    values = {
        "latency_ms": {arm: [v / 1000 for v in found] for arm, found in levels(900, 930, 990).items()},
        "parameters": {"mlp": [10.0] * 8, "cnn": [20.0] * 8, "vit": [40.0] * 8},
    }
    latency, parameters = make(values, **ALL).compare().metrics
    assert latency.between[0].verdict == "worse"
    assert parameters.between[0].estimate == 2
    assert parameters.ranking is None
    assert [latency.ranking.arms[arm].rank for arm in ("mlp", "cnn", "vit")] == [1, 2, 3]


def test_ranks_of_clear_arms_and_of_two_alike(make: Make) -> None:
    made = make({"accuracy": levels(0.90, 0.96, 0.96)})
    found = made.compare().metrics[0].ranking
    assert (found.arms["mlp"].low, found.arms["mlp"].high) == (3, 3)
    assert (found.arms["cnn"].low, found.arms["cnn"].high) == (1, 2)
    assert found.arms["mlp"].best == 0
    assert sum(one.best for one in found.arms.values()) == pytest.approx(1)
    assert "Ranks in top-1 accuracy, 95% sure of all at once: " in text(made.folder, width=300)
    assert "mlp 3." in text(made.folder, width=300)


def test_two_arms_have_no_ranks(make: Make) -> None:
    assert make({"accuracy": levels(0.90, 0.96)}).compare().metrics[0].ranking is None


def test_an_arm_that_failed_leaves_no_ranks(make: Make) -> None:
    made = make({"accuracy": levels(0.90, 0.93, 0.96)}, **ALL)
    made.edit("vit", 2, "evaluate", lambda record: record.update(outcome="diverged"))
    metric = made.compare().metrics[0]
    assert metric.ranking.arms == {}
    assert metric.ranking.reason == "vit: not every seed has a value"
    assert metric.between[0].verdict == "inconclusive"
    assert metric.contrasts[0].verdict == "better"


def test_a_broken_contract_withholds_pairs_and_ranks(make: Make) -> None:
    made = make({"accuracy": levels(0.90, 0.93, 0.96)}, **ALL)
    made.edit("cnn", 1, "evaluate", lambda record: record.update(data_sha256="1" * 64))
    metric = made.compare().metrics[0]
    assert metric.between[0].verdict == "inconclusive"
    assert "No verdict on vit against cnn" in metric.between[0].sentence
    assert metric.ranking.arms == {}


def test_ranks_share_and_ignore_rounding() -> None:
    assert ranks_of(np.array([0.3, 0.1 + 0.2, 0.5, 0.1])).tolist() == [2, 2, 1, 4]


def test_rank_sets_are_those_of_holm_over_one_sided_tests() -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        scores = rng.normal(size=(4, 9)) + np.array([0, 0, 1.5, 3])[:, None]
        pairs = list(permutations(range(4), 2))
        p = statistics.sign_flip_p_less(np.stack([scores[j] - scores[i] for i, j in pairs]))
        better = {pair for pair, found in zip(pairs, holm(p.tolist()), strict=True) if found <= 0.05}
        low, high = rank_sets(scores, alpha=0.05)
        for arm in range(4):
            assert low[arm] == 1 + sum((other, arm) in better for other in range(4))
            assert high[arm] == 4 - sum((arm, other) in better for other in range(4))


def test_shares_of_best_is_the_bootstrap_over_seeds() -> None:
    scores = np.random.default_rng(6).normal(size=(3, 8))
    draws = np.random.default_rng(7).integers(0, 8, (20_000, 8))
    means = scores[:, draws].mean(axis=-1)
    expected = np.bincount(means.argmax(axis=0), minlength=3) / 20_000
    assert shares_of_best(scores, resamples=20_000) == pytest.approx(expected, abs=0.02)
    assert shares_of_best(np.zeros((4, 6)), resamples=1000).tolist() == [0.25] * 4
