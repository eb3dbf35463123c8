"""Repeated confidence intervals (Jennison and Turnbull 1989): intervals that hold at all looks together.

A value is in the interval at a look if the group-sequential test of that value as the true difference has not crossed its
boundary at this look or before. The test of the true value crosses at any look with chance alpha at most, so the true value
is in all the intervals with chance 1 - alpha at least, wherever the experiment stops and for whatever reason.
"""

import math

from assay.comparison.sequential import Schedule, SequentialTest
from assay.comparison.statistics import Floats

STEPS = 12
"""Halvings of the bracket; an end is told a 4,096th of it too far out at most."""


def repeated_interval(
    differences: Floats, schedule: Schedule, alpha: float, *, patterns: int | None = None
) -> tuple[float, float]:
    """Ends of the interval after the looks so far.

    differences: `[n]`, in the order in which pairs are added; n is one of the looks. patterns: as of the test.
    Returns: infinite ends where this look and those before may spend too little to exclude anything; NaN where the looks
    contradict one another so that no value is left.
    """

    def kept(value: float) -> bool:
        test = SequentialTest(differences - value, schedule, patterns=patterns)
        return not any(look.crossed for look in test.at(alpha))

    means = [math.fsum(differences[:look]) / look for look in schedule.looks if look <= differences.size]
    middle = next((mean for mean in reversed(means) if kept(mean)), None)
    if middle is None:
        return math.nan, math.nan
    low, high = float(differences.min()), float(differences.max())
    reach = high - low
    ends = []
    for far in (low - reach, high + reach):
        inside, outside = middle, far
        if kept(far):
            return -math.inf, math.inf
        for _ in range(STEPS):
            between = (inside + outside) / 2
            inside, outside = (between, outside) if kept(between) else (inside, between)
        ends.append(outside)
    return ends[0], ends[1]
