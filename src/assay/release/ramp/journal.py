"""The journal and the state: what is wanted is on the disk before it is done."""

import json
import os
from dataclasses import dataclass

from pydantic import ValidationError

from assay.clock import now
from assay.records import Typed, write_atomically
from assay.release.layout import Layout
from assay.release.ramp.state import Progress, State


class JournalError(ValueError):
    """A journal that says something else than we write."""


class Line(Typed):
    """One decision, with the state that it leads to."""

    number: int
    timestamp: str
    event: str
    reason: str
    by: str
    """`ramp`, or the person whose order it was."""
    state: State


class Stored(Typed):
    """`state.json`."""

    state: State
    progress: Progress


@dataclass
class Journal:
    """Append-only. A line that was cut off by a crash never took effect, and is removed by the next `open`."""

    layout: Layout

    def lines(self) -> list[Line]:
        """Whole lines, oldest first. Raises: JournalError where a line before the last is damaged."""
        try:
            content = self.layout.journal.read_bytes()
        except FileNotFoundError:
            return []
        found = []
        *whole, _cut = content.split(b"\n")
        for number, text in enumerate(whole, start=1):
            try:
                line = Line.model_validate_json(text)
                if line.number != number:
                    raise ValueError(f"it is numbered {line.number}")
            except (ValidationError, ValueError) as error:
                first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
                raise JournalError(
                    f"{self.layout.journal}:{number}: damaged: {first}; what users have now stays as it is. Put the file "
                    "back from a copy, or move the folder away and start anew"
                ) from None
            found.append(line)
        return found

    def last(self) -> Line | None:
        lines = self.lines()
        return lines[-1] if lines else None

    def open(self) -> Line | None:
        """Cut off what is no whole line, and return the last one that is. Only the controller does this."""
        last = self.last()
        if self.layout.journal.exists():
            content = self.layout.journal.read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                with self.layout.journal.open("r+b") as file:
                    file.truncate(whole)
                    os.fsync(file.fileno())
        return last

    def append(self, line: Line) -> None:
        """On the disk when it returns. Raises: OSError; nothing of the line is left then."""
        self.layout.folder.mkdir(parents=True, exist_ok=True)
        fresh = not self.layout.journal.exists()
        with self.layout.journal.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            content = line.model_dump_json().encode() + b"\n"
            try:
                while content:
                    content = content[file.write(content) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
        if fresh:
            descriptor = os.open(self.layout.folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def write_state(self, state: State, progress: Progress) -> None:
        stored = Stored(state=state, progress=progress)
        write_atomically(self.layout.state, stored.model_dump_json(indent=1).encode() + b"\n")

    def progress(self, line: int) -> Progress:
        """That of a line of the journal, as far as it was written; else none yet."""
        try:
            stored = Stored.model_validate(json.loads(self.layout.state.read_bytes()))
        except (FileNotFoundError, ValueError):
            return Progress(line=line)
        return stored.progress if stored.progress.line == line else Progress(line=line)


def line(number: int, event: str, reason: str, by: str, state: State) -> Line:
    return Line(number=number, timestamp=now(), event=event, reason=reason, by=by, state=state)
