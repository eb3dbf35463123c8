"""Reading all records of an experiment, and keeping of each what the comparison needs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from pydantic import ValidationError

from assay.comparison.model import Found
from assay.comparison.recompute import Recomputation
from assay.comparison.target import to_target
from assay.config.schema import Experiment
from assay.data.store import MANIFEST, Manifest
from assay.records import (
    Code,
    Device,
    Environment,
    Measurement,
    Outcome,
    Record,
    RecordError,
    Telemetry,
    canonical_json,
)

Kind = Literal["seed", "block"]
_LATE = 0.1
"""Share of samples that came late from which telemetry has gaps."""


@dataclass(frozen=True)
class Evidence:
    """What a record says about the circumstances. Texts that repeat are held once."""

    path: Path
    stage: str
    arm: str
    kind: Kind
    replicate: int
    outcome: Outcome
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
    """The settings of a profile; empty: the record does not say."""
    resumed: bool
    devices: str
    """How many computed together, and which where they are several."""
    watched: str | None
    """Whether telemetry was taken; None: the record does not say."""
    gaps: str | None
    """What telemetry missed; None: there is none."""
    order: str | None
    """Of the visits in a block."""
    gates: str | None
    """What a block was judged by; None: nothing."""
    tripped: str | None
    """Gates that the block did not pass."""


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
        try:
            self.evidence.append(self._evidence(record, path, stage, arm, kind, number))
        except (ValidationError, KeyError, TypeError, AttributeError) as error:
            raise RecordError(
                f"{path}: details: not what this stage writes ({type(error).__name__}); remove it and run the experiment again"
            ) from None
        return record

    def _evidence(
        self, record: Record, path: Path, stage: str, arm: str, kind: Kind, number: int
    ) -> Evidence:
        return Evidence(
            path=path.relative_to(self._results),
            stage=stage,
            arm=arm,
            kind=kind,
            replicate=number,
            outcome=record.outcome,
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
            measured_by=self._once(record.details["profile"]) if "profile" in record.details else "",
            resumed=record.resumed,
            devices=_devices(record),
            watched=_watched(record),
            gaps=_gaps(record),
            order=_order(record),
            gates=_gates(record),
            tripped=_tripped(record),
        )

    def _once(self, value: Any) -> str:
        text = canonical_json(value)
        return self._texts.setdefault(text, text)


# --- circumstances of one record ------------------------------------------------------------------------


def _devices(record: Record) -> str:
    ranks = record.details.get("ranks") or []
    names = sorted((rank.get("device") or {}).get("name", "unknown") for rank in ranks)
    return f"{len(names)}: {', '.join(names)}" if names else "1"


def _telemetry(record: Record) -> list[Telemetry | None]:
    """Of a run, or of each visit of an arm in a block; empty where the record does not say."""
    if record.stage != "profile":
        return [record.telemetry]
    told = [visit["telemetry"] for visit in record.details.get("visits") or [] if "telemetry" in visit]
    return [None if one is None else Telemetry.model_validate(one) for one in told]


def _watched(record: Record) -> str | None:
    found = _telemetry(record)
    if not found:
        return None
    return "watched" if all(one is not None and one.samples for one in found) else "not watched"


def _gaps(record: Record) -> str | None:
    found = [one for one in _telemetry(record) if one is not None and one.samples]
    if not found:
        return None
    late = any(one.late > _LATE * one.samples for one in found)
    lost = any(gpu.lost for one in found for gpu in one.gpus)
    seen = [f"more than {_LATE:.0%} of samples late"] * late + ["a GPU stopped to answer"] * lost
    return ", ".join(seen) or "no gaps"


def _order(record: Record) -> str | None:
    order = record.details.get("order")
    return None if order is None else canonical_json(order)


def _gates(record: Record) -> str | None:
    gates = record.details.get("gates")
    return ", ".join(gate["name"] for gate in gates if gate["status"] != "not measured") if gates else None


def _tripped(record: Record) -> str | None:
    gates = record.details.get("gates") or []
    return ", ".join(gate["name"] for gate in gates if gate["status"] == "tripped") or None


def measurements(collected: Collected) -> Iterator[tuple[str, Kind, int, str, Measurement]]:
    """Every number that was recorded: arm, kind and number of the replicate, metric, measurement."""
    for replicate in (*collected.runs.values(), *collected.visits.values()):
        for metric, measurement in (*replicate.metrics.items(), *replicate.other_metrics.items()):
            yield replicate.arm, replicate.kind, replicate.number, metric, measurement
