"""A quantile of latency per version, with bounds that hold at every moment at once.

Each user counts one: their latencies share it. The estimand is the latency of a random request of a random user, so
that a heavy user weighs no more than another.

For the quantile q of level p the share of a random user's requests that take at most q has mean p, and lies in
[0, 1]. So the likelihood ratio of Bernoulli(t) against Bernoulli(p), at the sum of these shares, cannot be expected
to grow (it is convex in each share), and neither can its average over a grid of t. A value at which that average ever
reaches 1/level is not the quantile (Howard and Ramdas 2022; `docs/judge.md`).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from assay.release.judge.evidence import Floats, _smallest, log_mean_exp

SHORTEST = 1e-5
"""Seconds; what is faster counts as this."""
RATIO = 1.005
"""Of neighbouring bins: bounds are no wider than this for it."""
BINS = 4096
STEP = 0.0011
"""Seconds: fronts log milliseconds (a bin more), and a slowdown below that is none that can be seen."""
_HALVINGS = 40
_ABOVE = np.array([0.97, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.03])
_BELOW = np.array([1.03, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 8.0])
"""Shares of slow requests against which 1 − p is tried, in units of it."""


def bin_of(seconds: float) -> int:
    if seconds <= SHORTEST:
        return 0
    return min(BINS - 1, int(math.log(seconds / SHORTEST) / math.log(RATIO)) + 1)


def upper_edge(index: int) -> float:
    """Seconds that everything in the bin is at most (but for the last bin)."""
    return SHORTEST * RATIO**index


class Latencies:
    """Distribution over users of one version, in bins of constant ratio."""

    def __init__(self) -> None:
        self.weights: Floats = np.zeros(BINS)
        self.users = 0

    def add(self, bins: Sequence[int]) -> None:
        """One user's requests."""
        for index in bins:
            self.weights[index] += 1 / len(bins)
        self.users += 1

    def below(self) -> Floats:
        """Users' weight up to each bin's upper edge."""
        return np.cumsum(self.weights)

    def state(self) -> dict[str, Any]:
        held = np.flatnonzero(self.weights)
        return {"users": self.users, "bins": held.tolist(), "weights": self.weights[held].tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        self.weights = np.zeros(BINS)
        self.weights[state["bins"]] = state["weights"]
        self.users = state["users"]


def quantile(below: Floats, users: float, level: float) -> int:
    """Bin of the sample quantile."""
    return min(BINS - 1, int(np.searchsorted(below, level * users * (1 - 1e-12))))


def upper_bound(below: Floats, users: float, level: float, error: float) -> float | None:
    """Seconds that the quantile is below, at any time but for probability `error`; None: no such bound yet."""
    enough = _weight(users, level, error, slower=False)
    index = BINS if enough is None else int(np.searchsorted(below, enough))
    return upper_edge(index) if index < BINS - 1 else None


def lower_bound(below: Floats, users: float, level: float, error: float) -> float | None:
    """Seconds that the quantile is above, likewise."""
    little = _weight(users, level, error, slower=True)
    index = -1 if little is None else int(np.searchsorted(below, little, side="right")) - 1
    return upper_edge(index) if index >= 0 else None


def _weight(users: float, level: float, error: float, *, slower: bool) -> float | None:
    """Least weight of fast requests that shows their share to be above `level`; or (slower) most that shows it below."""
    slow = np.minimum((1 - level) * (_BELOW if slower else _ABOVE), 1 - 1e-3 * level)
    fast_gain, slow_gain = np.log((1 - slow) / level), np.log(slow / (1 - level))
    bound = math.log(1 / error)

    def shown(weight: float) -> bool:
        return float(log_mean_exp(weight * fast_gain + (users - weight) * slow_gain)) >= bound

    outer, inner = (0.0 if slower else users), level * users
    if not shown(outer):
        return None
    for _ in range(_HALVINGS):
        middle = (outer + inner) / 2
        outer, inner = (middle, inner) if shown(middle) else (outer, middle)
    return outer


def no_slower(stable: Latencies, candidate: Latencies, level: float, error: float, margin: float) -> bool:
    """Whether the candidate's quantile is certainly below (1 + margin) times the stable version's, or the logs' step above."""
    return _no_slower(stable.below(), stable.users, candidate.below(), candidate.users, level, error, margin)


def _no_slower(
    stable: Floats,
    stable_users: float,
    candidate: Floats,
    candidate_users: float,
    level: float,
    error: float,
    margin: float,
) -> bool:
    high = upper_bound(candidate, candidate_users, level, error / 2)
    low = lower_bound(stable, stable_users, level, error / 2)
    return high is not None and low is not None and high < max(low * (1 + margin), low + STEP)


def more_needed(
    stable: Latencies, candidate: Latencies, level: float, error: float, margin: float
) -> float | None:
    """How many times the users so far must still come, alike, until it is no slower."""
    below, other = stable.below(), candidate.below()

    def reached(times: float) -> bool:
        scale = 1 + times
        return _no_slower(
            below * scale, stable.users * scale, other * scale, candidate.users * scale, level, error, margin
        )

    return _smallest(reached, 1e6)
