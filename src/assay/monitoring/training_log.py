"""How far a training is, from `log.jsonl`."""

from pathlib import Path

from assay.monitoring.files import Line, Moment, Tail, number, seconds_of, text, whole

_EPOCH = b'"event": "epoch"'


class TrainingLog:
    """The last attempt in a log, as it grows."""

    def __init__(self, path: Path) -> None:
        self._tail = Tail(path)
        self.pulse = self._tail.pulse
        self._generation = 0
        self._forget()

    def _forget(self) -> None:
        self.last: Line | None = None
        """The last line of any kind."""
        self.attempt: int | None = None
        self.resumed = False
        self.epochs: int | None = None
        self.steps_per_epoch: int | None = None
        self.step: Line | None = None
        """The last line about a training step, of this attempt or one before."""
        self.epoch: Line | None = None
        """The last line about an epoch that is done."""
        self.finished: Line | None = None
        self._begun: tuple[float, int] | None = None
        self._at: tuple[float, int] | None = None
        self.longest_gap: float | None = None
        """Seconds between two lines of this attempt, at most so far, from its first step on."""
        self._before: float | None = None

    def look(self, moment: Moment) -> None:
        lines = self._tail.read(moment)
        if self._tail.generation != self._generation:
            self._generation = self._tail.generation
            self._forget()
        epoch = self.epoch
        for index, line in enumerate(lines):
            if self._tail.skipped is not None and index == self._tail.before_skipped:
                self._before = None  # what was left out would look like a silence
            self._take(line)
        if self._tail.skipped is not None and self.epoch in (epoch, None):
            self.epoch = self._tail.last_skipped(_EPOCH) or self.epoch

    def _take(self, line: Line) -> None:
        event, attempt = line.get("event"), whole(line.get("attempt"))
        if event in ("started", "resumed") or attempt != self.attempt:
            self._begin(line, attempt)
        self.last = line
        moment, step = seconds_of(line.get("timestamp")), whole(line.get("step"))
        match event:
            case "step":
                self.step = line
            case "epoch":
                self.epoch = line
            case "finished" | "failed":
                self.finished = line
        if moment is None:
            return
        if event in ("step", "epoch") and step is not None:
            self._begun = self._begun or (moment, step)
            self._at = (moment, step)
        if self._begun is not None:
            if self._before is not None and moment >= self._before:
                self.longest_gap = max(self.longest_gap or 0.0, moment - self._before)
            self._before = moment

    def _begin(self, line: Line, attempt: int | None) -> None:
        """An attempt; what an earlier one reached stands until this one says more."""
        self.attempt = attempt
        self.resumed = (attempt or 1) > 1
        self.epochs = whole(line.get("epochs")) or self.epochs
        self.steps_per_epoch = whole(line.get("steps_per_epoch")) or self.steps_per_epoch
        self.finished = self._begun = self._at = self.longest_gap = self._before = None
        if not self.resumed:
            self.step = self.epoch = None

    @property
    def timestamp(self) -> str | None:
        return None if self.last is None else text(self.last.get("timestamp"))

    @property
    def steps_done(self) -> int | None:
        """Over all epochs; of an attempt that has not made a step yet, of the one before."""
        if self.last is None:
            return None
        return 0 if self.step is None else whole(self.step.get("step"))

    @property
    def epochs_done(self) -> int | None:
        if self.last is None:
            return None
        if self.epoch is not None and (done := whole(self.epoch.get("epoch"))) is not None:
            return done + 1
        return 0 if self.step is None else whole(self.step.get("epoch"))

    @property
    def steps(self) -> int | None:
        return self.epochs * self.steps_per_epoch if self.epochs and self.steps_per_epoch else None

    @property
    def validating(self) -> bool:
        """Whether the training half of an epoch is over and its validation is not."""
        if self.step is None or self.last is not self.step or not self.steps_per_epoch:
            return False
        return (whole(self.step.get("step")) or 1) % self.steps_per_epoch == 0

    @property
    def epoch_seconds(self) -> float | None:
        """As long as an epoch takes at this attempt's pace, validation and checkpoints included; None before that is known."""
        pace = self._pace()
        return pace * self.steps_per_epoch if pace is not None and self.steps_per_epoch else None

    def _pace(self) -> float | None:
        """Seconds a step, from the first to the last line about steps in this attempt."""
        if self._begun is None or self._at is None:
            return None
        (began, first), (now, last) = self._begun, self._at
        return (now - began) / (last - first) if last > first and now > began else None

    def seconds_left(self, since_last: float) -> float | None:
        """since_last: seconds since the last line. None before a pace is known."""
        pace, steps, done = self._pace(), self.steps, self.steps_done
        if pace is None or steps is None or done is None:
            return None
        return max(0.0, (steps - done) * pace - since_last)

    def value(self, name: str) -> float | None:
        """Of the last step."""
        return None if self.step is None else number(self.step.get(name))

    def epoch_value(self, name: str) -> float | None:
        return None if self.epoch is None else number(self.epoch.get(name))
