"""Limits per user, counted together by all workers of a version."""

import hashlib
import math
import time
from pathlib import Path
from typing import cast

from limits import RateLimitItem, parse
from limits.storage import Storage
from limits.storage.base import SlidingWindowCounterSupport
from limits.strategies import SlidingWindowCounterRateLimiter

from assay.release.security.refusal import too_many
from assay.release.security.table import KEY, Table

SLOTS = 2**17
"""Windows that are counted at once, two per user and version. Beyond about half as many, the oldest are forgotten."""


class SharedStorage(Storage, SlidingWindowCounterSupport):
    """Where `limits` keeps its counts: a table that processes share. A hit is counted and judged as one step."""

    STORAGE_SCHEME = ["assay+table"]

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._table = Table(path, SLOTS, evict=True)

    @property
    def base_exceptions(self) -> type[Exception]:
        return OSError

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now = time.time()
        window = int(now / expiry)
        before = self._count(key, window - 1, now) * (1 - now / expiry % 1)
        acquired = False

        def update(count: int | None) -> tuple[int, int] | None:
            nonlocal acquired
            acquired = math.floor(before + (count or 0)) + amount <= limit
            return ((count or 0) + amount, (window + 2) * expiry) if acquired else None

        self._table.change(_key(key, window), now, update)
        return acquired

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        now = time.time()
        window = int(now / expiry)
        rest = (window + 1) * expiry - now
        counts = [self._count(key, one, now) for one in (window - 1, window)]
        return counts[0], rest, counts[1], rest + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        now = time.time()
        for window in (int(now / expiry) - 1, int(now / expiry)):
            self._table.change(_key(key, window), now, lambda _: (0, 0))

    def _count(self, key: str, window: int, now: float) -> int:
        return self._table.get(_key(key, window), now) or 0

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        counted = 0

        def update(count: int | None) -> tuple[int, int]:
            nonlocal counted
            counted = (count or 0) + amount
            return counted, math.ceil(time.time()) + expiry

        self._table.change(_key(key, None), time.time(), update)
        return counted

    def get(self, key: str) -> int:
        return self._table.get(_key(key, None), time.time()) or 0

    def get_expiry(self, key: str) -> float:
        raise NotImplementedError("only sliding windows are asked for theirs")

    def check(self) -> bool:
        return True

    def reset(self) -> None:
        self._table.clear()

    def clear(self, key: str) -> None:
        self._table.change(_key(key, None), time.time(), lambda _: (0, 0))

    def close(self) -> None:
        self._table.close()


def _key(key: str, window: int | None) -> bytes:
    return hashlib.blake2b(f"{key}/{window}".encode(), digest_size=KEY).digest()


class UserLimit:
    """`600/minute` and the like. The versions count apart: one that fails uses up nothing of the other."""

    def __init__(self, limit: str, counts: Path, role: str) -> None:
        self._item: RateLimitItem = parse(limit)
        self._limit, self._role = limit, role
        self._limiter = SlidingWindowCounterRateLimiter(SharedStorage(counts))

    def count(self, user: str) -> None:
        """user: the digest; empty: not counted. Raises: Refusal."""
        if not user or self._limiter.hit(self._item, self._role, user):
            return
        again = self._limiter.get_window_stats(self._item, self._role, user).reset_time
        seconds = math.ceil(again - time.time())
        raise too_many(f"{self._limit} are allowed to one user", seconds)

    def close(self) -> None:
        cast(SharedStorage, self._limiter.storage).close()
