"""Timings in few numbers: medians with an interval free of assumptions on their distribution."""

import math
from collections.abc import Sequence
from statistics import median

from assay.records import Typed

PERCENTILES = (50, 90, 95, 99)
BEYOND = 10
"""Samples that must lie beyond a percentile for it to be told."""


class Summary(Typed):
    """Timings of one visit. `median`, `interval` and `percentiles` in the samples' unit."""

    count: int
    median: float
    interval: tuple[float, float] | None
    confidence: float | None
    autocorrelation: float | None = None
    """How many samples in a row say as much as one independent sample, at least 1; null: too few to tell."""
    percentiles: dict[str, float]

    @property
    def width(self) -> float | None:
        """Of the interval, relative to the median; None where there is no interval."""
        if self.interval is None or self.median <= 0:
            return None
        return (self.interval[1] - self.interval[0]) / self.median


def summarise(samples: Sequence[float], confidence: float = 0.95) -> Summary:
    """Median, its interval and the percentiles that this many samples support."""
    correlated = autocorrelation(samples)
    found = median_interval(samples, confidence, correlated or 1.0)
    return Summary(
        count=len(samples),
        median=median(samples),
        interval=None if found is None else found[:2],
        confidence=None if found is None else found[2],
        autocorrelation=correlated,
        percentiles=percentiles(samples),
    )


def median_interval(
    samples: Sequence[float], confidence: float, autocorrelation: float = 1.0
) -> tuple[float, float, float] | None:
    """(lower, upper, level): an interval of the median between two order statistics; None for too few samples.

    Between the d-th smallest and the d-th largest of n independent samples the median lies with probability
    1 - 2·P(X < d), X ~ Binomial(n, 1/2), whatever their distribution (David and Nagaraja 2003, "Order
    statistics", section 7.1). d is the largest that reaches `confidence`; `level` is what it reaches.

    Samples that follow each other are not independent: how many lie below the median varies `autocorrelation` times
    as much (Sen 1972, "On the Bahadur representation of sample quantiles for sequences of φ-mixing random variables").
    So d is that of n / autocorrelation samples, and stands for the same share of all n.
    """
    count = len(samples)
    effective = int(count / autocorrelation)
    depth, below = _depth(effective, confidence)
    if depth == 0:
        return None
    ordered = sorted(samples)
    rank = (depth - 1) * count // effective
    return ordered[rank], ordered[count - 1 - rank], 1 - 2 * below


def _depth(count: int, confidence: float) -> tuple[int, float]:
    """The largest d with 1 - 2·P(X < d) >= confidence, X ~ Binomial(count, 1/2), and P(X < d).

    More than ten standard deviations below the middle there is less than 1e-22.
    """
    below = 0.0
    for depth in range(max(0, int(count / 2 - 5 * math.sqrt(count))), count // 2):
        logarithm = math.lgamma(count + 1) - math.lgamma(depth + 1) - math.lgamma(count - depth + 1)
        share = math.exp(logarithm - count * math.log(2))
        if 2 * (below + share) > 1 - confidence:
            return depth, below
        below += share
    return count // 2, below


def autocorrelation(samples: Sequence[float]) -> float | None:
    """The integrated autocorrelation time of "lies below the median", at least 1; None for fewer than four samples.

    1 + 2·Σ ρ(k), summed over pairs of lags (2m, 2m + 1) while the pair is positive: Geyer's (1992, "Practical Markov
    chain Monte Carlo", section 3.3) initial positive sequence. It is that of the indicator and not of the values,
    because the interval of a median counts how many samples lie on either side; and a single outlier is no matter.
    """
    count = len(samples)
    if count < 4:
        return None
    import numpy as np

    values = np.asarray(samples, dtype=np.float64)
    middle = np.median(values)
    side = np.sign(values - middle)
    side -= side.mean()
    length = 1 << (2 * count - 1).bit_length()
    transformed = np.fft.rfft(side, length)
    covariance = np.fft.irfft(np.abs(transformed) ** 2, length)[:count]
    if covariance[0] <= 1e-9 * count:  # all alike
        return 1.0
    pairs = (covariance[0 : count - 1 : 2] + covariance[1:count:2]) / covariance[0]
    ends = np.flatnonzero(pairs <= 0)
    positive = pairs[: ends[0]] if len(ends) else pairs
    return max(1.0, 2 * float(positive.sum()) - 1)


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """Percentiles ("p50", …) with at least `BEYOND` samples beyond them; the median always.

    Linear between order statistics (Hyndman and Fan 1996, definition 7).
    """
    ordered = sorted(samples)
    told = [p for p in PERCENTILES if p == 50 or len(ordered) * (100 - p) >= 100 * BEYOND]
    return {f"p{p}": _quantile(ordered, p / 100) for p in told}


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    lower = int(place)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (place - lower) * (ordered[upper] - ordered[lower])
