"""Hard limits of the candidate, looked at with every line and every second; none of them is a test."""

import math
from collections import deque
from typing import Any

from assay.release.observations import Access
from assay.release.schema import Guards as Settings

MOST_ATTEMPTS = 20_000
"""Attempts of the window that are kept; beyond, the oldest go first."""
_USERS = 2
"""One user's requests may fail with any version: a burst is of at least so many users."""


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
    """What turns back at once. A reason, once found, stays."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bursts = {role: Burst(settings.window_seconds) for role in ("stable", "candidate")}
        self.unready_since: float | None = None
        self.non_finite: int | None = None
        self.tripped: str | None = None

    def see(self, access: Access) -> None:
        """Every request counts, by whatever route it came."""
        for attempt in access.attempts:
            self.bursts[attempt.role].add(access.timestamp, access.user, attempt.failed)
            if attempt.role == "candidate" and attempt.failed and self.tripped is None:
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
        }

    def state(self) -> dict[str, Any]:
        return {
            "attempts": {role: [list(one) for one in burst.attempts] for role, burst in self.bursts.items()},
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
        self.unready_since = state["unready_since"]
        self.non_finite = state["non_finite"]
        self.tripped = state["tripped"]
