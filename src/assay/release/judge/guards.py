"""Hard limits of the candidate, looked at with every line and every second; a burst of errors must also be no chance."""

import math
from collections import deque
from typing import Any

import numpy as np

from assay.release.judge.evidence import Floats, log_mean_exp
from assay.release.observations import Access
from assay.release.schema import Guards as Settings

MOST_ATTEMPTS = 20_000
"""Attempts of the window that are kept; beyond, the oldest go first."""
_USERS = 2
"""One user's requests may fail with any version: a burst is of at least so many users."""
_MOST_BY_CHANCE = 0.25
"""Of a request that identical versions fail alike with probability f, one fails it and the other does not with f·(1 − f)."""
_OWN = np.array([0.4, 0.6, 0.8, 0.95])
"""Shares of requests that the candidate alone fails: one bet each."""
_ODDS = np.array([2.0, 4.0, 16.0])
"""How many times as likely a failure may be a copy's as an original's."""
_GIVEN_UP = -3.0
"""Logarithm of the wealth at which a bet is over."""


class Bet:
    """Whether failures are the candidate's own. It begins after one of these and ends when too little of its wealth is left.

    against, for_it: logarithms of what an event that speaks against the candidate, or for it, pays `[bets]`; of identical
    versions the wealth cannot be expected to grow, and the k-th beginning has level/(k(k + 1)). `docs/judge.md` derives it.
    """

    def __init__(self, level: float, against: Floats, for_it: Floats) -> None:
        self.level, self.against, self.for_it = level, against, for_it
        self.begun = 0
        self.log_wealth: Floats | None = None
        """Of each bet; None: nothing is bet on."""

    def add(self, own: bool) -> None:
        """own: whether this event speaks against the candidate."""
        if self.log_wealth is not None:
            self.log_wealth = self.log_wealth + (self.against if own else self.for_it)
            if log_mean_exp(self.log_wealth) < _GIVEN_UP:
                self.log_wealth = None
        elif own:
            self.begun += 1
            self.log_wealth = np.zeros(len(self.against))

    @property
    def certain(self) -> bool:
        if self.log_wealth is None:
            return False
        bound = math.log(self.begun * (self.begun + 1) / self.level)
        return float(log_mean_exp(self.log_wealth)) >= bound

    def state(self) -> dict[str, Any]:
        wealth = None if self.log_wealth is None else self.log_wealth.tolist()
        return {"begun": self.begun, "log_wealth": wealth}

    def restore(self, state: dict[str, Any]) -> None:
        self.begun, wealth = state["begun"], state["log_wealth"]
        self.log_wealth = None if wealth is None else np.array(wealth, dtype=np.float64)


