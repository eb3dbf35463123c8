"""A bounded table that processes share: a mapped file with one lock for each bucket of it.

A key has its place in one bucket of 64; what has expired there makes room. So a change costs the same however full the
table is, the file never grows, and a process that dies in a change holds up nobody: the kernel frees its lock.
"""

import fcntl
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path

KEY = 16
"""Bytes of a key: a digest, so that it is spread over the buckets."""
BUCKET = 64
_HEADER = mmap.PAGESIZE
_MAGIC = b"assay table 1\n"
Update = Callable[[int | None], tuple[int, int] | None]
"""From a key's value, or None where it has none, to its next and the second in which that ends; None: no change."""


class FullError(Exception):
    """A key's bucket has no place that has expired."""


class Table:
    """Of `slots` keys, each with a number below 2^64. Every process that opens the file gives the same `slots`."""

    def __init__(self, path: Path, slots: int, *, evict: bool = False) -> None:
        """evict: where a bucket is full, the value that ends first makes room.

        Raises: ValueError for a file that is no such table; OSError where it cannot be made.
        """
        assert slots % BUCKET == 0
        self._buckets, self._evict = slots // BUCKET, evict
        size = _HEADER + slots * (KEY + 8 + 4)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        head = _MAGIC + b"%d\n" % slots
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            if not os.pread(self._file, len(head), 0).strip(b"\0"):
                # Room for all of it now: a disk that is full later would end who writes into the map.
                os.posix_fallocate(self._file, 0, size)
                os.pwrite(self._file, head, 0)
            if os.fstat(self._file).st_size != size or os.pread(self._file, len(head), 0) != head:
                raise ValueError(f"{path}: is no table of {slots} slots; remove it while no server runs")
            self._map = mmap.mmap(self._file, size)
        except BaseException:
            os.close(self._file)
            raise
        fcntl.lockf(self._file, fcntl.LOCK_UN)
        view = memoryview(self._map)
        self._keys = _HEADER
        self._values = view[_HEADER + slots * KEY : _HEADER + slots * (KEY + 8)].cast("Q")
        self._ends = view[_HEADER + slots * (KEY + 8) : size].cast("I")
        self._thread = threading.Lock()

    def get(self, key: bytes, now: float) -> int | None:
        """The value of a key, without waiting for who changes it."""
        bucket = self._bucket(key)
        slot = self._find(key, bucket)
        return self._values[slot] if slot is not None and self._ends[slot] > now else None

    def change(self, key: bytes, now: float, update: Update) -> None:
        """Seen by all processes as one step. Raises: FullError."""
        bucket = self._bucket(key)
        with self._thread:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, bucket)
            try:
                self._change(key, bucket, now, update)
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, bucket)

    def _change(self, key: bytes, bucket: int, now: float, update: Update) -> None:
        slot = self._find(key, bucket)
        known = slot is not None and self._ends[slot] > now
        changed = update(self._values[slot] if known and slot is not None else None)
        if changed is None:
            return
        if slot is None:
            slot = self._room(bucket, now)
            begin = self._keys + slot * KEY
            self._map[begin : begin + KEY] = key
        # The end comes last: who dies before it leaves a place that has expired.
        self._values[slot], self._ends[slot] = changed[0], changed[1]

    def _room(self, bucket: int, now: float) -> int:
        first = bucket * BUCKET
        ends = self._ends[first : first + BUCKET].tolist()
        least = min(ends)
        if least > now and not self._evict:
            raise FullError
        slot: int = first + ends.index(least)
        self._ends[slot] = 0
        return slot

    def _bucket(self, key: bytes) -> int:
        assert len(key) == KEY
        return int.from_bytes(key[:8], "little") % self._buckets

    def _find(self, key: bytes, bucket: int) -> int | None:
        begin = self._keys + bucket * BUCKET * KEY
        found = self._map.find(key, begin, begin + BUCKET * KEY)
        while found != -1 and (found - begin) % KEY:
            found = self._map.find(key, found + 1, begin + BUCKET * KEY)
        return None if found == -1 else bucket * BUCKET + (found - begin) // KEY

    def clear(self) -> None:
        """Forget everything."""
        for slot in range(len(self._ends)):
            self._ends[slot] = 0

    def close(self) -> None:
        self._values.release()
        self._ends.release()
        self._map.close()
        os.close(self._file)
