"""Whether a job lives, and how it ended, where it left no record: from `attempt.json` and from what grows beside it."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from assay.isolation.attempts import FILE, Attempt, last_attempt
from assay.monitoring.files import Moment, Pulse, Signature, seconds_of, signature, stat_of
from assay.monitoring.state import State

LEAST_SILENCE = 60.0
"""Seconds without a line below which nobody is stalled, or dead on another machine: NFS clients keep lines for up to 30 s."""
CONFIRM_SECONDS = 4.0
"""For so long this process must have looked before it calls somebody silent: times of change may be another clock's.

A supervisor writes `attempt.json` every 3 s, a sampler its file every second.
"""

SUPERVISOR_SECONDS = 15.0
"""For which a supervisor that lives may be silent where its writing is seen at once: five times its rhythm."""


class Job:
    """The supervisor of a job: it writes `attempt.json` anew every 3 s while the job lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: Signature | None = None
        self.pulse = Pulse()
        self.attempt: Attempt | None = None

    def look(self, moment: Moment) -> None:
        stat = stat_of(self._folder / FILE)
        self.pulse.see(stat, moment)
        if stat is None:
            self._seen = self.attempt = None
        elif signature(stat) != self._seen:
            found = last_attempt(self._folder)
            if found is not None:  # else it was just being replaced
                self.attempt, self._seen = found, signature(stat)

    @property
    def host(self) -> str | None:
        return None if self.attempt is None else self.attempt.host

    @property
    def goes_on(self) -> bool:
        """Whether it has begun and not told its end."""
        return self.attempt is not None and self.attempt.ended is None

    @property
    def started(self) -> float | None:
        return None if self.attempt is None else seconds_of(self.attempt.started)

    def longest_silence(self, least: float, *, over: bool = False) -> float:
        """Seconds without a sign of life after which it is dead. over: somebody else told that the job is."""
        here = self.host == os.uname().nodename  # no file server lies between
        return min(least, SUPERVISOR_SECONDS) if here or over else least

    def ending(self) -> tuple[State, str | None] | None:
        """How the last attempt ended by its supervisor's word; None where it goes on, or there was none.

        One that completed and has no record is to be made again: its outputs were removed.
        """
        if self.attempt is None or self.attempt.ended is None:
            return None
        match self.attempt.ended:
            case "completed":
                return "waiting", None
            case "interrupted":
                return "interrupted", f"asked to end by {_name(self.attempt.signal)}"
            case "out_of_memory":
                return "out_of_memory", "it crossed its bound on memory"
            case "too_many_processes":
                return "failed", "it crossed its bound on processes"
        if self.attempt.signal == signal.SIGKILL:
            return "killed", "ended by SIGKILL"
        if self.attempt.signal:
            return "failed", f"ended by {_name(self.attempt.signal)}"
        return "failed", None


def silence(pulses: Iterable[Pulse], moment: Moment) -> float | None:
    """Seconds since the last of several files changed; None where there is none of them.

    0 where that is not certain yet: it goes by the file's time of change, and nobody has looked for long enough.
    """
    known = [pulse for pulse in pulses if pulse.age(moment) is not None]
    if not known:
        return None
    newest = min(known, key=lambda pulse: pulse.age(moment) or 0.0)
    return 0.0 if newest.watched(moment) < CONFIRM_SECONDS else newest.age(moment)


def _name(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return "a signal" if number is None else f"signal {number}"
