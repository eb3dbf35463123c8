"""Requests a second per client address: a bucket of as many tokens as the rate, for the addresses seen last."""

import time
from collections import OrderedDict

MOST = 16_384
"""Addresses remembered."""


class Rates:
    """Of one worker: the front as a whole lets through up to as many times the rate as it has workers."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str, rate: int, now: float | None = None) -> bool:
        """Whether a request of this address may pass; now: seconds on any steady clock."""
        now = time.monotonic() if now is None else now
        tokens, then = self._buckets.pop(address, (float(rate), now))
        tokens = min(float(rate), tokens + (now - then) * rate)
        passes = tokens >= 1
        self._buckets[address] = (tokens - passes, now)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        return passes
