"""Files that others write meanwhile: read on from where one was, and when they changed last.

Another machine may write them, over NFS, with a clock of its own. They may be half written, begun anew, cut or gone at any time.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

Line = dict[str, Any]

MOST_BYTES = 4 * 2**20
"""Of one file at one look: of more, the beginning and the end are read."""
HEAD_BYTES, TAIL_BYTES = 64 * 2**10, 256 * 2**10
SEARCH_BYTES = 64 * 2**20
"""How far back a line is sought in what was not read."""
_IDENTITY_BYTES = 256
"""A file that begins otherwise is another file: file systems give a removed file's number to the next one."""

Signature = tuple[int, int, int]


@dataclass(frozen=True)
class Moment:
    """Now, by this machine: seconds since 1970, and on a clock that never jumps."""

    wall: float
    monotonic: float


def signature(stat: os.stat_result) -> Signature:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def stat_of(path: Path) -> os.stat_result | None:
    """None where there is none, or nobody can tell."""
    try:
        return path.stat()
    except OSError:
        return None


class Pulse:
    """When a file changed last.

    At first by its time of change, later by when this process saw it change: by one clock, whatever those of nodes and file server say.
    """

    def __init__(self) -> None:
        self._known: Signature | None = None
        self._first: float | None = None
        self._since = 0.0
        self._age = 0.0

    def see(self, stat: os.stat_result | None, moment: Moment) -> None:
        if stat is None:
            self._known = self._first = None
            return
        found = signature(stat)
        if found == self._known:
            return
        if self._first is None:
            self._first = moment.monotonic
            self._age = max(0.0, moment.wall - stat.st_mtime)
        else:
            self._age = 0.0
        self._known, self._since = found, moment.monotonic

    def age(self, moment: Moment) -> float | None:
        """Seconds; None where there is no file."""
        return None if self._first is None else self._age + moment.monotonic - self._since

    def watched(self, moment: Moment) -> float:
        """For how many seconds this process has looked at it without seeing a change."""
        return 0.0 if self._first is None else moment.monotonic - self._since


class Tail:
    """The whole lines of a JSONL file as they come. `generation` counts how often it was begun anew.

    most, tail: bytes that one look may read; and how many it reads from the end where there are more.
    """

    def __init__(self, path: Path, *, most: int = MOST_BYTES, tail: int = TAIL_BYTES) -> None:
        self.path = path
        self._most, self._tail = most, tail
        self.pulse = Pulse()
        self.generation = 0
        self.skipped: tuple[int, int] | None = None
        """From where to where lines were left out at the last look."""
        self.before_skipped = 0
        """How many of its lines stand before those."""
        self._inode: int | None = None
        self._offset = 0
        self._identity = b""
        self._seen: Signature | None = None

    def read(self, moment: Moment) -> list[Line]:
        """New lines in order; lines that are no JSON objects are left out."""
        self.skipped = None
        try:
            with self.path.open("rb") as file:  # opening is what makes NFS ask the server
                stat = os.fstat(file.fileno())
                self.pulse.see(stat, moment)
                if signature(stat) == self._seen:
                    return []
                self._seen = signature(stat)
                return self._advance(file, stat)
        except FileNotFoundError:
            self.pulse.see(None, moment)
            self._begin_anew()
        except OSError:  # no permission, a stale handle, a server that does not answer: perhaps next time
            pass
        return []

    def _begin_anew(self) -> None:
        if self._inode is not None:
            self.generation += 1
        self._inode, self._offset, self._identity, self._seen = None, 0, b"", None

    def _advance(self, file: BinaryIO, stat: os.stat_result) -> list[Line]:
        begins = file.read(_IDENTITY_BYTES)
        replaced = stat.st_ino != self._inode or stat.st_size < self._offset
        if replaced or not begins.startswith(self._identity):
            seen = self._seen
            self._begin_anew()
            self._inode, self._seen = stat.st_ino, seen
        self._identity = begins
        head: list[Line] = []
        if stat.st_size - self._offset > self._most:
            if self._offset == 0:
                head = _parsed(self._whole(file, HEAD_BYTES))
            start = stat.st_size - self._tail
            file.seek(start)
            start += len(file.readline(self._tail))
            self.skipped, self._offset, self.before_skipped = (self._offset, start), start, len(head)
        return head + _parsed(self._whole(file, max(0, stat.st_size - self._offset)))

    def _whole(self, file: BinaryIO, size: int) -> bytes:
        """Whole lines from the offset on, which moves behind them."""
        file.seek(self._offset)
        content = file.read(size)
        content = content[: content.rfind(b"\n") + 1]
        self._offset += len(content)
        return content

    def last_skipped(self, marker: bytes) -> Line | None:
        """The last line with `marker` among those that the last look left out."""
        if self.skipped is None:
            return None
        first, end = self.skipped
        first = max(first, end - SEARCH_BYTES)
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            while end > first:
                start = max(first, end - TAIL_BYTES)
                file.seek(start)
                content = file.read(end - start)
                if (place := content.rfind(marker)) >= 0:
                    file.seek(start + content.rfind(b"\n", 0, place) + 1)
                    found = _parsed(file.readline(TAIL_BYTES))
                    return found[0] if found else None
                end = start + len(marker) if start > first else first
        return None


def _parsed(content: bytes) -> list[Line]:
    found = []
    for raw in content.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(raw)
            if isinstance(line, dict):
                found.append(line)
    return found


def number(value: object) -> float | None:
    """A number of a log: nan and infinities stand there as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def seconds_of(timestamp: object) -> float | None:
    """Seconds since 1970 of a time as logs write it."""
    try:
        return datetime.fromisoformat(str(timestamp)).timestamp()
    except (ValueError, OverflowError):
        return None
