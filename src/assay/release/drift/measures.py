"""Distances of two distributions, and what such a distance is worth by chance."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from assay.release.bundle.reference import Feature

Floats = NDArray[np.float64]

_HALF = 0.5
_LEAST_EXPECTED = 5.0


def psi(counts: Floats, expected: Floats) -> float:
    """Population stability index of two histograms over the same bins; half a sample is added to every bin.

    Σ (p − q)·ln(p / q): Kullback and Leibler's divergence in both directions.
    """
    p, q = (one + _HALF for one in (counts, expected))
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


def counted(values: Floats, feature: Feature) -> tuple[Floats, Floats]:
    """Values, and those of the reference, in its bins.

    Where nearly all of the reference is its least value there are no deciles: below it, at it, and above.
    """
    edges, expected = feature.edges, np.array(feature.counts, dtype=np.float64)
    if not edges:
        least = feature.quantiles[0]
        edges = [least, float(np.nextafter(least, np.inf))]
        equal = float(np.mean(np.array(feature.quantiles) == least))
        expected = expected.sum() * np.array([0.0, equal, 1 - equal])
    places = np.searchsorted(np.array(edges), values, side="right")
    return np.bincount(places, minlength=len(expected)).astype(np.float64), expected


def ks_binned(counts: Floats, expected: Floats) -> tuple[float, float]:
    """Kolmogorov and Smirnov's distance between bins, where both distributions are known exactly, and its p.

    The distance over all values is at least as large, so p is too large if anything, ties or not.
    """
    n, m = counts.sum(), expected.sum()
    distance = float(np.abs(np.cumsum(counts) / n - np.cumsum(expected) / m).max())
    return distance, float(stats.kstwobign.sf(distance * np.sqrt(n * m / (n + m))))


def wasserstein(values: Floats, feature: Feature) -> float | None:
    """Mean distance that the reference's values would have to move, in its standard deviations; None: it has none."""
    if feature.std == 0:
        return None
    return float(stats.wasserstein_distance(values, feature.quantiles)) / feature.std


def ks(one: Floats, other: Floats) -> tuple[float, float]:
    """Distance of two samples and its p."""
    found = stats.ks_2samp(one, other, method="asymp")
    return float(found.statistic), float(found.pvalue)


def deciles(values: Floats) -> Floats:
    """Edges of ten bins, equal ones taken together."""
    return np.unique(np.quantile(values, np.arange(1, 10) / 10))


def classes(one: Sequence[int], other: Sequence[int]) -> tuple[float, float]:
    """PSI of predicted classes and p of the chi-squared test that both are alike, rare classes taken together."""
    size = 1 + max(max(one), max(other))
    table = np.array([np.bincount(side, minlength=size) for side in (one, other)], dtype=np.float64)
    distance = psi(table[0], table[1])
    expected = table.sum(0) * table.sum(1).min() / table.sum()
    rare = expected < _LEAST_EXPECTED
    merged = np.column_stack([table[:, ~rare], table[:, rare].sum(1)])
    merged = merged[:, merged.sum(0) > 0]
    if merged.shape[1] < 2:
        return distance, 1.0
    return distance, float(stats.chi2_contingency(merged, correction=False).pvalue)
