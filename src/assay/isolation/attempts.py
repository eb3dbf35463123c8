"""What is known of a job's last attempt, however it ended: `attempt.json` in the folder of its stage.

Cheap to import. The file is no output of the workflow and no result: it is the evidence by which whoever starts the
job again, and with how much memory, can decide.
"""

import contextlib
import json
import os
import socket
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

FILE = "attempt.json"
UPDATE_SECONDS = 3.0

Ended = Literal["completed", "out_of_memory", "too_many_processes", "interrupted", "error"]


@dataclass(frozen=True)
class Attempt:
    """One start of a job. `ended` is null while it runs, and for ever if nothing was left to write it."""

    attempt: int
    started: str
    memory_bound_mb: float | None
    peak_memory_mb: float | None
    ended: Ended | None
    signal: int | None
    host: str
    bounds_held_by: dict[str, str] | None = None
    """By bound, `processes` and `memory`: a control group, a user namespace, or polling."""

    @property
    def share_of_bound(self) -> float | None:
        """Peak over bound; null where either is not known."""
        if self.peak_memory_mb is None or not self.memory_bound_mb:
            return None
        return self.peak_memory_mb / self.memory_bound_mb


def last_attempt(folder: Path) -> Attempt | None:
    """The last attempt of the job whose records are in `folder`; None where there is none, or no readable one."""
    try:
        return Attempt(**json.loads((folder / FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


class Evidence:
    """Writes `attempt.json` while a job runs. Attempts count up until one completes."""

    def __init__(
        self, folder: Path, memory_bound_mb: float | None, held_by: dict[str, str] | None = None
    ) -> None:
        before = last_attempt(folder)
        again = before is not None and before.ended != "completed"
        self._path = folder / FILE
        self.attempt = Attempt(
            attempt=before.attempt + 1 if before is not None and again else 1,
            started=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            memory_bound_mb=memory_bound_mb,
            peak_memory_mb=None,
            ended=None,
            signal=None,
            host=socket.gethostname(),
            bounds_held_by=held_by,
        )
        self._written = 0.0
        self._write()

    def peak(self, mib: float) -> None:
        """The most memory so far, in MiB; on disk within seconds."""
        if mib > (self.attempt.peak_memory_mb or 0.0):
            self.attempt = replace(self.attempt, peak_memory_mb=round(mib, 1))
        if time.monotonic() - self._written > UPDATE_SECONDS:
            self._write()

    def held_by(self, held_by: dict[str, str]) -> dict[str, str]:
        """Who holds the bounds, once that is certain."""
        self.attempt = replace(self.attempt, bounds_held_by=held_by)
        return held_by

    def end(self, how: Ended, number: int | None = None) -> None:
        self.attempt = replace(self.attempt, ended=how, signal=number)
        self._write()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.end("completed")
        elif self.attempt.ended is None:
            self.end("interrupted" if issubclass(kind, SystemExit | KeyboardInterrupt) else "error")

    def _write(self) -> None:
        """Whole or not at all; not synced to disk, which a job need not wait for."""
        self._written = time.monotonic()
        temporary = self._path.with_name(f".{FILE}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(self.attempt), indent=1) + "\n")
            temporary.replace(self._path)
