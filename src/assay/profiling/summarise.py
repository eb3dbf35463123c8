"""Timings in few numbers: medians with an interval free of assumptions on their distribution."""

from collections.abc import Sequence
from statistics import median

from assay.records import Typed

PERCENTILES = (50, 90, 95, 99)
BEYOND = 10
"""Samples that must lie beyond a percentile for it to be told."""


class Summary(Typed):
    """Timings of one visit. All but `count` in the samples' unit."""

    count: int
    median: float
    interval: tuple[float, float] | None
    confidence: float | None
    percentiles: dict[str, float]


def summarise(samples: Sequence[float], confidence: float = 0.95) -> Summary:
    """Median, its interval and the percentiles that this many samples support."""
    found = median_interval(samples, confidence)
    return Summary(
        count=len(samples),
        median=median(samples),
        interval=None if found is None else found[:2],
        confidence=None if found is None else found[2],
        percentiles=percentiles(samples),
    )


def median_interval(samples: Sequence[float], confidence: float) -> tuple[float, float, float] | None:
    """(lower, upper, level): an interval of the median between two order statistics; None for too few samples.

    Between the d-th smallest and the d-th largest of n independent samples the median lies with probability
    1 - 2·P(X < d), X ~ Binomial(n, 1/2), whatever their distribution (David and Nagaraja 2003, "Order
    statistics", section 7.1). d is the largest that reaches `confidence`; `level` is what it reaches. Timings
    that follow each other are not quite independent: the interval speaks of this visit, not of the next one.
    """
    count = len(samples)
    whole = 1 << count
    allowed = int((1 - confidence) * 2**53) * whole >> 54
    depth, ways, below = 0, 1, 0
    while depth < count // 2 and below + ways <= allowed:
        below += ways
        ways = ways * (count - depth) // (depth + 1)
        depth += 1
    if depth == 0:
        return None
    ordered = sorted(samples)
    return ordered[depth - 1], ordered[count - depth], 1 - 2 * below / whole


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
