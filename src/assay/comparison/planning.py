"""How many pairs a verdict takes: power of the very tests that decide it, by simulation. `docs/planning.md` derives it.

Differences are taken to be normal. Power depends on mean and margin in units of the standard deviation alone, on the
number of pairs and on the level.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from assay.comparison import statistics
from assay.comparison.statistics import Floats

Goal = Literal["difference", "equivalence"]

REPETITIONS = 2000
"""Data sets per number of pairs: a power of 80% is known to 0.9 percentage points (one standard error)."""
MOST_SIMULATED = 300
"""Pairs up to which power is simulated; beyond, the normal approximation differs by less than the simulation's error."""
ASSURANCE = 0.8
"""How sure the conservative number is not to fall short of the power because the pilot's deviation was too small."""
_ENUMERATED = 12
_PATTERNS = 1999
_RESAMPLES = 1000
_SEED = 20_251_121
_ROWS = 8


@dataclass(frozen=True)
class Case:
    """What is to be shown, on the scale of the differences.

    mean, deviation: of the differences between pairs, as supposed. alpha: the level of the test.
    margin: what equivalence is shown against.
    """

    goal: Goal
    mean: float
    deviation: float
    alpha: float
    margin: float | None = None

    @property
    def least(self) -> int:
        """Pairs with which the exact test can show anything."""
        sides = 2 if self.goal == "difference" else 1
        return max(3, statistics.pairs_for_any_verdict(self.alpha, sides=sides))

    def with_deviation(self, deviation: float) -> "Case":
        return replace(self, deviation=deviation)


def deviation_bound(deviation: float, pairs: int, *, assurance: float = ASSURANCE) -> float:
    """Upper confidence bound of a standard deviation that `pairs` normal differences gave.

    s sqrt(f / chi2_{1 - assurance, f}), f = pairs - 1. Planning with it reaches the wanted power in at least the share
    `assurance` of pilots (Browne 1995).
    """
    from scipy.special import chdtri

    freedom = pairs - 1
    assert freedom > 0
    return deviation * math.sqrt(freedom / float(chdtri(freedom, assurance)))


@lru_cache(maxsize=256)
def power(case: Case, pairs: int, *, repetitions: int = REPETITIONS) -> float:
    """Share of simulated experiments of `pairs` pairs that show what `case` says, with Assay's own tests.

    A difference: the sign-flip test is significant at the level and the BCa interval excludes zero on the side of the mean.
    Equivalence: both one-sided sign-flip tests are. Up to 12 pairs over all sign patterns, beyond over 1,999 random
    ones; the interval from 1,000 resamples.
    """
    if pairs < case.least:
        return 0.0
    if pairs > MOST_SIMULATED:
        return _approximate(case, pairs)
    differences = case.mean + case.deviation * _draws(pairs, repetitions)
    if case.goal == "equivalence":
        assert case.margin is not None
        below = _less(differences - case.margin) <= case.alpha
        return float((below & (_less(-differences - case.margin) <= case.alpha)).mean())
    towards = differences if case.mean >= 0 else -differences
    found = _two_sided(towards) <= case.alpha
    low, _ = statistics.bca_interval(towards[found], confidence=1 - case.alpha, resamples=_RESAMPLES)
    return float((low > 0).sum() / repetitions)


@lru_cache(maxsize=4)
def _draws(pairs: int, repetitions: int) -> Floats:
    return np.random.default_rng([_SEED, pairs]).normal(size=(repetitions, pairs))


def _two_sided(differences: Floats) -> Floats:
    if differences.shape[-1] <= _ENUMERATED:
        return statistics.sign_flip_p(differences)
    sums = np.abs(differences @ _signs(differences.shape[-1]))
    return _share(sums >= np.abs(differences.sum(axis=-1, keepdims=True)))


def _less(differences: Floats) -> Floats:
    if differences.shape[-1] <= _ENUMERATED:
        return statistics.sign_flip_p_less(differences)
    return _share(differences @ _signs(differences.shape[-1]) <= differences.sum(axis=-1, keepdims=True))


def _share(extreme: np.ndarray) -> Floats:
    result: Floats = (extreme.sum(axis=-1) + 1) / (_PATTERNS + 1)
    return result


@lru_cache(maxsize=4)
def _signs(pairs: int) -> Floats:
    drawn = np.random.default_rng([_SEED, 1, pairs]).integers(0, 2, (pairs, _PATTERNS), dtype=np.int8)
    return drawn.astype(np.float64) * 2 - 1


def _approximate(case: Case, pairs: int) -> float:
    """Normal approximation, for many pairs."""
    from scipy.special import ndtr, ndtri

    scale = math.sqrt(pairs) / case.deviation
    if case.goal == "difference":
        return float(ndtr(abs(case.mean) * scale - ndtri(1 - case.alpha / 2)))
    assert case.margin is not None
    z = ndtri(1 - case.alpha)
    both = ndtr((case.margin - case.mean) * scale - z) + ndtr((case.margin + case.mean) * scale - z) - 1
    return max(0.0, float(both))


def pairs_needed(case: Case, wanted: float) -> int | None:
    """Fewest pairs with at least this power; None: not within a million, or not at all.

    The normal approximation tells where to look, the simulation decides.
    """
    if case.deviation == 0:
        shown = case.mean != 0 if case.goal == "difference" else abs(case.mean) < (case.margin or 0)
        return case.least if shown else None
    if case.goal == "difference":
        guess = statistics.pairs_for_difference(case.mean, case.deviation, alpha=case.alpha, power=wanted)
    else:
        assert case.margin is not None
        guess = statistics.pairs_for_equivalence(
            case.mean, case.deviation, case.margin, alpha=case.alpha, power=wanted
        )
    if guess is None or guess > MOST_SIMULATED:
        return guess
    pairs = max(guess, case.least)
    if power(case, pairs) >= wanted:
        while pairs > case.least and power(case, pairs - 1) >= wanted:
            pairs -= 1
        return pairs
    while power(case, pairs) < wanted:
        pairs += 1
    return pairs


def steps(numbers: Iterable[int | None], least: int) -> list[int]:
    """Numbers of pairs that a table of power shows: these, the least that can show anything, and some between."""
    named = {number for number in numbers if number is not None and number >= 2} | {least}
    top, found = max(named) * 1.5, float(least)
    factor = max(1.3, (top / least) ** (1 / _ROWS))
    while found < top:
        named.add(round(found))
        found = max(found + 1, found * factor)
    return sorted(named)
