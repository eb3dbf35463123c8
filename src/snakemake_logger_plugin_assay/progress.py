"""How far a workflow is: counted from Snakemake's events, drawn on a terminal or written line by line."""

import json
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from logging import LogRecord
from math import inf
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TextIO

from snakemake_logger_plugin_assay.failures import Failures

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_SECONDS = 10.0
"""Least time between two lines where the output is not a terminal."""


@dataclass
class Job:
    rule: str
    title: str
    started: float
    events: str | None = None

    def description(self) -> str:
        """The title and, for a run that logs its epochs, the one that it is in."""
        last = _last_event(Path(self.events)) if self.events else {}
        epoch, accuracy = last.get("epoch"), last.get("accuracy")
        text = self.title if epoch is None else f"{self.title}: epoch {epoch}"
        return text if accuracy is None else f"{text}, accuracy {accuracy:.3f}"


@dataclass
class Tally:
    """Counts and durations, enough to say what runs and how long it takes yet."""

    planned: Counter[str] = field(default_factory=Counter)
    running: dict[int, Job] = field(default_factory=dict)
    finished: Counter[str] = field(default_factory=Counter)
    spared: int = 0
    """Of those planned: what a selection showed to be there already."""
    durations: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    began: float = field(default_factory=time.monotonic)

    @property
    def total(self) -> int:
        return sum(self.planned.values()) - self.spared

    @property
    def done(self) -> int:
        return sum(self.finished.values())

    def finish(self, number: int, now: float) -> Job | None:
        job = self.running.pop(number, None)
        if job is not None:
            self.finished[job.rule] += 1
            self.durations[job.rule].append(now - job.started)
        return job

    def seconds_left(self, now: float) -> float | None:
        """Work left over the work done a second so far; None until every kind of long job was seen.

        A rule that has not finished once is as long as the median rule; rules with one job alone are not
        waited for.
        """
        elapsed = now - self.began
        if not self.durations or elapsed <= 0:
            return None
        if any(self.planned[rule] > 1 and not self.durations[rule] for rule in self.planned):
            return None
        typical = {rule: median(times) for rule, times in self.durations.items() if times}
        default = median(typical.values())
        work = sum(
            (self.planned[rule] - self.finished[rule]) * typical.get(rule, default) for rule in self.planned
        )
        work -= sum(min(now - job.started, typical.get(job.rule, default)) for job in self.running.values())
        worked = sum(sum(times) for times in self.durations.values())
        worked += sum(now - job.started for job in self.running.values())
        return max(0.0, work) * elapsed / worked if worked else None


def _last_event(path: Path) -> dict[str, Any]:
    """The last whole line of a log; nothing where there is none yet."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    try:
        last = json.loads(lines[-2]) if len(lines) > 1 else {}
    except ValueError:
        return {}
    return last if isinstance(last, dict) else {}


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s` or `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Turns events into a live bar on a terminal, into few lines elsewhere."""

    def __init__(self, stream: TextIO, *, color: bool = True) -> None:
        self.tally = Tally()
        self.failures = Failures()
        self._stream = stream
        self._color = color
        self._counted = 0
        self._live: RichProgress | None = None
        self._task: Any = None
        self._last_line = 0.0
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None
        self._lock = threading.RLock()

    def handle(self, event: str, record: LogRecord) -> None:
        now = time.monotonic()
        with self._lock:
            if event == "run_info":
                self._plan(getattr(record, "stats", None) or {})
            elif event == "job_info":
                self._start(record, now)
            elif event == "progress":
                # Snakemake counts rule `all` too.
                left_out = self._counted - record.total  # type: ignore[attr-defined]
                self.tally.spared = max(0, min(left_out, sum(self.tally.planned.values()) - self.tally.done))
            elif event == "job_finished":
                job = self.tally.finish(record.job_id, now)  # type: ignore[attr-defined]
                if job is not None:
                    self.failures.mended(record.job_id)  # type: ignore[attr-defined]
                    self._show(now)
            elif event == "job_error":
                self._fail(record)

    def _plan(self, stats: dict[str, int]) -> None:
        self._counted = sum(count for rule, count in stats.items() if rule != "total")
        self.tally.planned = Counter(
            {rule: count for rule, count in stats.items() if rule not in {"total", "all"}}
        )
        if self.tally.total:
            plan = ", ".join(f"{count} {rule}" for rule, count in self.tally.planned.items())
            self.say(f"{self.tally.total} jobs: {plan}")

    def _start(self, record: LogRecord, now: float) -> None:
        rule: str = record.rule_name  # type: ignore[attr-defined]
        if rule == "all":
            return
        title = getattr(record, "rule_msg", None) or rule
        events = next((path for path in getattr(record, "log", ()) if path.endswith(".jsonl")), None)
        self.tally.running[record.jobid] = Job(rule, title, now, events)  # type: ignore[attr-defined]
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def _fail(self, record: LogRecord) -> None:
        number: int = record.jobid  # type: ignore[attr-defined]
        job = self.tally.running.pop(number, None)
        title = record.rule_name if job is None else job.title  # type: ignore[attr-defined]
        said = self.failures.add(number, title, list(getattr(record, "log", ())))
        if said is not None:
            self.say(said)

    def _tick(self) -> None:
        while not self._ended.wait(1.0):
            with self._lock:
                self._show(time.monotonic())

    def _show(self, now: float) -> None:
        if self._ended.is_set():
            return
        tally = self.tally
        over = tally.done >= tally.total
        left = tally.seconds_left(now)
        yet = "" if left is None or over else f"; about {duration(left)} left"
        newest = next(reversed(tally.running.values()), None)
        what = newest.description() if newest else ""
        if self._stream.isatty():
            self._draw(f"{what}{yet}")
        elif now - self._last_line >= LINE_SECONDS or (over and self._last_line != inf):
            self._last_line = inf if over else now
            elapsed = duration(now - tally.began)
            self.say(
                f"{tally.done} of {tally.total} jobs done after {elapsed}{yet}"
                + (f" ({what})" if what else "")
            )
        if over and not tally.running:
            self.stop()

    def _draw(self, description: str) -> None:
        if self._live is None:
            self._live, self._task = _bar(self._stream, self.tally.total, color=self._color)
        self._live.update(
            self._task, completed=self.tally.done, total=self.tally.total, description=description
        )

    def say(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            if self._live is not None:
                self._live.console.print(text, markup=False, highlight=False)
            else:
                print(text, file=self._stream, flush=True)

    def stop(self) -> None:
        self._ended.set()
        if self._live is not None:
            self._live.stop()
            self._live = None


def _bar(stream: TextIO, total: int, *, color: bool) -> tuple["RichProgress", "TaskID"]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(file=stream, no_color=not color),
    )
    bar.start()
    return bar, bar.add_task("", total=total)
