"""Evidence that may be looked at as often as one likes: two kinds of e-process.

Both bet on one user after another, start from one unit of wealth, and cannot be expected to gain if their hypothesis is
true; so the wealth ever reaches 1/level with at most that probability (Ville's inequality). `docs/judge.md` derives them.
The last axis of every array is the grid of bets, whose wealths are averaged; axes before it, where a simulation has
them, are independent releases.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ODDS = np.array([1.25, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0, 64.0])
"""How many times as likely an event may be with the candidate; one bet each."""
RATIO_ODDS = np.array([0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 1.4, 2.0, 5.0])
"""Of the sample-ratio check, to both sides."""
TILTS = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
"""Log odds per standard deviation of an outcome."""
FRACTIONS = np.array([0.95, 0.5, 0.25, 0.12, 0.06, 0.03, 0.015])
"""Bets against a margin, in units of the largest one that cannot lose everything."""
WARM_UP = 20
"""Users that are seen before anything is bet on standardised outcomes."""
_LARGEST_SCORE = 5.0
_SMALLEST_DEVIATION = 1e-6


def log_mean_exp(values: Floats) -> Floats:
    """Logarithm of the mean of exp over the last axis."""
    if values.ndim == 1:
        # Three times as fast for one release.
        return np.asarray(np.logaddexp.reduce(values) - math.log(len(values)))
    largest = values.max(axis=-1, keepdims=True)
    return np.asarray(largest[..., 0] + np.log(np.exp(values - largest).mean(axis=-1)))


class LabelTest:
    """Whether the candidate's label comes with an outcome more often than the split gives.

    Given the outcome, the label of a user is the candidate's with probability `share` if versions are identical. A bet
    with odds r pays (r if candidate else 1) / (1 + share·(r − 1)), whose expectation is 1.
    """

    def __init__(self, bets: int, shape: tuple[int, ...] = ()) -> None:
        self.log_wealth: Floats = np.zeros((*shape, bets))
        self.events = 0

    def update(self, candidate: Any, share: float, log_odds: Floats) -> None:
        """candidate: label(s), shape of the releases; log_odds: `[…, bets]`, 0 for no bet."""
        label = np.asarray(candidate, dtype=bool)[..., None]
        self.log_wealth += np.where(label, log_odds, 0.0) - np.log1p(share * np.expm1(log_odds))
        self.events += 1

    @property
    def log_e(self) -> Floats:
        return log_mean_exp(self.log_wealth)

    def state(self) -> dict[str, Any]:
        return {"log_wealth": self.log_wealth.tolist(), "events": self.events}

    def restore(self, state: dict[str, Any]) -> None:
        self.log_wealth = np.array(state["log_wealth"], dtype=np.float64)
        self.events = state["events"]


class ScoreTest(LabelTest):
    """The same for an outcome in [0, 1] per user, larger is worse: odds of exp(tilt · standardised outcome).

    Mean and deviation are those of all users before, of either version, so that the bet is made before the outcome is
    seen.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__(len(TILTS), shape)
        self.sum: Floats = np.zeros(shape)
        self.squares: Floats = np.zeros(shape)

    def score(self, candidate: Any, share: float, outcome: Any) -> None:
        outcome = np.asarray(outcome, dtype=np.float64)
        if self.events >= WARM_UP:
            mean = self.sum / self.events
            deviation = np.sqrt(np.maximum(self.squares / self.events - mean**2, 0.0))
            score = np.where(
                deviation > _SMALLEST_DEVIATION,
                (outcome - mean) / np.maximum(deviation, _SMALLEST_DEVIATION),
                0.0,
            )
            self.update(candidate, share, np.clip(score, -_LARGEST_SCORE, _LARGEST_SCORE)[..., None] * TILTS)
        else:
            self.events += 1
        self.sum = self.sum + outcome
        self.squares = self.squares + outcome**2

    def state(self) -> dict[str, Any]:
        return {**super().state(), "sum": self.sum.tolist(), "squares": self.squares.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.sum = np.array(state["sum"], dtype=np.float64)
        self.squares = np.array(state["squares"], dtype=np.float64)


class MarginTest:
    """Whether the candidate's mean of an outcome in [0, 1] is less than a margin above the stable version's.

    A user's score (y − c)(candidate/share − stable/(1 − share)), c chosen before, has the difference of means as its
    expectation. Wealth is multiplied by 1 + bet·(margin − score), never negative, and cannot be expected to grow where
    the difference is the margin or more (testing by betting, Waudby-Smith and Ramdas 2024).

    margins: hypotheses `[m]`, ascending; the bets on each are the last axis.
    """

    def __init__(self, margins: Floats, shape: tuple[int, ...] = ()) -> None:
        assert margins.ndim == 1 and (margins < 1).all()
        self.margins = margins
        self.log_wealth: Floats = np.zeros((*shape, len(margins), len(FRACTIONS)))
        self.users = 0
        self.sum: Floats = np.zeros(shape)
        self.by_label: Floats = np.zeros((*shape, 2, 2))
        """Number of users and sum of outcomes of the stable version and of the candidate: `[…, version, 2]`."""

    def update(self, candidate: Any, share: float, outcome: Any) -> None:
        label = np.asarray(candidate, dtype=bool)
        outcome = np.asarray(outcome, dtype=np.float64)
        centre = (self.sum + 0.5) / (self.users + 1)
        score = (outcome - centre) * np.where(label, 1 / share, -1 / (1 - share))
        largest = np.maximum((1 - centre) / share, centre / (1 - share))[..., None]
        per_margin = (self.margins - score[..., None]) / (largest - self.margins)
        self.log_wealth += np.log1p(FRACTIONS * per_margin[..., None])
        self.users += 1
        self.sum = self.sum + outcome
        for version, counts in enumerate((~label, label)):
            self.by_label[..., version, 0] += counts
            self.by_label[..., version, 1] += counts * outcome

    def log_e(self) -> Floats:
        """Against each margin: `[…, m]`."""
        return log_mean_exp(self.log_wealth)

    def means(self) -> tuple[float | None, float | None]:
        """Of the stable version and of the candidate (one release); null without users."""
        stable, candidate = (
            float(total / count) if count else None for count, total in self.by_label.tolist()
        )
        return stable, candidate

    def below(self, level: float) -> float | None:
        """Smallest margin that the difference is shown to be below, of those asked; null: none (one release)."""
        shown = self.log_e() >= math.log(1 / level)
        return float(self.margins[shown].min()) if shown.any() else None

    def state(self) -> dict[str, Any]:
        return {
            "log_wealth": self.log_wealth.tolist(),
            "users": self.users,
            "sum": self.sum.tolist(),
            "by_label": self.by_label.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.log_wealth = np.array(state["log_wealth"], dtype=np.float64)
        self.users = state["users"]
        self.sum = np.array(state["sum"], dtype=np.float64)
        self.by_label = np.array(state["by_label"], dtype=np.float64)


def more_needed(log_wealth: Floats, level: float, most: float = 1e6) -> float | None:
    """How many times the users so far must still come, if every bet goes on as it did on average.

    log_wealth: of the bets `[bets]`. 0 where the level is reached; None where it never is, or beyond `most`.
    """
    target = math.log(1 / level)

    def reached(times: float) -> bool:
        return float(log_mean_exp(log_wealth * (1 + times))) >= target

    return _smallest(reached, most)


def _smallest(reached: Any, most: float) -> float | None:
    """Smallest number up to `most` at which a growing condition holds, to a hundredth."""
    if reached(0.0):
        return 0.0
    if not reached(most):
        return None
    low, high = 0.0, most
    while high - low > 0.01 * max(high, 0.01):
        middle = math.sqrt(max(low, 1e-4) * high) if high > 1e-3 else (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
