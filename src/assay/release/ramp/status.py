"""What a release does at the moment, for people and for programs, from its files alone."""

from dataclasses import asdict
from typing import Any

from assay.holding import holder
from assay.release.layout import Layout
from assay.release.ramp.find import NoRelease, resolved
from assay.release.ramp.journal import Journal, Line
from assay.release.ramp.state import Progress, State, percent, title
from assay.release.routing.front import halted
from assay.release.routing.shadower import Shadower
from assay.release.schema import Release

PROMOTED, ROLLED_BACK, WAITS = 0, 3, 4
_EVENTS = 8
_NO_ROOM = "this share is held, and nothing is written down; make room, or roll back, which works"


class Standing:
    """One reading."""

    def __init__(self, layout: Layout) -> None:
        """Raises: NoRelease, JournalError."""
        self.layout = layout
        self.release: Release = resolved(layout)
        journal = Journal(layout)
        self.lines: list[Line] = journal.lines()
        if not self.lines:
            raise NoRelease(f"{layout.folder}: no release has begun there")
        self.state: State = self.lines[-1].state
        self.progress: Progress = journal.progress(self.state.entered)
        self.controller = holder(layout.lock)
        self.no_room = self.controller is not None and not layout.room.exists()
        self.halted = halted(layout) and self.state.wanted.share > 0
        self.copies = Shadower(layout).counts()

    def as_dict(self) -> dict[str, Any]:
        return {
            "release": self.state.release,
            "phase": self.state.phase,
            "title": title(self.state, self.release),
            "over": self.state.over,
            "controller": self.controller,
            "state": self.state.model_dump(mode="json"),
            "no_room": self.no_room,
            "halted": self.halted,
            "copies": None if self.copies is None else asdict(self.copies),
            "progress": self.progress.model_dump(mode="json"),
            "events": [
                line.model_dump(mode="json", exclude={"state"}) | {"title": title(line.state, self.release)}
                for line in self.lines[-_EVENTS:]
            ],
        }

    def text(self) -> str:
        state, progress = self.state, self.progress
        parts = [
            f"{state.release}: {title(state, self.release)}{self._manner()}",
            f"  stable     {state.wanted.stable}{self._names(state.wanted.stable)}",
            f"  candidate  {state.candidate.version}"
            + ("" if state.wanted.candidate else " (serves nobody)" if not state.over else ""),
            f"  share      {percent(state.wanted.share)} of identified users{self._really()}",
        ]
        if not state.over:
            parts += [f"  so far     {self._so_far()}", f"  judge      {self._judge()}"]
        if self.no_room:
            parts.append(f"  trouble    no room on the disk of {self.layout.folder}: {_NO_ROOM}")
        parts += [f"  trouble    {text}" for text in progress.trouble]
        parts += [f"  why        {state.held or state.reason}", "", "last events"]
        parts += [f"  {told(line, self.release)}" for line in self.lines[-_EVENTS:]]
        return "\n".join(map(_printable, parts))

    @property
    def exit_code(self) -> int:
        return exit_code(self.state)

    def _manner(self) -> str:
        state = self.state
        if state.over:
            return f", and release {state.successor} has taken its front over" if state.successor else ""
        if state.held:
            return ", held: a person has to decide (assay release promote | resume | rollback)"
        words = ", paused" if state.paused else ""
        absent = "" if self.controller else ", NO CONTROLLER RUNS: start it again (assay release start)"
        return words + absent

    def _names(self, version: str) -> str:
        return " (what was the candidate)" if version == self.state.candidate.version else ""

    def _really(self) -> str:
        if self.halted:
            return "; the front was halted: everyone has the stable version"
        real = self.progress.share
        if real is None and (self.state.over or self.progress.decision is None):
            return ""
        if real is None:
            return "; the front does not answer" if self.controller else ""
        return "" if abs(real - self.state.wanted.share) < 1e-4 else f"; the front has {percent(real)}"

    def _so_far(self) -> str:
        progress, state = self.progress, self.state
        passed = f"{progress.elapsed:.0f} s"
        if state.phase == "bake":
            return f"{passed} of {self.release.ramp.bake_seconds:.0f} s"
        if state.phase == "shadow":
            shadow = self.release.ramp.shadow
            lost = "" if self.copies is None else f" ({self.copies.lost + self.copies.never_came} lost)"
            answered = f"{_count(progress.requests)} of {shadow.requests} copies{lost}"
            return f"{answered}, {passed} of at least {shadow.least_seconds:.0f} s"
        if state.step is not None:
            step = self.release.ramp.steps[state.step]
            users = f"{_count(progress.users)} of {step.users} users of the candidate"
            return f"{users}, {passed} of at least {step.least_seconds:.0f} s"
        return passed

    def _judge(self) -> str:
        progress = self.progress
        words = "; ".join(progress.reasons) or progress.decision or "has not looked yet"
        if progress.seconds_to_decide is not None:
            words += f"; about {progress.seconds_to_decide:.0f} s more at this traffic"
        return words


def exit_code(state: State) -> int:
    """0: promoted, 3: rolled back, 4: not over."""
    if state.phase == "promoted":
        return PROMOTED
    return ROLLED_BACK if state.phase in ("rolled_back", "rolling_back") else WAITS


def told(line: Line, release: Release) -> str:
    """A line of the journal for people."""
    where = title(line.state, release)
    what = (
        where if line.event in (line.state.phase, "rollback") else f"{line.event.replace('_', ' ')} ({where})"
    )
    return _printable(f"{line.timestamp[11:19]}  {what}: {line.reason}")


def _printable(text: str) -> str:
    """One line, whatever a person wrote as a reason: line feeds and commands to the terminal are spaces."""
    return "".join(one if one.isprintable() else " " for one in text)


def _count(number: int | None) -> str:
    return "unknown" if number is None else str(number)
