"""Reading all records of an experiment, and keeping of each what the comparison needs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from assay.comparison.model import Found
from assay.comparison.recompute import Recomputation
from assay.comparison.target import to_target
from assay.config.schema import Experiment
from assay.data.store import MANIFEST, Manifest
from assay.records import Code, Device, Environment, Measurement, Record, RecordError, canonical_json

Kind = Literal["seed", "block"]


@dataclass(frozen=True)
class Evidence:
    """What a record says about the circumstances. Texts that repeat are held once."""

    path: Path
    stage: str
    arm: str
    kind: Kind
    replicate: int
    completed: bool
    span: tuple[str, str]
    """When it started and finished."""
    spec: str
    data: str | None
    batches: str | None
    environment: Environment
    packages: str
    device: Device | None
    code: Code
    weights: str | None
    """Checksum of what a training left."""
    measured_by: str
    """The settings of a profile."""


@dataclass
class Replicate:
    """One arm at one seed, or one visit of an arm in a block."""

    arm: str
    kind: Kind
    number: int
    outcome: Found = "missing"
    message: str | None = None
    metrics: dict[str, Measurement] = field(default_factory=dict)
    other_metrics: dict[str, Measurement] = field(default_factory=dict)
    """Of the training: listed in `metrics.csv`, not judged."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a completed run has no value, by metric."""
    examples: dict[str, NDArray[Any]] = field(default_factory=dict)
    """[E], by column of the predictions: `correct` and `loss` of each test example."""

    def value(self, metric: str) -> float | None:
        """Null unless the run completed: a number of a run that failed is not a result."""
        measurement = self.metrics.get(metric) if self.outcome == "completed" else None
        return None if measurement is None else measurement.value

    def why_missing(self, metric: str) -> str:
        return self.missing.get(metric, "not measured") if self.outcome == "completed" else self.outcome


@dataclass
class Collected:
    """All records of an experiment."""

    runs: dict[tuple[str, int], Replicate]
    visits: dict[tuple[str, int], Replicate]
    evidence: list[Evidence]
    warnings: list[str]

    def replicates(self, kind: Kind) -> dict[tuple[str, int], Replicate]:
        return self.runs if kind == "seed" else self.visits


def collect(experiment: Experiment, results: Path) -> Collected:
    """Read every record that the experiment calls for; one that does not exist is `missing`.

    Raises: RecordError for a damaged record, one of another experiment, arm, seed, block or stage, or an evaluation
    whose numbers are not those of its predictions.
    """
    reader = Reader(experiment, results, results / "data")
    runs = {(arm, seed): reader.run(arm, seed) for arm in experiment.arms for seed in experiment.seeds}
    visits = {}
    if experiment.profile.enabled:
        visits = {
            (arm, block): reader.visit(arm, block)
            for block in range(experiment.profile.blocks)
            for arm in experiment.arms
        }
    warnings = [f"{count} records: {text}" if count > 1 else text for text, count in reader.warnings.items()]
    return Collected(runs, visits, reader.evidence, [*_of_data(results / "data" / MANIFEST), *warnings])


def _of_data(manifest: Path) -> list[str]:
    """What was odd about the data when they were prepared; nothing where records alone are at hand."""
    return [f"data: {text}" for text in Manifest.read(manifest).warnings] if manifest.exists() else []


class Reader:
    """Of one folder of runs and blocks; keeps what the records say."""

    def __init__(self, experiment: Experiment, results: Path, data: Path) -> None:
        self._experiment = experiment.name
        self._target = experiment.comparison.target_accuracy
        self._results = results
        self._recomputation = Recomputation(data)
        self._texts: dict[str, str] = {}
        self.evidence: list[Evidence] = []
        self.warnings: dict[str, int] = {}

    def run(self, arm: str, seed: int) -> Replicate:
        folder = self._results / "runs" / arm / f"seed-{seed}"
        train = self._read(folder / "train" / "record.json", "train", arm, "seed", seed)
        evaluate = self._read(folder / "evaluate" / "record.json", "evaluate", arm, "seed", seed)
        run = Replicate(arm, "seed", seed)
        last = evaluate or train
        if last is not None:
            run.outcome, run.message = last.outcome, last.message
        if evaluate is None and run.outcome == "completed":
            run.outcome, run.message = "missing", "trained and not evaluated"
        if train is not None:
            run.other_metrics = train.metrics
            if train.outcome != "completed":
                run.outcome, run.message = train.outcome, train.message
        if evaluate is not None:
            if evaluate.outcome == "completed":
                table = self._recomputation.check(folder / "evaluate" / "record.json", evaluate, train)
                run.examples = {"correct": table.correct, "loss": table.losses}
            run.metrics = evaluate.metrics
        if train is not None and self._target is not None:
            found, run.missing = to_target(train, self._target)
            run.metrics = run.metrics | found
        return run

    def trial(self, path: Path, arm: str, seed: int) -> bool:
        """Keep what one training of a sweep says; false where there is none."""
        return self._read(path, "train", arm, "seed", seed) is not None

    def visit(self, arm: str, block: int) -> Replicate:
        path = self._results / "profile" / f"block-{block}" / arm / "record.json"
        record = self._read(path, "profile", arm, "block", block)
        if record is None:
            return Replicate(arm, "block", block)
        return Replicate(arm, "block", block, record.outcome, record.message, record.metrics)

    def _read(self, path: Path, stage: str, arm: str, kind: Kind, number: int) -> Record | None:
        if not path.exists():
            return None
        record = Record.read(path)
        expected = {"experiment": self._experiment, "stage": stage, "arm": arm, kind: number}
        for key, value in expected.items():
            if (found := getattr(record, key)) != value:
                raise RecordError(
                    f"{path}: {key}: is {found!r}, and {value!r} belongs here; remove it and run the experiment again"
                )
        for text in record.warnings:
            line = f"{stage} of {arm}: {text}"
            self.warnings[line] = self.warnings.get(line, 0) + 1
        self.evidence.append(
            Evidence(
                path=path.relative_to(self._results),
                stage=stage,
                arm=arm,
                kind=kind,
                replicate=number,
                completed=record.outcome == "completed",
                span=(record.started, record.finished),
                spec=self._once(record.spec),
                data=record.data_sha256,
                batches=record.batches_sha256,
                environment=record.environment.model_copy(update={"packages": {}}),
                packages=self._once(record.environment.packages),
                device=record.environment.device,
                code=record.code,
                weights=record.weights_sha256,
                measured_by=self._once(record.details.get("profile")),
            )
        )
        return record

    def _once(self, value: Any) -> str:
        text = canonical_json(value)
        return self._texts.setdefault(text, text)


def measurements(collected: Collected) -> Iterator[tuple[str, Kind, int, str, Measurement]]:
    """Every number that was recorded: arm, kind and number of the replicate, metric, measurement."""
    for replicate in (*collected.runs.values(), *collected.visits.values()):
        for metric, measurement in (*replicate.metrics.items(), *replicate.other_metrics.items()):
            yield replicate.arm, replicate.kind, replicate.number, metric, measurement
