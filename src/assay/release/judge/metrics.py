"""What is compared between the users of a step: errors, a quantile of latency, a business value.

Each metric has a test of "no difference" that turns back, and one of "worse by the margin or more" that must be
rejected before the share grows.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from assay.release.judge import quantiles
from assay.release.judge.evidence import ODDS, LabelTest, MarginTest, ScoreTest, more_needed
from assay.release.judge.quantiles import Latencies
from assay.release.schema import LatencyTest

_MARGINS = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
"""Differences that are asked about, in units of the margin."""
_ASKED = 2
_ODDS_LOGS = np.log(ODDS)
_THRESHOLD_EVERY = 32
_LEAST_USERS = 5
"""Of either version, before anything is said about how long it takes."""


class Metric(Protocol):
    test: LabelTest
    level: float

    @property
    def harmless(self) -> bool:
        """Whether it is shown, at this moment, that the candidate is not worse by the margin or more."""
        ...

    def more_needed(self) -> float | None:
        """How many times the users so far must still come until it is harmless; None: cannot be said."""
        ...

    def evidence(self) -> dict[str, Any]: ...

    def reason(self) -> str:
        """What speaks against the candidate, for people."""
        ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


def worse(metric: Metric) -> bool:
    """Whether "no difference" is rejected at the metric's level, and not within what is declared harmless."""
    return bool(metric.test.log_e >= math.log(1 / metric.level)) and not metric.harmless


class Score:
    """A harm in [0, 1] per user.

    level: of the test of no difference. confidence_error: of the test against the margin.
    """

    def __init__(self, level: float, confidence_error: float, margin: float) -> None:
        self.level, self.confidence_error = level, confidence_error
        asked = margin * _MARGINS
        self.margin = MarginTest(asked[asked < 1])
        self.test: LabelTest = ScoreTest()

    def add(self, candidate: bool, share: float, harm: float) -> None:
        assert isinstance(self.test, ScoreTest)
        self.test.score(candidate, share, harm)
        self.margin.update(candidate, share, harm)

    @property
    def harmless(self) -> bool:
        return float(self.margin.log_e()[_ASKED]) >= math.log(1 / self.confidence_error)

    def more_needed(self) -> float | None:
        if self.harmless:
            return 0.0
        if min(self.margin.by_label[:, 0]) < _LEAST_USERS:
            return None
        return more_needed(self.margin.log_wealth[_ASKED], self.confidence_error)

    def evidence(self) -> dict[str, Any]:
        stable, candidate = self.margin.means()
        return {
            "stable": stable,
            "candidate": candidate,
            "users": [int(count) for count in self.margin.by_label[:, 0]],
            "difference_below": self.margin.below(self.confidence_error),
            **_tested(self),
        }

    def reason(self) -> str:
        stable, candidate = ("none" if harm is None else f"{1 - harm:.3g}" for harm in self.margin.means())
        return f"mean value {candidate} with the candidate, {stable} with the stable version"

    def state(self) -> dict[str, Any]:
        return {"test": self.test.state(), "margin": self.margin.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.test.restore(state["test"])
        self.margin.restore(state["margin"])


class Errors(Score):
    """Users with an error. No difference is tested at each user's first one, when it happens, and never again."""

    def __init__(self, level: float, confidence_error: float, margin: float) -> None:
        super().__init__(level, confidence_error, margin)
        self.test = LabelTest(len(ODDS))
        self.first_errors = [0, 0]
        """Users of the stable version and of the candidate who have had an error in the step."""

    def first_error(self, candidate: bool, share: float) -> None:
        self.first_errors[candidate] += 1
        self.test.update(candidate, share, _ODDS_LOGS)

    def evidence(self) -> dict[str, Any]:
        return {**super().evidence(), "users_with_an_error": list(self.first_errors)}

    def reason(self) -> str:
        stable, candidate = self.first_errors
        return f"{candidate} users of the candidate with an error, {stable} of the stable version"

    def state(self) -> dict[str, Any]:
        return {**super().state(), "first_errors": list(self.first_errors)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.first_errors = list(state["first_errors"])


class Latency:
    """A quantile over random requests of random users."""

    def __init__(self, level: float, confidence_error: float, settings: LatencyTest) -> None:
        self.level, self.confidence_error, self.settings = level, confidence_error, settings
        self.versions = (Latencies(), Latencies())
        self.test: LabelTest = ScoreTest()
        self.threshold: int | None = None
        """Bin of the quantile of all users, of either version, that were counted before."""

    def add(self, candidate: bool, share: float, bins: Sequence[int]) -> None:
        """One user's latencies: the share of them above the threshold is the outcome that is tested."""
        assert isinstance(self.test, ScoreTest)
        if self.threshold is not None:
            slow = sum(index > self.threshold for index in bins) / len(bins)
            self.test.score(candidate, share, slow)
        self.versions[candidate].add(bins)
        users = sum(one.users for one in self.versions)
        if users % _THRESHOLD_EVERY == 0:
            below = self.versions[0].below() + self.versions[1].below()
            self.threshold = quantiles.quantile(below, users, self.settings.quantile)

    @property
    def harmless(self) -> bool:
        stable, candidate = self.versions
        asked = self.settings
        return quantiles.no_slower(stable, candidate, asked.quantile, self.confidence_error, asked.margin)

    def more_needed(self) -> float | None:
        stable, candidate = self.versions
        if min(stable.users, candidate.users) < _LEAST_USERS:
            return None
        return quantiles.more_needed(
            stable, candidate, self.settings.quantile, self.confidence_error, self.settings.margin
        )

    def evidence(self) -> dict[str, Any]:
        stable, candidate = (self._quantile(one) for one in self.versions)
        level, error = self.settings.quantile, self.confidence_error / 2
        return {
            "stable": stable,
            "candidate": candidate,
            "users": [one.users for one in self.versions],
            "stable_above": quantiles.lower_bound(
                self.versions[0].below(), self.versions[0].users, level, error
            ),
            "candidate_below": quantiles.upper_bound(
                self.versions[1].below(), self.versions[1].users, level, error
            ),
            **_tested(self),
        }

    def reason(self) -> str:
        stable, candidate = (self._quantile(one) for one in self.versions)
        return (
            f"{self.settings.quantile:.0%} of requests within {candidate:.3g} s with the candidate, "
            f"{stable:.3g} s with the stable version"
        )

    def _quantile(self, version: Latencies) -> float | None:
        if not version.users:
            return None
        return quantiles.upper_edge(
            quantiles.quantile(version.below(), version.users, self.settings.quantile)
        )

    def state(self) -> dict[str, Any]:
        return {
            "test": self.test.state(),
            "versions": [one.state() for one in self.versions],
            "threshold": self.threshold,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.test.restore(state["test"])
        for version, kept in zip(self.versions, state["versions"], strict=True):
            version.restore(kept)
        self.threshold = state["threshold"]


def _tested(metric: Metric) -> dict[str, Any]:
    return {
        "log_e": float(metric.test.log_e),
        "log_e_to_roll_back": math.log(1 / metric.level),
        "harmless": metric.harmless,
    }
