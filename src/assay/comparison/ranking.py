"""Ranks of more than two arms, and how sure they are."""

from itertools import combinations

import numpy as np

from assay.comparison import statistics
from assay.comparison.analysis import Values, transformed
from assay.comparison.model import MetricResult, Rank, Ranking
from assay.comparison.multiplicity import holm
from assay.comparison.question import Question
from assay.comparison.statistics import Floats, Integers
from assay.config.metrics import Metric

LEAST_ARMS = 3


def ranking(question: Question, metric: Metric, result: MetricResult, values: Values) -> Ranking | None:
    """Of all arms on one metric; None for two arms, where the contrast says all."""
    if len(question.arms) < LEAST_ARMS:
        return None
    found = Ranking(confidence=question.comparison.confidence)
    without = [arm for arm in question.arms if None in values[arm].values() or not values[arm]]
    if without:
        found.reason = f"{', '.join(without)}: not every {result.pairing} has a value"
        return found
    if result.scale == "ratio" and any((v or 0) <= 0 for arm in question.arms for v in values[arm].values()):
        found.reason = "a ratio needs positive values"
        return found
    scores = np.stack([transformed(metric, values[arm]) for arm in question.arms])
    if result.direction == "lower":
        scores = -scores
    ranks = ranks_of(scores.mean(axis=-1))
    low, high = rank_sets(scores, alpha=question.alpha)
    best = shares_of_best(scores, resamples=question.comparison.resamples)
    found.arms = {
        arm: Rank(rank=int(ranks[i]), low=int(low[i]), high=int(high[i]), best=float(best[i]))
        for i, arm in enumerate(question.arms)
    }
    return found


def ranks_of(means: Floats) -> Integers:
    """1 for the greatest; equal ones, up to rounding, share the best: `[k]`."""
    result: Integers = 1 + (means[None, :] > means[:, None] + _tie(means)).sum(axis=1)
    return result


def rank_sets(scores: Floats, *, alpha: float) -> tuple[Integers, Integers]:
    """Best and worst rank of each arm that are not ruled out, for all arms at once: `[k, n]` to `[k]`, greater is better.

    An arm ranks behind as many as are shown to be better, and before as many as it is shown to be better than
    (Mogstad, Romano, Shaikh and Wilhelm 2024; Al Mohamad, Goeman and van Zwet 2022). Shown is what Holm's procedure
    rejects of all one-sided hypotheses `i is not better than j`, two a pair.
    """
    differences = pair_differences(scores)
    return sets_from_tests(differences.mean(axis=1), statistics.sign_flip_p(differences), len(scores), alpha)


def pair_differences(scores: Floats) -> Floats:
    """Of every two arms, the earlier less the later: `[..., k, n]` to `[..., k (k - 1) / 2, n]`."""
    first, second = np.triu_indices(scores.shape[-2], 1)
    result: Floats = scores[..., first, :] - scores[..., second, :]
    return result


def sets_from_tests(means: Floats, two_sided: Floats, arms: int, alpha: float) -> tuple[Integers, Integers]:
    """The same from mean differences and p of all pairs, in the order of `pair_differences`."""
    pairs = list(combinations(range(arms), 2))
    seen = [(i, j) if mean > 0 else (j, i) for (i, j), mean in zip(pairs, means, strict=True)]
    # Sums of flipped signs are symmetric about zero: one tail is half of both, the other at least one half.
    adjusted = holm([*(two_sided / 2).tolist(), *[1.0] * len(pairs)])
    ahead, behind = np.zeros(arms, dtype=np.int64), np.zeros(arms, dtype=np.int64)
    for (better, worse), p in zip(seen, adjusted, strict=False):
        if p <= alpha:
            ahead[worse] += 1
            behind[better] += 1
    return 1 + ahead, arms - behind


def shares_of_best(scores: Floats, *, resamples: int) -> Floats:
    """How often each arm has the greatest mean when replicates are drawn anew, for all arms alike: `[k, n]` to `[k]`."""
    means = scores @ statistics.resampling_weights(scores.shape[1], resamples)
    first = means >= means.max(axis=0) - _tie(scores)
    result: Floats = (first / first.sum(axis=0)).mean(axis=1)
    return result


def _tie(numbers: Floats) -> float:
    return 1e-12 * float(np.abs(numbers).max())
