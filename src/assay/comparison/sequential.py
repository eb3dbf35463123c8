"""Looks at a growing number of pairs with the error rate held: a group-sequential sign-flip test.

Sign patterns of a later look extend those of an earlier one. So all patterns of the pairs at hand, each followed through
the looks, are the joint distribution of the looks' statistics under no difference, given the sizes of the differences.
Each look's boundary lies where the share of patterns that have crossed at this look or before is at most what a spending
function allows (Lan and DeMets 1983). `docs/statistics.md` derives it; the looks are declared beforehand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from assay.comparison.statistics import Floats
from assay.config.looks import Spending, spent
from assay.config.schema import Comparison

ENUMERATED = 16
"""Up to this many pairs at the last look all sign patterns are followed; beyond, they are drawn."""
PATTERNS = 9_999
_TIE = 1e-9
_SEED = 20_251_122
_JUST_BELOW = 1 - 1e-9
_LEVELS_PER_DECADE = 24
_SMALLEST = 1e-4

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Schedule:
    """Numbers of pairs at which it is looked, ascending; the last is the whole experiment."""

    looks: tuple[int, ...]
    spending: Spending

    @classmethod
    def of(cls, comparison: Comparison) -> "Schedule | None":
        """None where it is looked once."""
        return None if comparison.looks is None else cls(tuple(comparison.looks), comparison.spending)

    def spent(self, pairs: int, alpha: float) -> float:
        """Share of the level that may be used up to a look; all of it at the last one."""
        return spent(self.spending, pairs / self.looks[-1], alpha)


@dataclass(frozen=True)
class LookResult:
    """One look at one hypothesis at one level."""

    pairs: int
    spent: float
    """Share of the error rate that may be used up to here."""
    p: float
    """Of this look alone, as if it were the only one."""
    boundary: float | None
    """Largest p of this look that crosses; null: none can."""
    crossed: bool


class SequentialTest:
    """The looks so far of one hypothesis.

    differences: of all pairs at hand `[n]`, in the order in which pairs are added. n is one of the looks.
    two_sided: whether large sums of either sign speak against the hypothesis, or positive ones alone.
    patterns: so many random sign patterns in any case, for simulations.
    """

    def __init__(
        self,
        differences: Floats,
        schedule: Schedule,
        *,
        two_sided: bool = True,
        patterns: int | None = None,
    ) -> None:
        n = differences.size
        assert n in schedule.looks
        self._schedule = schedule
        self._looks = [look for look in schedule.looks if look <= n]
        enumerated = patterns is None and schedule.looks[-1] <= ENUMERATED
        signs = _all_patterns(n, two_sided=two_sided) if enumerated else _drawn(n, patterns or PATTERNS)
        self._statistics = [_rounded(differences[:look], signs[:, :look], two_sided) for look in self._looks]
        sums = [math.fsum(differences[:look]) for look in self._looks]
        self._same_way = [not two_sided or total * sums[-1] > 0 for total in sums]
        """A crossing counts while the mean still has its direction: fewer claims, never more."""
        self._orders = [np.argsort(-values, kind="stable") for values in self._statistics]

    def at(self, alpha: float) -> list[LookResult]:
        """Each look so far at a level. Pattern 0 is the one observed."""
        return [
            self._result(number, alpha, boundary) for number, boundary in enumerate(self._boundaries(alpha))
        ]

    def p(self, alphas: Sequence[float]) -> float:
        """Sequential p: the smallest of the levels at which a look so far has crossed, and does at all above it; else 1.

        P(p <= level at any look) <= level for each of the levels under no difference.
        """
        found = 1.0
        outer: list[float] = [-math.inf] * len(self._looks)
        for alpha in sorted(alphas, reverse=True):
            # Nested: what crosses at a level crosses at every larger one, whatever the steps of a discrete test.
            outer = self._boundaries(alpha, at_least=outer)
            crossed = [values[0] >= bound for values, bound in zip(self._statistics, outer, strict=True)]
            if not any(hit and same for hit, same in zip(crossed, self._same_way, strict=True)):
                break
            found = alpha
        return found

    def _boundaries(self, alpha: float, at_least: Sequence[float] | None = None) -> list[float]:
        """Per look the smallest statistic that crosses; infinite where none can."""
        gone: Bools = np.zeros(self._statistics[0].size, dtype=bool)
        found = []
        for number, (values, order) in enumerate(zip(self._statistics, self._orders, strict=True)):
            allowed = self._schedule.spent(self._looks[number], alpha) * values.size * (1 + 1e-12)
            room = allowed - gone.sum()
            fresh = np.cumsum(~gone[order])
            ordered = values[order]
            # The boundary may not fall among ties: all patterns with equal statistics cross or none.
            ends = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True))
            fitting = ends[fresh[ends] <= room]
            bound = float(ordered[fitting[-1]]) if fitting.size else math.inf
            bound = max(bound, -math.inf if at_least is None else at_least[number])
            gone |= values >= bound
            found.append(bound)
        return found

    def _result(self, number: int, alpha: float, boundary: float) -> LookResult:
        values = self._statistics[number]
        crossing = float((values >= boundary).mean())
        return LookResult(
            pairs=self._looks[number],
            spent=self._schedule.spent(self._looks[number], alpha),
            p=float((values >= values[0]).mean()),
            boundary=crossing or None,
            crossed=bool(values[0] >= boundary),
        )


def levels(alpha: float, arms: int, claims: int) -> list[float]:
    """Levels at which a sequential p is told: those that decide in the families of a comparison, and some between.

    A hair below each, so that p times the number of arms is not above alpha by rounding.
    """
    steps = round(-math.log10(_SMALLEST) * _LEVELS_PER_DECADE)
    between = [10 ** (-step / _LEVELS_PER_DECADE) for step in range(1, steps + 1)]
    deciding = [alpha / share * _JUST_BELOW for share in range(1, max(arms, claims) + 1)]
    return sorted({*between, *deciding})


def _rounded(differences: Floats, signs: Floats, two_sided: bool) -> Floats:
    """The statistic of each pattern, the same for sums that differ by rounding alone."""
    sums = signs @ differences
    values = np.abs(sums) if two_sided else sums
    size = np.abs(differences).sum()
    result: Floats = np.round(values / (size * _TIE)) if size > 0 else np.zeros_like(values)
    return result


@lru_cache(maxsize=2)
def _all_patterns(n: int, *, two_sided: bool) -> Floats:
    """Sign patterns `[patterns, n]`, the first without a flip. Two-sided, a pattern and its opposite are one."""
    free = np.arange(n) - two_sided
    bits = np.where(free >= 0, np.arange(2 ** (n - two_sided))[:, None] >> np.maximum(free, 0), 0) & 1
    return (1 - 2 * bits).astype(np.float64)


@lru_cache(maxsize=2)
def _drawn(n: int, patterns: int) -> Floats:
    """Random ones after the first, column by column, so that those of fewer pairs are their beginnings."""
    signs = np.ones((patterns + 1, n))
    for pair in range(n):
        signs[1:, pair] = np.random.default_rng([_SEED, pair]).integers(0, 2, patterns) * 2 - 1
    return signs
