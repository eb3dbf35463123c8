"""The state of one run, from the files that its jobs write."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from assay.monitoring.files import Moment, Signature, number, seconds_of, signature, stat_of
from assay.monitoring.job import LEAST_SILENCE, Job, silence
from assay.monitoring.samples import Samples
from assay.monitoring.state import Run, State
from assay.monitoring.training_log import TrainingLog
from assay.monitoring.wording import span
from assay.records import Record, RecordError

GAPS = 3.0
"""A run is stalled when it has been silent for so many times its longest silence so far."""
STARTS = 10.0
"""It may be silent for so many times the least silence before its first step and after its last: it compiles, loads, writes."""
RECHECK_SECONDS = 10.0
"""Between two looks at a run that has ended."""


@dataclass(frozen=True)
class Kept:
    """What a record says, as far as it is shown."""

    spec_sha256: str | None
    weights_sha256: str | None
    modified: float
    run: Run


class RecordFile:
    """A record, read anew where it changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: Signature | None = None
        self.record: Kept | None = None
        self.damage: str | None = None

    def look(self) -> None:
        stat = stat_of(self.path)
        if stat is None:
            self._seen = self.record = self.damage = None
        elif signature(stat) != self._seen:
            self._seen, self.record, self.damage = signature(stat), None, None
            try:
                record = Record.read(self.path)
                self.record = Kept(record.spec_sha256, record.weights_sha256, stat.st_mtime, _shown(record))
            except (RecordError, OSError) as error:
                self.damage = str(error)


def _shown(record: Record) -> Run:
    """What is to be told of a run whose training or evaluation has ended."""

    def metric(name: str) -> float | None:
        return record.metrics[name].value if name in record.metrics else None

    history = record.details.get("history") or [{}]
    epochs, steps = record.details.get("epochs"), record.details.get("steps_per_epoch")
    through = record.outcome == "completed" and not record.resumed
    began, ended = seconds_of(record.started), seconds_of(record.finished)
    return Run(
        arm=record.arm or "",
        seed=record.seed or 0,
        state=record.outcome,
        why=record.message,
        host=record.environment.host,
        attempt=record.attempts,
        resumed=record.resumed,
        epoch=epochs,
        epochs=record.spec.get("training", {}).get("epochs"),
        step=epochs * steps if epochs and steps else None,
        steps=steps,
        loss=number(history[-1].get("train_loss")),
        accuracy=number(history[-1].get("train_accuracy")),
        validation_loss=metric("validation_loss"),
        validation_accuracy=metric("validation_accuracy"),
        test_accuracy=metric("accuracy"),
        throughput=metric("train_samples_per_second"),
        last_event=record.finished,
        seconds=ended - began if through and began is not None and ended is not None else None,
    )


def _of_all_steps(run: Run) -> Run:
    """A record tells the steps of an epoch."""
    return replace(run, steps=run.steps * run.epochs if run.steps and run.epochs else None)


