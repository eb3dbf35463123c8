"""One step of the ramp: users whom this step moved to the candidate against those whom it left.

Users below the share of an earlier step have had the candidate before and are not compared. Given all that earlier
steps showed, who of the others is moved is random again; so each step is an experiment of its own (`docs/judge.md`).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from assay.release.judge import quantiles
from assay.release.judge.evidence import RATIO_ODDS, LabelTest
from assay.release.judge.metrics import Errors, Latency, Metric, Score
from assay.release.judge.sample import Users, key_of, packed, unpacked
from assay.release.observations import Access, Attempt, Outcome
from assay.release.schema import Judge as Settings

Has = Callable[[str, float], bool]
"""Whether the split gives a user (a digest) the candidate at a share."""

MOST_MISROUTED = 10_000
GRACE = 5.0
"""Seconds of the logs' time that a business event may be read late."""
MOST_LATENCIES = 8
"""Of one user; the first ones within their window."""
_NO_REFUSAL = {401, 403, 408, 429, 499}
"""Of the client, its rights or its haste."""
_MISROUTED = 0.01
_USUAL, _WINDOWS = 20, 5
_RATIO_LOGS = np.log(RATIO_ODDS)


@dataclass
class Window:
    """What a user met since their first request in the step."""

    key: int
    candidate: bool
    since: float
    failed: bool = False
    bins: list[int] = field(default_factory=list)
    timed: bool = False
    """Whether the latencies are counted already."""
    value: float = 0.0
    values: int = 0


def bad(attempt: Attempt) -> bool:
    """Failed, or refused a request as no good: a version may refuse what the other answers."""
    status = attempt.status
    return attempt.failed or (status is not None and 400 <= status < 500 and status not in _NO_REFUSAL)


