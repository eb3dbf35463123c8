"""What an experiment runs beside its runs and blocks: kernel traces, the noise floor's second runs, trials of a sweep."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from assay.config.repeated import repeated, second_self
from assay.config.resolve import spec_sha256
from assay.config.schema import Experiment
from assay.config.sweep import FOLDER as SWEEP
from assay.config.sweep import SELECTED
from assay.config.trials import trial_count
from assay.monitoring.block import BlockFiles
from assay.monitoring.files import Moment, stat_of
from assay.monitoring.job import Job, silence
from assay.monitoring.run import RecordFile, RunFiles
from assay.monitoring.state import Block, Noise, Run, State, Sweep, Trace
from assay.monitoring.wording import span

FOLDER, FLOOR = "noise", "floor.json"


class TraceFiles:
    """Reads the trace of one arm."""

    def __init__(self, folder: Path, arm: str) -> None:
        self._arm = arm
        self._record, self._job = RecordFile(folder / "record.json"), Job(folder)

    def look(self, moment: Moment, least_silence: float) -> Trace:
        self._record.look()
        kept = self._record.record
        if kept is not None:
            run = kept.run
            return Trace(self._arm, state=run.state, why=run.why, host=run.host, last_event=run.last_event)
        self._job.look(moment)
        state, why = self._state(moment, least_silence)
        host = None if state == "waiting" else self._job.host
        return Trace(self._arm, state=state, why=why, host=host)

    def _state(self, moment: Moment, least_silence: float) -> tuple[State, str | None]:
        if (ending := self._job.ending()) is not None:
            return ending
        if self._job.attempt is None:
            return "waiting", None
        alive = silence([self._job.pulse], moment)
        if alive is not None and alive > self._job.longest_silence(least_silence):
            return "killed", f"no sign of life for {span(alive)}"
        return "running", None


class NoiseFiles:
    """Reads the second runs of the arm that is measured twice, and the blocks of the two."""

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        twice = repeated(experiment)
        self.arm, self.again = second_self(experiment)
        self.asked = experiment.noise.enabled
        self._folder = folder / FOLDER
        self.runs = [
            RunFiles(self._folder / "runs" / self.again / f"seed-{seed}", self.arm, seed)
            for seed in twice.seeds
        ]
        for files in self.runs:
            files.spec_sha256 = spec_sha256(experiment.arms[self.arm])
        numbers = range(twice.profile.blocks) if twice.profile.enabled else ()
        self.blocks = [
            BlockFiles(self._folder / "profile" / f"block-{number}", number, list(twice.arms))
            for number in numbers
        ]

    @property
    def counts(self) -> bool:
        """Whether the experiment asks for it, or `assay noise` has begun it."""
        return self.asked or self._folder.is_dir()

    def look(
        self, moment: Moment, least_silence: float, rhythm: float | None
    ) -> tuple[tuple[Run, ...], tuple[Block, ...]]:
        """The runs under the name of the arm itself, by whose pace their time is told."""
        runs = tuple(files.look(moment, least_silence, rhythm) for files in self.runs)
        return runs, tuple(files.look(moment, least_silence) for files in self.blocks)

    @property
    def records_modified(self) -> list[float | None]:
        files: Sequence[RunFiles | BlockFiles] = [*self.runs, *self.blocks]
        return [one.records_modified for one in files]

    def told(self, runs: Iterable[Run], blocks: tuple[Block, ...]) -> Noise:
        """runs, blocks: as of `look`; the runs get the name that their arm has the second time."""
        named = tuple(dataclasses.replace(run, arm=self.again) for run in runs)
        return Noise(self.arm, self._floor(), named, blocks)

    def _floor(self) -> State:
        """What was found before the last of its records does not count."""
        stat, records = stat_of(self._folder / FLOOR), self.records_modified
        known = [modified for modified in records if modified is not None]
        current = stat is not None and len(known) == len(records) and stat.st_mtime >= max(known, default=0.0)
        return "completed" if current else "waiting"


class TrialFiles:
    """Reads one trial at one seed: a training up to each comparison with others, and one to the end.

    arm: as it is told by others. rungs: how many comparisons there are.
    """

    def __init__(self, folder: Path, arm: str, trial: int, seed: int, rungs: int) -> None:
        self._folder, self._waiting = folder, Run(arm, seed, trial=trial)
        parts = [*(f"rung-{rung}" for rung in range(rungs)), "train"]
        self.parts = [RunFiles(folder, arm, seed, part=part, evaluated=False) for part in parts]

    @property
    def name(self) -> str:
        return self._waiting.name

    def look(self, moment: Moment, least_silence: float) -> Run:
        if stat_of(self._folder) is None:
            return self._waiting
        last = self.parts[-1]
        for files in reversed(self.parts):
            run = files.look(moment, least_silence)
            if run.state == "waiting":
                continue
            if run.state in ("completed", "pruned") and files is not last:
                run = dataclasses.replace(run, state="waiting", why="to be compared with other trials")
            return dataclasses.replace(run, trial=self._waiting.trial)
        return self._waiting


class SweepFiles:
    """Reads the trials of one arm."""

    def __init__(self, folder: Path, experiment: Experiment, arm: str) -> None:
        sweep = experiment.sweep
        assert sweep is not None
        self._arm, self._folder = arm, folder / SWEEP / arm
        rungs = 0 if sweep.prune is None else len(sweep.prune.after)
        self.trials = [
            TrialFiles(self._folder / f"trial-{trial}" / f"seed-{seed}", arm, trial, seed, rungs)
            for trial in range(trial_count(sweep, arm))
            for seed in sweep.seeds
        ]

    def look(self, moment: Moment, least_silence: float) -> Sweep:
        """A selection stands until Snakemake removes it, to select anew."""
        selected: State = "completed" if stat_of(self._folder / SELECTED) else "waiting"
        return Sweep(self._arm, selected, tuple(files.look(moment, least_silence) for files in self.trials))
