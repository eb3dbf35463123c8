"""Requests a second per client address, counted by all workers of the front together, as nginx's `limit_req` counts them.

The rule is GCRA (ITU-T I.371): of each address one number is kept, the time at which its next request would be due at
the rate; it may come up to a second early, which is a burst of as many as the rate.
"""

import hashlib
import os
import time
from pathlib import Path

from assay.release.security.table import KEY, Table

FILE = "rates"
SLOTS = 2**14
"""Addresses remembered; beyond about half as many those that are due first are forgotten."""
_SECOND = 10**9


class Rates:
    """In a table that the workers share. Where there is no room for it, each worker counts for itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table: Table | None = None

    def take(self, address: str, rate: int, now: int | None = None) -> bool:
        """Whether a request of this address may pass; now: nanoseconds of the clock that all processes share."""
        moment = time.monotonic_ns() if now is None else now
        apart = _SECOND // rate
        passes = True

        def update(known: int | None) -> tuple[int, int] | None:
            nonlocal passes
            due = max(known or 0, moment)
            if due - moment > _SECOND + apart:  # of before the machine was started
                due = moment
            passes = due - moment <= _SECOND
            return (due + apart, (due + apart) // _SECOND + 1) if passes else None

        if self._table is None:
            self._table = _opened(self._path)
        key = hashlib.blake2b(address.encode(), digest_size=KEY).digest()
        self._table.change(key, moment / _SECOND, update)
        return passes


def _opened(path: Path) -> Table:
    try:
        return Table(path, SLOTS, evict=True)
    except (OSError, ValueError):
        memory = os.memfd_create(FILE)
        try:
            return Table(Path(f"/proc/self/fd/{memory}"), SLOTS, evict=True)
        finally:
            os.close(memory)