class Burst:
    """Failed attempts of one version within the window, by user."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.attempts: deque[tuple[float, str, bool]] = deque()
        self.users: dict[str, list[int]] = {}
        """Attempts and failed ones."""
        self.failed = 0

    def add(self, timestamp: float, user: str, failed: bool) -> None:
        self.attempts.append((timestamp, user, failed))
        self._count(user, 1, failed)
        self.forget(timestamp)
        if len(self.attempts) > MOST_ATTEMPTS:
            self._drop()

    def forget(self, now: float) -> None:
        while self.attempts and self.attempts[0][0] <= now - self.seconds:
            self._drop()

    def _drop(self) -> None:
        _, user, failed = self.attempts.popleft()
        self._count(user, -1, failed)

    def _count(self, user: str, by: int, failed: bool) -> None:
        counts = self.users.setdefault(user, [0, 0])
        counts[0] += by
        if failed:
            counts[1] += by
            self.failed += by
        if counts[0] == 0:
            del self.users[user]

    @property
    def failing_users(self) -> int:
        return sum(failed > 0 for _, failed in self.users.values())

    @property
    def share(self) -> float | None:
        """Mean over users of the share of their attempts that failed."""
        return (
            math.fsum(failed / count for count, failed in self.users.values()) / len(self.users)
            if self.users
            else None
        )


class Guards:
    """What turns back at once. A reason, once found, stays. level: chance that a burst of identical versions does."""

    def __init__(self, settings: Settings, level: float) -> None:
        self.settings = settings
        chance = _MOST_BY_CHANCE
        self.own = Bet(level / 2, np.log(_OWN / chance), np.log((1 - _OWN) / (1 - chance)))
        """Of requests that the stable version was asked too, once the candidate had failed."""
        self.copies = Bet(level / 2, np.log(2 * _ODDS / (1 + _ODDS)), np.log(2 / (1 + _ODDS)))
        """Of copies, which are asked of the candidate whatever came of the original."""
        self.bursts = {role: Burst(settings.window_seconds) for role in ("stable", "candidate")}
        self.unready_since: float | None = None
        self.non_finite: int | None = None
        self.tripped: str | None = None

    def see(self, access: Access) -> None:
        """Every request counts, by whatever route it came."""
        tried = {attempt.role: not attempt.failed for attempt in access.attempts}
        for attempt in access.attempts:
            self.bursts[attempt.role].add(access.timestamp, access.user, attempt.failed)
        if tried.get("stable") is False:
            self.copies.add(False)
        if "candidate" not in tried:
            return
        failed = not tried["candidate"]
        if access.route != "shadow":
            self.own.add(failed and tried.get("stable", False))
        elif failed:
            self.copies.add(True)
        if failed and self.tripped is None and (self.own.certain or self.copies.certain):
            self._look_at_burst(access.timestamp)

    def _look_at_burst(self, now: float) -> None:
        burst, other = self.bursts["candidate"], self.bursts["stable"]
        if burst.failed < self.settings.least_errors or burst.failing_users < _USERS:
            return
        other.forget(now)
        share, stable = burst.share, other.share
        if share is None or share < self.settings.error_share or share < 2 * (stable or 0.0):
            return
        self.tripped = (
            f"error burst: {burst.failed} of {len(burst.attempts)} attempts of the candidate failed within "
            f"{self.settings.window_seconds:g} s, of {burst.failing_users} users"
        )

    def health(self, now: float, ready: bool | None, non_finite: int | None) -> None:
        """ready: null: not asked. non_finite: outputs with NaN or infinity since the candidate started; null: unknown."""
        if ready:
            self.unready_since = None
        elif ready is False and self.unready_since is None:
            self.unready_since = now
        if non_finite is not None:
            self.non_finite = non_finite
            if self.tripped is None and non_finite >= self.settings.non_finite:
                self.tripped = f"non-finite outputs: {non_finite} of the candidate's held NaN or infinity"
        if self.tripped is None and ready is False and self.unready_since is not None:
            for_seconds = now - self.unready_since
            if for_seconds >= self.settings.unready_seconds:
                self.tripped = f"the candidate has been down or not ready for {for_seconds:.1f} s"

    def evidence(self) -> dict[str, Any]:
        burst = self.bursts["candidate"]
        return {
            "unready_since": self.unready_since,
            "non_finite": self.non_finite,
            "failed_in_window": burst.failed if burst.attempts else None,
            "failed_share_in_window": burst.share,
            "failures_are_its_own": self.own.certain or self.copies.certain,
        }

    def state(self) -> dict[str, Any]:
        return {
            "attempts": {role: [list(one) for one in burst.attempts] for role, burst in self.bursts.items()},
            "bets": {"own": self.own.state(), "copies": self.copies.state()},
            "unready_since": self.unready_since,
            "non_finite": self.non_finite,
            "tripped": self.tripped,
        }

    def restore(self, state: dict[str, Any]) -> None:
        for role, attempts in state["attempts"].items():
            burst = self.bursts[role]
            for timestamp, user, failed in attempts:
                burst.attempts.append((timestamp, user, failed))
                burst._count(user, 1, failed)
        self.own.restore(state["bets"]["own"])
        self.copies.restore(state["bets"]["copies"])
        self.unready_since = state["unready_since"]
        self.non_finite = state["non_finite"]
        self.tripped = state["tripped"]
