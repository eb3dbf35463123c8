"""Bayesian estimation of the centre of differences, on a grid: no random numbers. `docs/statistics.md` derives it."""

import math
from dataclasses import dataclass

import numpy as np

from assay.comparison.statistics import Floats

LEAST_PAIRS, MOST_PAIRS = 3, 200
"""Below, a scale is hardly known; above, the grid is too coarse, and Student's interval says the same."""
MEAN_OF_NORMALITY = 30.0
"""Prior mean of the degrees of freedom; above about 30 Student's t is as good as normal (Kruschke 2013)."""
_WIDEST = 1000.0
"""Scales from 1/1000 to 1000 standard deviations of the differences are possible."""
_CENTRES, _SCALES, _FREEDOMS = 161, 91, 16
"""Points of the grid."""


@dataclass(frozen=True)
class Estimate:
    """The posterior distribution of the centre of the differences."""

    points: Floats
    """Ascending `[m]`."""
    weights: Floats
    """`[m]`: probability of each point's neighbourhood; one in all."""

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    def above(self, bound: float) -> float:
        """Probability that the centre is greater than `bound`."""
        return 1 - float(np.interp(bound, _edges(self.points), self._cumulated(), left=0, right=1))

    def quantile(self, level: float) -> float:
        return float(np.interp(level, self._cumulated(), _edges(self.points)))

    def _cumulated(self) -> Floats:
        return np.concatenate(([0.0], np.cumsum(self.weights)))


def estimate(differences: Floats) -> Estimate:
    """Posterior of the centre of n differences `[n]`, three at least and not all the same.

    Differences are Student's t about the centre (Kruschke 2013). Priors: centre uniform; logarithm of the scale uniform
    from 1/1000 to 1000 standard deviations; degrees of freedom less one exponential, mean 29. All are functions of the
    differences' own standard deviation, so that another unit changes nothing.
    """
    centre, deviation = float(differences.mean()), float(differences.std(ddof=1))
    standard = (differences - centre) / deviation
    points = _points(standard)
    log_scales = _spaced(math.log(_WIDEST), _SCALES, fine=1.0)
    squares = ((standard[:, None] - points) ** 2)[:, :, None] / np.exp(2 * log_scales)
    logs = np.stack([_log_likelihood(squares, log_scales, freedom) for freedom in _freedoms()])
    density = np.exp(logs - logs.max()).sum(axis=0) @ _widths(log_scales)
    weights = density * _widths(points)
    return Estimate(centre + deviation * points, weights / weights.sum())


def _points(standard: Floats) -> Floats:
    """Centres, dense about the mean and about values that occur more than once, to which small scales shrink."""
    steps = _spaced(_WIDEST, _CENTRES, fine=0.1)
    values, counts = np.unique(standard, return_counts=True)
    return np.unique(np.concatenate([about + steps for about in (0.0, *values[counts > 1])]))


def _spaced(end: float, count: int, *, fine: float) -> Floats:
    """From -end to end, evenly below about `fine` and in even ratios beyond."""
    result: Floats = fine * np.sinh(np.linspace(-1, 1, count) * math.asinh(end / fine))
    return result


def _edges(points: Floats) -> Floats:
    """Of each point's neighbourhood."""
    return np.concatenate((points[:1], (points[1:] + points[:-1]) / 2, points[-1:]))


def _widths(points: Floats) -> Floats:
    return np.diff(_edges(points))


def _freedoms() -> Floats:
    """Of equal prior probability: middles of the quantiles of the prior."""
    levels = (np.arange(_FREEDOMS) + 0.5) / _FREEDOMS
    freedoms: Floats = 1 - (MEAN_OF_NORMALITY - 1) * np.log1p(-levels)
    return freedoms


def _log_likelihood(squares: Floats, log_scales: Floats, freedom: float) -> Floats:
    """`[n, m, s]`, squared distances in scales, to `[m, s]`."""
    n = len(squares)
    constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom) / 2
    tails = np.zeros(squares.shape[1:])
    # Logarithms of products are cheaper than sums of logarithms; 16 factors stay below 10^200.
    for start in range(0, n, 16):
        tails += np.log(np.prod(1 + squares[start : start + 16] / freedom, axis=0))
    result: Floats = n * constant - n * log_scales - (freedom + 1) / 2 * tails
    return result
