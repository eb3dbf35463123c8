"""The state of a whole experiment, look by look."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import ValidationError

from assay.clock import now
from assay.config.arm import NAME_PATTERN
from assay.config.resolve import spec_sha256
from assay.config.schema import Experiment
from assay.config.trials import swept_arms
from assay.monitoring.block import BlockFiles
from assay.monitoring.extras import NoiseFiles, SweepFiles, TraceFiles
from assay.monitoring.files import Moment, Signature, signature, stat_of
from assay.monitoring.job import LEAST_SILENCE
from assay.monitoring.run import RunFiles
from assay.monitoring.samples import Samples
from assay.monitoring.state import Block, Gpu, Host, Phase, Run, Session, Snapshot, State, states_of
from assay.monitoring.time_left import profile_left, training_left, with_time_left

_HOLDER = re.compile(r"(\d+) on (\S+)")
_RESULTS = {
    "health": "health/record.json",
    "data": "data/manifest.json",
    "compare": "comparison/comparison.json",
    "report": "report/index.html",
}


class Watcher:
    """Reads an experiment again and again; each look costs what has changed since the one before.

    Args:
        folder: `results/EXPERIMENT`, which need not exist yet.
        experiment: as its file says, until `experiment.yaml` in the folder says it as it was begun.
        planned: when that file was written, seconds since 1970; an older `experiment.yaml` does not count, unless a
            workflow is at work.
        least_silence: seconds without a line below which no run counts as stalled or killed.
    """

    def __init__(
        self,
        folder: Path,
        experiment: Experiment | None = None,
        planned: float = 0.0,
        least_silence: float = LEAST_SILENCE,
    ) -> None:
        self.folder = folder
        self._given, self._planned = experiment, planned
        self.least_silence = least_silence
        self._experiment = experiment
        self._specs: dict[str, str] = {}
        self._resolved: Signature | None = None
        self._runs: dict[tuple[str, int], RunFiles] = {}
        self._blocks: dict[int, BlockFiles] = {}
        self._traces: list[TraceFiles] = []
        self._noise: NoiseFiles | None = None
        self._sweeps: list[SweepFiles] = []
        self._warning: str | None = None
        self._headline: tuple[Signature, str | None] | None = None
        self._adopt(experiment)

    def look(self, moment: Moment | None = None) -> Snapshot:
        """moment: now, unless a test says otherwise."""
        moment = moment or Moment(time.time(), time.monotonic())
        session = self._session()
        self._read_experiment(session)
        self._find()
        runs, second = self._look_at_runs(moment)
        blocks = tuple(
            self._blocks[number].look(moment, self.least_silence) for number in sorted(self._blocks)
        )
        traces = tuple(files.look(moment, self.least_silence) for files in self._traces)
        noise = None if self._noise is None or second is None else self._noise.told(*second)
        sweeps = tuple(files.look(moment, self.least_silence) for files in self._sweeps)
        stages = self._stages()
        gpus, hosts = self._machines(moment)
        experiment = self._experiment
        return Snapshot(
            experiment=self.folder.name if experiment is None else experiment.name,
            folder=str(self.folder),
            taken=now(),
            phase=self._phase(states_of(runs, blocks, traces, noise, sweeps), stages, session),
            question="" if experiment is None else experiment.question,
            planned=experiment is not None,
            session=session,
            stages=stages,
            runs=runs,
            blocks=blocks,
            gpus=gpus,
            hosts=hosts,
            traces=traces,
            noise=noise,
            sweeps=sweeps,
            training_seconds_left=training_left([*runs, *(second[0] if second else ())]),
            profile_seconds_left=_sum(profile_left(blocks), profile_left(second[1] if second else ())),
            headline=self._read_headline() if stages["compare"] == "completed" else None,
            warnings=() if self._warning is None else (self._warning,),
        )

    def _read_experiment(self, session: Session | None) -> None:
        """Which runs there are to be; what was begun with another number of seeds says so in the folder.

        A file that was edited while a workflow runs is for the next one.
        """
        path = self.folder / "experiment.yaml"
        stat = stat_of(path)
        at_work = session is not None and session.alive is True
        if stat is None or (stat.st_mtime < self._planned and not at_work):
            if self._resolved is not None:
                self._resolved = None
                self._adopt(self._given)
            return
        if signature(stat) == self._resolved:
            return
        self._resolved, self._warning = signature(stat), None
        try:
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            self._adopt(Experiment.model_validate(yaml.load(path.read_text(encoding="utf-8"), Loader=loader)))
        except FileNotFoundError:
            self._resolved = None
        except (OSError, yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
            self._warning = (
                f"{path}: cannot be read ({type(error).__name__}): runs that have not begun are not known"
            )
            self._adopt(self._given)

    def _adopt(self, experiment: Experiment | None) -> None:
        self._experiment = experiment
        self._specs = (
            {} if experiment is None else {name: spec_sha256(arm) for name, arm in experiment.arms.items()}
        )
        self._blocks.clear()
        self._traces, self._noise, self._sweeps = [], None, []
        if experiment is not None:
            self._noise = NoiseFiles(self.folder, experiment)
            traced = experiment.profile.enabled and experiment.profile.traces
            self._sweeps = [SweepFiles(self.folder, experiment, arm) for arm in swept_arms(experiment)]
            self._traces = [TraceFiles(self.folder / "trace" / arm, arm) for arm in experiment.arms if traced]
            wanted = [(arm, seed) for arm in experiment.arms for seed in experiment.seeds]
            self._runs = {key: self._runs.get(key) or self._run_files(*key) for key in wanted}
            blocks = range(experiment.profile.blocks) if experiment.profile.enabled else ()
            self._blocks = {number: self._block_files(number, list(experiment.arms)) for number in blocks}
        for (arm, _), files in self._runs.items():
            files.spec_sha256 = self._specs.get(arm)

    def _find(self) -> None:
        """Where nobody says which runs there are to be: those that have begun."""
        if self._experiment is not None:
            return
        for folder in _folders(self.folder / "runs"):
            for below in _folders(folder):
                seed = below.name.removeprefix("seed-")
                if re.match(NAME_PATTERN, folder.name) and seed.isdigit() and below.name != seed:
                    key = (folder.name, int(seed))
                    self._runs.setdefault(key, self._run_files(*key))
        for folder in _folders(self.folder / "profile"):
            number = folder.name.removeprefix("block-")
            arms = [one.name for one in _folders(folder) if re.match(NAME_PATTERN, one.name)]
            known = self._blocks.get(int(number)) if number.isdigit() else None
            if number.isdigit() and (known is None or known.arms != tuple(arms)):
                self._blocks[int(number)] = self._block_files(int(number), arms)

    def _run_files(self, arm: str, seed: int) -> RunFiles:
        return RunFiles(self.folder / "runs" / arm / f"seed-{seed}", arm, seed)

    def _block_files(self, number: int, arms: list[str]) -> BlockFiles:
        return BlockFiles(self.folder / "profile" / f"block-{number}", number, arms)

    def _look_at_runs(
        self, moment: Moment
    ) -> tuple[tuple[Run, ...], tuple[tuple[Run, ...], tuple[Block, ...]] | None]:
        """Those of the experiment in its order, each knowing how long others of its arm fall silent; and, of the noise
        floor, the second runs and the blocks."""
        rhythms: dict[str, float] = {}
        for (arm, _), files in self._runs.items():
            if files.log.epoch is not None and files.log.longest_gap is not None:
                rhythms[arm] = max(rhythms.get(arm, 0.0), files.log.longest_gap)
        found = [
            files.look(moment, self.least_silence, rhythms.get(arm)) for (arm, _), files in self._runs.items()
        ]
        if self._noise is None or not self._noise.counts:
            return tuple(with_time_left(found)), None
        again, blocks = self._noise.look(moment, self.least_silence, rhythms.get(self._noise.arm))
        timed = with_time_left([*found, *again])
        return tuple(timed[: len(found)]), (tuple(timed[len(found) :]), blocks)

    def _stages(self) -> dict[str, State]:
        """What was made before the last of the records does not count: it is made anew."""
        found: dict[str, State] = {}
        records = [files.records_modified for files in self._runs.values()]
        records += [files.records_modified for files in self._blocks.values()]
        if self._noise is not None and self._noise.asked:
            records += self._noise.records_modified
        known = [modified for modified in records if modified is not None]
        newest = max(known, default=0.0) if known and len(known) == len(records) else float("inf")
        for stage, path in (_RESULTS | {"archive": f"archive/{self.folder.name}.crate.zip"}).items():
            stat = stat_of(self.folder / path)
            last = stage in ("compare", "report", "archive")
            current = stat is not None and (not last or stat.st_mtime >= newest)
            found[stage] = "completed" if current else "waiting"
            if last and stat is not None:
                newest = max(newest, stat.st_mtime)
            elif last:
                newest = float("inf")
        return found

    def _session(self) -> Session | None:
        try:
            holder = _HOLDER.match((self.folder / ".lock").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return None
        if holder is None:
            return None
        pid, host = int(holder[1]), holder[2]
        return Session(pid, host, _alive(pid) if host == os.uname().nodename else None)

    def _phase(self, states: set[State], stages: dict[str, State], session: Session | None) -> Phase:
        """states: of all that is watched."""
        if stages["report"] == "completed":
            return "finished"
        if states & {"running", "stalled"}:
            return "running"
        if session is not None and session.alive is False:
            return "ended"
        begun = session is not None or states - {"waiting"} or "completed" in stages.values()
        return "running" if begun else "not begun"

    def _machines(self, moment: Moment) -> tuple[tuple[Gpu, ...], tuple[Host, ...]]:
        """The newest sample of every GPU and of every machine."""
        gpus: dict[str, Gpu] = {}
        hosts: dict[str, Host] = {}
        for samples, host, user in self.samplers():
            for gpu in samples.gpus(moment, host=host, **user):
                known = gpus.get(gpu.uuid)
                if known is None or _rank(gpu) > _rank(known):
                    gpus[gpu.uuid] = gpu
            found = samples.host(moment, host) if host is not None else None
            if found is not None and (found.host not in hosts or _rank(found) > _rank(hosts[found.host])):
                hosts[found.host] = found
        return tuple(gpus[uuid] for uuid in sorted(gpus)), tuple(hosts[name] for name in sorted(hosts))

    def samplers(self) -> Iterator[tuple[Samples, str | None, dict[str, object]]]:
        """Those that have sampled, as of the last look: its machine, and whose samples they are, as in `Gpu`."""
        yield from self._own_samplers()
        yield from self._noise_samplers()
        for trial in (trial for sweep in self._sweeps for trial in sweep.trials):
            for run in trial.parts:
                if run.samples.timestamp is not None:
                    user = {"user": trial.name, "stage": "train", "arm": run.arm, "seed": run.seed}
                    yield run.samples, run.job.host, user

    def _own_samplers(self) -> Iterator[tuple[Samples, str | None, dict[str, object]]]:
        """Of the experiment's runs and blocks."""
        for (arm, seed), run in self._runs.items():
            if run.samples.timestamp is not None:
                user = {"user": f"{arm} seed {seed}", "stage": "train", "arm": arm, "seed": seed}
                yield run.samples, run.job.host, user
        for number, block in self._blocks.items():
            for arm, samples in block.samples.items():
                if samples.timestamp is not None:
                    user = {"user": f"block {number}: {arm}", "stage": "profile", "arm": arm, "seed": None}
                    yield samples, block.job.host, user

    def _noise_samplers(self) -> Iterator[tuple[Samples, str | None, dict[str, object]]]:
        """Those of the second runs and of the blocks beside them."""
        if self._noise is None:
            return
        again = self._noise.again
        for run in self._noise.runs:
            if run.samples.timestamp is not None:
                user = {"user": f"{again} seed {run.seed}", "stage": "train", "arm": again, "seed": run.seed}
                yield run.samples, run.job.host, user
        for block in self._noise.blocks:
            for arm, samples in block.samples.items():
                if samples.timestamp is not None:
                    name = f"noise block {block.number}: {arm}"
                    user = {"user": name, "stage": "profile", "arm": arm, "seed": None}
                    yield samples, block.job.host, user

    def _read_headline(self) -> str | None:
        path = self.folder / "comparison" / "comparison.json"
        stat = stat_of(path)
        if stat is None:
            return None
        if self._headline is None or self._headline[0] != signature(stat):
            self._headline = (signature(stat), _headline(path))
        return self._headline[1]


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _headline(path: Path) -> str | None:
    from assay.comparison.model import Comparison

    with contextlib.suppress(ValueError, OSError):
        return Comparison.read(path).headline
    return None


def _rank(one: Gpu | Host) -> tuple[bool, str]:
    return one.live, one.timestamp


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if one.is_dir())
    except OSError:
        return []


def _alive(pid: int) -> bool | None:
    """Whether a Snakemake process of this number runs here: numbers are given out again. None: this system does not tell."""
    if not Path("/proc/self").exists():
        return None
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return b"snakemake" in command