class RunFiles:
    """Reads one run.

    part: folder of its training. evaluated: whether it is over with its evaluation, and not with its training.
    """

    def __init__(
        self, folder: Path, arm: str, seed: int, *, part: str = "train", evaluated: bool = True
    ) -> None:
        self.folder, self.arm, self.seed = folder, arm, seed
        self.train, self.evaluate = folder / part, folder / "evaluate"
        self._to_be_evaluated = evaluated
        self.trained = RecordFile(self.train / "record.json")
        self.evaluated = RecordFile(self.evaluate / "record.json")
        self.job, self.evaluation = Job(self.train), Job(self.evaluate)
        self.log = TrainingLog(self.train / "log.jsonl")
        self.samples = Samples(self.train / "telemetry.jsonl")
        self.spec_sha256: str | None = None
        """Of the arm as it is now; a record of another one is about to be made anew. None: not known."""
        self._run: Run | None = None
        self._spec: str | None = None
        self._again = 0.0

    def look(self, moment: Moment, least_silence: float = LEAST_SILENCE, rhythm: float | None = None) -> Run:
        """rhythm: the longest silence of other runs of its arm, where they have validated and this one has not."""
        resting = self._run is not None and self._spec == self.spec_sha256 and moment.monotonic < self._again
        if self._run is not None and resting:
            return self._run
        self.trained.look()
        self.evaluated.look()
        trained, evaluated = self._current(self.trained), self._current(self.evaluated)
        if trained and evaluated and evaluated.weights_sha256 != trained.weights_sha256:
            evaluated = None  # of weights that were trained before
        if trained is None:
            run = self._training(moment, least_silence, rhythm)
        elif self._to_be_evaluated:
            run = self._evaluation(_of_all_steps(trained.run), evaluated, moment, least_silence)
        else:
            run = _of_all_steps(trained.run)
        run = replace(run, arm=self.arm, seed=self.seed)
        over = trained is not None and (evaluated is not None or not self._to_be_evaluated)
        self._run = run if over else None
        self._spec, self._again = self.spec_sha256, moment.monotonic + RECHECK_SECONDS
        return run

    def _current(self, file: RecordFile) -> Kept | None:
        kept = file.record
        other = kept is not None and self.spec_sha256 is not None and kept.spec_sha256 != self.spec_sha256
        return None if other else kept

    @property
    def records_modified(self) -> float | None:
        """When the last of its records was written; None where one is missing."""
        if self.trained.record is None or self.evaluated.record is None:
            return None
        return max(self.trained.record.modified, self.evaluated.record.modified)

    def _training(self, moment: Moment, least_silence: float, rhythm: float | None) -> Run:
        self.job.look(moment)
        self.log.look(moment)
        self.samples.look(moment)
        state, why = self._state(moment, least_silence, rhythm)
        if self.trained.damage is not None and state == "waiting":
            state, why = "failed", self.trained.damage
        if state == "waiting":
            return Run(self.arm, self.seed, why=why)
        return self._from_log(state, why, moment)

    def _state(self, moment: Moment, least_silence: float, rhythm: float | None) -> tuple[State, str | None]:
        if self.trained.record is not None:  # of other settings: its log is of those too, until a job begins
            return "waiting", "its record is of other settings"
        if (ending := self.job.ending()) is not None:
            state, why = ending
            return state, self._failure() or why if state == "failed" else why
        if self.job.attempt is None and self.log.last is None:
            return "waiting", None
        signs = [self.job.pulse, self.samples.pulse] if not self.samples.ended else [self.job.pulse]
        alive = silence([*signs, self.log.pulse], moment)
        sure = self.job.attempt is not None or self.samples.timestamp is not None
        over = self._sampler_saw_its_end()
        if over and self.job.attempt is None:
            return "killed", "its process is gone and left no record"
        if sure and alive is not None and alive > self.job.longest_silence(least_silence, over=over):
            return "killed", f"no sign of life for {span(alive)}"
        quiet = self._quiet(moment)
        if quiet > self._patience(least_silence, rhythm):
            return "stalled", f"no line for {span(quiet)}: {self._activity(sure)}"
        return "running", self._remark()

    def _quiet(self, moment: Moment) -> float:
        """Seconds since the last line of this attempt, or since the attempt began; 0 where that is not certain yet."""
        quiet, started = silence([self.log.pulse], moment), self.job.started
        if not self.job.goes_on or started is None:
            return quiet or 0.0
        begun = max(0.0, moment.wall - started)
        return begun if quiet is None else min(quiet, begun)

    def _patience(self, least_silence: float, rhythm: float | None) -> float:
        """For how many seconds it may be silent."""
        log = self.log
        if log.finished is not None or log.longest_gap is None or not self._of_this_attempt(log.timestamp):
            return STARTS * least_silence
        longest = max(log.longest_gap, rhythm or 0.0)
        if log.validating and log.epoch_value("epoch") is None:
            longest = max(longest, log.epoch_seconds or STARTS * least_silence)
        return max(least_silence, GAPS * longest)

    def _sampler_saw_its_end(self) -> bool:
        """The sampler, which outlives its job by a moment, told that the job is over, and the log does not."""
        return (
            self.samples.ended and self.log.finished is None and self._of_this_attempt(self.samples.timestamp)
        )

    def _of_this_attempt(self, timestamp: str | None) -> bool:
        """A job that has begun and written nothing yet still has the files of the one before."""
        told = None if timestamp is None else seconds_of(timestamp)
        return self.job.started is None or (told is not None and told >= self.job.started)

    def _activity(self, sure: bool) -> str:
        if not sure:
            return "nothing tells whether it lives"
        if self.samples.lost:
            return f"its process lives, the GPU {self.samples.lost} is lost"
        told = []
        if self.samples.cpu_share is not None:
            told.append(f"CPU {self.samples.cpu_share:.0%}")
        if self.samples.utilization is not None:
            told.append(f"GPU {self.samples.utilization:.0f}%")
        return "its process lives" + (f", {', '.join(told)}" if told else "")

    def _remark(self) -> str | None:
        return f"GPU {self.samples.lost} is lost" if self.samples.lost else None

    def _failure(self) -> str | None:
        with contextlib.suppress(RecordError, OSError):
            return Record.read(self.train / "failure.json").message
        return None

    def _from_log(self, state: State, why: str | None, moment: Moment) -> Run:
        log = self.log
        silent = log.pulse.age(moment)
        silent = self.job.pulse.age(moment) if silent is None else silent
        goes_on = state == "running" and log.finished is None
        return Run(
            self.arm,
            self.seed,
            state=state,
            why=why,
            host=self.job.host,
            attempt=log.attempt or (self.job.attempt.attempt if self.job.attempt else None),
            resumed=None if log.last is None else log.resumed,
            epoch=log.epochs_done,
            epochs=log.epochs,
            step=log.steps_done,
            steps=log.steps,
            loss=log.value("loss"),
            accuracy=log.value("accuracy"),
            validation_loss=log.epoch_value("validation_loss"),
            validation_accuracy=log.epoch_value("validation_accuracy"),
            throughput=log.value("throughput_samples_per_sec"),
            gpu_memory_mb=log.value("gpu_memory_mb"),
            last_event=log.timestamp,
            silent_s=silent,
            seconds_left=log.seconds_left(silent or 0.0) if goes_on else None,
        )

    def _evaluation(self, run: Run, evaluated: Kept | None, moment: Moment, least_silence: float) -> Run:
        """run: as its training ended."""
        stage: Literal["train", "evaluate"] = "train" if run.state != "completed" else "evaluate"
        if evaluated is not None:
            if run.state == "completed":
                run = replace(run, state=evaluated.run.state, why=evaluated.run.why)
            return replace(
                run,
                stage=stage,
                test_accuracy=evaluated.run.test_accuracy,
                last_event=evaluated.run.last_event,
            )
        if run.state != "completed":
            return run
        self.evaluation.look(moment)
        state, why = self._evaluating(moment, least_silence)
        return replace(run, stage=stage, state=state, why=why, silent_s=self.evaluation.pulse.age(moment))

    def _evaluating(self, moment: Moment, least_silence: float) -> tuple[State, str | None]:
        if self.evaluated.damage is not None:
            return "failed", self.evaluated.damage
        if (ending := self.evaluation.ending()) is not None:
            return ending
        if self.evaluation.attempt is None:
            return "waiting", None
        alive = silence([self.evaluation.pulse], moment)
        if alive is not None and alive > self.evaluation.longest_silence(least_silence):
            return "killed", f"no sign of life for {span(alive)}"
        return "running", None