class StepComparison:
    """share: of the step. low, high: neighbouring shares that users have had before (0 and 1 where there was none).

    level: of each metric's test in this step.
    """

    def __init__(self, settings: Settings, share: float, low: float, high: float, level: float) -> None:
        self.settings, self.share, self.low, self.high = settings, share, low, high
        self.users = Users()
        self.open: dict[str, Window] = {}
        self.ratio = LabelTest(len(RATIO_ODDS))
        self.misrouted: set[int] = set()
        """Users, up to `MOST_MISROUTED`."""
        self.first: float | None = None
        self.last: float | None = None
        self.newest: float | None = None
        """First and last request of anyone, and first one of the newest user."""
        margin = settings.error_margin
        self.errors = Errors(level, settings.level, margin)
        self.latency = Latency(level, settings.level, settings.latency) if settings.latency else None
        self.business = Score(level, settings.level, settings.business.margin) if settings.business else None
        self.changed = False
        """Whether a test has moved since it was last looked at."""

    @property
    def metrics(self) -> dict[str, Metric]:
        named = {"errors": self.errors, "latency": self.latency, "business": self.business}
        return {name: metric for name, metric in named.items() if metric is not None}

    @property
    def compares(self) -> bool:
        return self.share < 1

    @property
    def candidate_share(self) -> float:
        """Of those compared."""
        return self.users.share((self.share - self.low) / (self.high - self.low))

    def see(self, access: Access, has: Has) -> None:
        """A request that came by the split at this step's share. Requests are seen in the order of the log."""
        self.first = access.timestamp if self.first is None else self.first
        self.last = max(access.timestamp, self.last or access.timestamp)
        candidate = access.assigned == "candidate"
        key = key_of(access.user)
        if key not in self.users.seen[candidate] and not self._begin(access, key, candidate, has):
            return
        if not self.compares:
            return
        own = [attempt for attempt in access.attempts if attempt.role == access.assigned]
        if not own:
            return
        wrong = any(bad(attempt) for attempt in own)
        if wrong and key not in self.users.failed:
            self.users.failed.add(key)
            self.errors.first_error(candidate, self.candidate_share)
            self.changed = True
        window = self.open.get(access.user)
        if window is not None:
            window.failed |= wrong
            self._time(window, own[0])

    def _begin(self, access: Access, key: int, candidate: bool, has: Has) -> bool:
        """A user's first request in the step; whether they are compared."""
        if has(access.user, self.share) != candidate:
            if len(self.misrouted) < MOST_MISROUTED:
                self.misrouted.add(key)
            return False
        moved_before = self.low > 0 and has(access.user, self.low)
        if moved_before or not (self.high >= 1 or has(access.user, self.high)):
            return False
        if not self.users.sampled(key, candidate):
            return False
        self.newest = access.timestamp
        if self.users.add(key, candidate):
            self.open = {
                user: one for user, one in self.open.items() if self.users.sampled(one.key, one.candidate)
            }
            if not self.users.sampled(key, candidate):
                return False
        if self.compares:
            self.ratio.update(candidate, self.candidate_share, _RATIO_LOGS)
            self.open[access.user] = Window(key, candidate, access.timestamp)
        return True

    def value(self, outcome: Outcome) -> bool:
        """Whether a business event counts: it is of its user's window, however late it is read."""
        window = self.open.get(outcome.user)
        if window is None or not 0 <= outcome.timestamp - window.since <= self.settings.user_seconds:
            return False
        window.value += outcome.value
        window.values += 1
        return True

    def close(self, now: float) -> None:
        """Windows that are over by the log's time count."""
        lasts = self.settings.user_seconds + (GRACE if self.business else 0)
        while self.open:
            user, window = next(iter(self.open.items()))
            if window.since + lasts > now:
                return
            del self.open[user]
            self.changed = True
            share = self.candidate_share
            self.errors.margin.update(window.candidate, share, float(window.failed))
            if self.latency is not None and window.bins and not window.timed:
                self.latency.add(window.candidate, share, window.bins)
            if self.business is not None and window.values:
                self.business.add(window.candidate, share, 1 - window.value / window.values)

    def _time(self, window: Window, attempt: Attempt) -> None:
        if attempt.seconds is None or not math.isfinite(attempt.seconds) or window.timed or attempt.failed:
            return
        window.bins.append(quantiles.bin_of(attempt.seconds))
        if len(window.bins) >= MOST_LATENCIES and self.latency is not None:
            self.latency.add(window.candidate, self.candidate_share, window.bins)
            window.timed = self.changed = True

    def split_is_wrong(self, level: float) -> str | None:
        """level: of the sample-ratio check in this step."""
        stable, candidate = self.users.count(False), self.users.count(True)
        if len(self.misrouted) > _MISROUTED * (stable + candidate):
            return (
                f"split: {len(self.misrouted)} users came to the version that the split does not give them at "
                f"share {self.share:g}"
            )
        if self.ratio.log_e >= math.log(1 / level):
            split = (self.share - self.low) / (self.high - self.low)
            return (
                f"sample ratio: {candidate} of {stable + candidate} compared users have the candidate, which the "
                f"split gives to {split:.2%} of them"
            )
        return None

    def seconds(self, times: float | None) -> float | None:
        """How long until `times` as many users more were counted, at the step's traffic so far; None: not if it ended."""
        if times is None or self.first is None or self.last is None or self.nobody_new:
            return None
        counted = self.last - self.first - self.settings.user_seconds
        return times * counted if counted > 0 else None

    @property
    def nobody_new(self) -> bool:
        """Whether requests go on, and no new user has come for far longer than they used to take."""
        if self.first is None or self.last is None or self.newest is None:
            return False
        users = self.users.count(False) + self.users.count(True)
        usual = (self.newest - self.first) / max(users, 1)
        return self.last - self.newest > max(_WINDOWS * self.settings.user_seconds, _USUAL * usual)

    def evidence(self) -> dict[str, Any]:
        return {
            "share": self.share,
            "users": {"stable": self.users.count(False), "candidate": self.users.count(True)},
            "candidate_share_of_compared": self.candidate_share if self.compares else None,
            "sample_ratio": {"log_e": float(self.ratio.log_e), "misrouted": len(self.misrouted)},
            "metrics": {name: metric.evidence() for name, metric in self.metrics.items()}
            if self.compares
            else {},
        }

    def state(self) -> dict[str, Any]:
        return {
            "share": self.share,
            "low": self.low,
            "high": self.high,
            "users": self.users.state(),
            "open": {user: asdict(window) for user, window in self.open.items()},
            "ratio": self.ratio.state(),
            "misrouted": packed(self.misrouted),
            "times": [self.first, self.last, self.newest],
            "metrics": {name: metric.state() for name, metric in self.metrics.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.users.restore(state["users"])
        self.open = {user: Window(**window) for user, window in state["open"].items()}
        self.ratio.restore(state["ratio"])
        self.misrouted = unpacked(state["misrouted"])
        self.first, self.last, self.newest = state["times"]
        for name, metric in self.metrics.items():
            metric.restore(state["metrics"][name])
