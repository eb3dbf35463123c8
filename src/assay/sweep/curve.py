"""The best score of a search against its budget. `docs/tuning.md` derives it."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from assay.sweep.model import BudgetPoint, Trial

CONFIDENCE = 0.95
RESAMPLES = 2000
Floats = NDArray[np.float64]


def expected_best(scores: Floats, trials: int) -> Floats:
    """Mean of the highest score over all subsets of so many trials: unbiased for independent trials.

    The i-th smallest of n scores is the highest of C(i-1, k-1) of C(n, k) subsets of k (Tang et al. 2020, equation 4).

    Args:
        scores: [..., n], higher is better; -inf for a trial that failed.

    Returns: [...]; -inf where a subset can have failed as a whole.
    """
    ordered = np.sort(scores, axis=-1)
    n = ordered.shape[-1]
    weights = np.zeros(n)
    weights[-1] = trials / n
    for i in range(n - 1, trials - 1, -1):
        weights[i - 1] = weights[i] * (i + 1 - trials) / i
    used = ordered[..., trials - 1 :]
    finite = np.where(np.isfinite(used), used, 0.0) @ weights[trials - 1 :]
    return np.where(np.isfinite(used).all(axis=-1), finite, -np.inf)


def curve(scores: Sequence[float | None], *, method: str, maximise: bool) -> list[BudgetPoint]:
    """One point for each number of trials.

    scores: by number of the trial; None for one that failed. method: trials of a random search are independent, and get
    an interval from a bootstrap over them; a grid's are what they are in any order; those of a Bayesian search build on one
    another, and the curve is the best that it had after so many.
    """
    sign = 1.0 if maximise else -1.0
    values = np.array([-math.inf if score is None else sign * score for score in scores])
    if method == "bayesian":
        running = np.maximum.accumulate(values)
        return [BudgetPoint(trials=k, best=_told(float(best), sign)) for k, best in enumerate(running, 1)]
    resamples = None
    if method == "random" and len(values) > 1:
        generator = np.random.default_rng(0)
        resamples = values[generator.integers(len(values), size=(RESAMPLES, len(values)))]
    return [_point(values, resamples, k, sign) for k in range(1, len(values) + 1)]


def by_rung(trials: Sequence[Trial], ends: Sequence[int], *, maximise: bool) -> list[BudgetPoint]:
    """The best score at each comparison of a search that stops trials, and in the end, with the epochs spent until then.

    ends: epochs of each comparison, and of a whole training. A failed training spent what its record says, or nothing.
    """
    points = []
    for rung, end in enumerate(ends):
        last = rung == len(ends) - 1
        reached = [trial for trial in trials if (_went_on(trial, ends) if last else len(trial.rungs) > rung)]
        found = [trial.score if last else trial.rungs[rung] for trial in reached]
        scores = [score for score in found if score is not None]
        spent = sum(min(end, run.epochs or 0) for trial in trials for run in trial.runs)
        best = (max if maximise else min)(scores, default=None)
        points.append(BudgetPoint(trials=len(reached), best=best, epochs=spent))
    return points


def _went_on(trial: Trial, ends: Sequence[int]) -> bool:
    """From the last comparison."""
    whole = len(trial.rungs) == len(ends) - 1 and trial.rungs[-1] is not None
    return whole and trial.stopped_after is None


def _point(values: Floats, resamples: Floats | None, trials: int, sign: float) -> BudgetPoint:
    best = _told(float(expected_best(values, trials)), sign)
    if resamples is None:
        return BudgetPoint(trials=trials, best=best)
    found = np.sort(expected_best(resamples, trials))
    tail = (1 - CONFIDENCE) / 2 * (len(found) - 1)
    ends = [
        _told(float(found[index]), sign) for index in (math.floor(tail), math.ceil(len(found) - 1 - tail))
    ]
    low, high = ends if sign > 0 else ends[::-1]
    return BudgetPoint(trials=trials, best=best, low=low, high=high)


def _told(value: float, sign: float) -> float | None:
    return sign * value if math.isfinite(value) else None
