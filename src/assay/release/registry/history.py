"""`history.jsonl`: an append-only record of a model, flushed to the disk before what it tells of takes effect.

Each line holds the SHA-256 of the line before it: one that was taken out or changed later is seen.
"""

import fcntl
import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from assay.clock import now
from assay.records import Typed, end_torn_line, sha256_text

_TAIL = 1 << 16
"""Bytes at the end in which the last line is sought first."""
Event = Literal["registered", "alias", "serves"]


class Entry(Typed):
    """One line: what changed, when and why."""

    timestamp: str
    event: Event
    version: str | None = Field(description="That it is about; null: an alias was taken away.")
    alias: str | None = None
    previous: str | None = Field(default=None, description="The version that had the alias before.")
    release: str | None = None
    role: Literal["stable", "candidate"] | None = None
    share: float | None = Field(
        default=None, ge=0, le=1, description="Of identified users that it serves from now on; null: of none."
    )
    reason: str = ""
    by: str = Field(description="The user of this machine who asked for it.")
    before: str = Field(default="", description="SHA-256 of the line before; empty: the first.")


class History:
    """The record of one model."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: Event, version: str | None, **fields: object) -> Entry:
        """Write a line at the end and wait until the disk has it. Of several writers each has a whole line.

        Raises: ValueError where it cannot be written, or the last line is damaged.
        """
        try:
            with locked(self.path):
                end_torn_line(self.path)
                last = self._last()
                entry = Entry.model_validate(
                    {
                        "timestamp": now(),
                        "event": event,
                        "version": version,
                        "by": _user(),
                        "before": "" if last is None else sha256_text(last),
                        **fields,
                    }
                )
                with self.path.open("ab") as file:
                    file.write(entry.model_dump_json().encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise ValueError(
                f"{self.path}: cannot be written ({error.strerror}); nothing was changed"
            ) from None
        return entry

    def read(self) -> list[Entry]:
        """In order; a half line that a killed writer left is no entry. Raises: ValueError for a damaged record."""
        found: list[Entry] = []
        before = ""
        for number, line in enumerate(self._lines(), start=1):
            try:
                entry = Entry.model_validate_json(line)
            except ValidationError as error:
                raise ValueError(
                    f"{self.path}:{number}: {error.errors()[0]['msg']}; the record was changed"
                ) from None
            if entry.before != before:
                raise ValueError(
                    f"{self.path}:{number}: does not follow the line before it; the record was changed"
                )
            before = sha256_text(line)
            found.append(entry)
        return found

    def _lines(self) -> list[str]:
        try:
            content = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path}: cannot be read ({error}); the record was changed") from None
        return content.split("\n")[:-1]

    def _last(self) -> str | None:
        """Its last line, read from the end, however long it is."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                length = min(size, _TAIL)
                while True:
                    file.seek(size - length)
                    lines = file.read(length).split(b"\n")[:-1]
                    if len(lines) > 1 or length == size:
                        return lines[-1].decode("utf-8", "replace") if lines else None
                    length = min(size, 2 * length)
        except FileNotFoundError:
            return None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One writer at a time, on this file system; the lock ends with its holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
