"""What users had from the front, counted from its log."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from assay.release.observations import Access, Role

BUCKETS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 5.0, 10.0)
"""Seconds."""
OUTCOMES = ("ok", "refused", "failed")
"""Of a request: below 400, 400 to 499, from 500 on."""


class Traffic:
    """Sums since it was made, by the role to which the front gave the user."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.counts: dict[Role, list[int]] = {"stable": _none(), "candidate": _none()}
        """By `BUCKETS`; the last: above all of them."""
        self.seconds: dict[Role, float] = {"stable": 0.0, "candidate": 0.0}

    def see(self, accesses: Iterable[Access]) -> None:
        for access in accesses:
            self.requests[access.assigned, outcome_of(access.status)] += 1
            for attempt in access.attempts:
                self.attempts[attempt.role, "failed" if attempt.failed else "ok"] += 1
            self.counts[access.assigned][bisect_left(BUCKETS, access.seconds)] += 1
            self.seconds[access.assigned] += access.seconds


def outcome_of(status: int) -> str:
    return "ok" if status < 400 else "refused" if status < 500 else "failed"


def _none() -> list[int]:
    return [0] * (len(BUCKETS) + 1)
