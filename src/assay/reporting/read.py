"""Reading what the stages left: the comparison and the records behind it."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from assay.comparison.floor import FILE, FOLDER, NoiseFloor
from assay.comparison.model import Comparison, Contract, Found, MetricResult
from assay.comparison.target import epoch_reaching
from assay.config.schema import Experiment
from assay.config.sweep import FOLDER as SWEEP
from assay.config.sweep import TRIALS
from assay.config.trials import swept_arms
from assay.evaluation.metrics import ClassAccuracy
from assay.records import Environment, Measurement, Record, RecordError, Telemetry
from assay.sweep.model import Trials
from assay.sweep.select import tuned
from assay.tracing.model import MODES, Mode, Traced

TRAINING_ENERGY = ("train_energy", "train_energy_per_epoch", "train_energy_per_sample")
"""What is told of a training's energy, in joules."""


class ReportError(ValueError):
    """Results from which no report can be written."""


@dataclass(frozen=True)
class Epoch:
    """One point of a learning curve; null: not measured."""

    number: float
    train_loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass(frozen=True)
class Run:
    """One arm at one seed."""

    arm: str
    seed: int
    outcome: Found
    message: str | None = None
    seconds: float | None = None
    chosen_epoch: int | None = None
    resumed: bool = False
    shared: bool = False
    """Its GPU, with other runs."""
    reached: bool | None = None
    """Whether it reached the experiment's target; null where there is none."""
    epochs: tuple[Epoch, ...] = ()
    energy: dict[str, float] = field(default_factory=dict)
    """Joules of the training's devices, in all, per epoch and per sample; without what was not measured."""
    calibration_error: float | None = None
    classes: tuple[ClassAccuracy, ...] = ()
    """Of the test split."""
    telemetry: Telemetry | None = None


@dataclass(frozen=True)
class Visit:
    """One arm in one profile block: medians by metric, e.g. `latency_ms@16`."""

    arm: str
    block: int
    outcome: Found
    message: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    telemetry: tuple[Telemetry, ...] = ()
    """Of each visit that had it."""


@dataclass(frozen=True)
class Traces:
    """Kernel traces of one arm; of one that failed, those that were taken before."""

    arm: str
    outcome: Found
    message: str | None = None
    modes: dict[Mode, Traced] = field(default_factory=dict)


@dataclass
class Surroundings:
    """Distinct circumstances over all records, with how many records each."""

    records: int = 0
    facts: dict[str, Counter[str]] = field(default_factory=dict)
    packages: dict[str, Counter[str]] = field(default_factory=dict)
    on_host: int = 0
    last_finished: str = ""
    devices: set[str] = field(default_factory=set)
    data: set[str] = field(default_factory=set)
    """SHA-256 of the data's manifests."""
    images: set[tuple[tuple[str, str], ...]] = field(default_factory=set)

    def add(self, record: Record) -> None:
        environment = record.environment
        self.records += 1
        self.on_host += environment.image is None
        self.last_finished = max(self.last_finished, record.finished)
        if environment.device is not None:
            self.devices.add(environment.device.type)
        if environment.image is not None:
            self.images.add(tuple(sorted(environment.image.items())))
        if record.data_sha256 is not None:
            self.data.add(record.data_sha256)
        for name, value in _facts(environment, record).items():
            if value is not None:
                self.facts.setdefault(name, Counter())[value] += 1
        for name, version in environment.packages.items():
            self.packages.setdefault(name, Counter())[version] += 1


@dataclass(frozen=True)
class Results:
    """Everything that a report is a function of."""

    folder: Path
    experiment: Experiment
    comparison: Comparison
    contract: Contract
    runs: list[Run]
    visits: list[Visit]
    surroundings: Surroundings
    traces: list[Traces] = field(default_factory=list)
    noise: NoiseFloor | None = None
    """Where the experiment asks for it."""
    sweeps: list[Trials] = field(default_factory=list)
    """Of each arm that was tuned."""

    @property
    def arms(self) -> list[str]:
        """Baseline first, then as in the experiment file."""
        baseline = self.comparison.baseline
        return [baseline, *(arm for arm in self.comparison.arms if arm != baseline)]

    @property
    def metrics(self) -> list[MetricResult]:
        """Most important first."""
        return sorted(self.comparison.metrics, key=lambda metric: metric.position)

    @property
    def headline_metric(self) -> MetricResult | None:
        return self.metrics[0] if self.comparison.metrics else None

    def run_path(self, arm: str, seed: int, *parts: str) -> Path:
        return self.folder.joinpath("runs", arm, f"seed-{seed}", *parts)


def load(folder: Path) -> Results:
    """Read the comparison and every record behind it.

    Raises: RecordError, ReportError naming the file and what is wrong with it.
    """
    comparison = Comparison.read(folder / "comparison" / "comparison.json")
    contract = _read_contract(folder / "comparison" / "contract.json")
    experiment = _read_experiment(folder / "experiment.yaml")
    surroundings = Surroundings()
    runs = [
        _read_run(
            folder / "runs" / arm / f"seed-{seed}",
            arm,
            seed,
            surroundings,
            experiment.comparison.target_accuracy,
        )
        for arm in experiment.arms
        for seed in experiment.seeds
    ]
    visits = []
    if experiment.profile.enabled:
        for block in range(experiment.profile.blocks):
            visits += [
                _read_visit(folder / "profile" / f"block-{block}" / arm, arm, block, surroundings)
                for arm in experiment.arms
            ]
    traces = []
    if experiment.profile.enabled and experiment.profile.traces:
        traces = [_read_traces(folder / "trace" / arm / "record.json", arm) for arm in experiment.arms]
    noise = NoiseFloor.read(folder / FOLDER / FILE) if experiment.noise.enabled else None
    sweeps = [Trials.read(folder / SWEEP / arm / TRIALS) for arm in swept_arms(experiment)]
    return Results(
        folder, experiment, comparison, contract, runs, visits, surroundings, traces, noise, sweeps
    )


def _read_contract(path: Path) -> Contract:
    try:
        return Contract.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file; run the experiment") from None
    except ValueError as error:
        raise RecordError(f"{path}: {error}; remove it and run the experiment again") from None


def _read_experiment(path: Path) -> Experiment:
    import yaml

    try:
        experiment = Experiment.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ReportError(f"{path}: no such file; it is written when the experiment starts") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ReportError(f"{path}: {error}; remove it and run the experiment again") from None
    return tuned(experiment, path.parent)


def _read_record(path: Path, surroundings: Surroundings) -> Record | None:
    if not path.exists():
        return None
    record = Record.read(path)
    surroundings.add(record)
    return record


def _read_run(folder: Path, arm: str, seed: int, surroundings: Surroundings, target: float | None) -> Run:
    train = _read_record(folder / "train" / "record.json", surroundings)
    evaluate = _read_record(folder / "evaluate" / "record.json", surroundings)
    if train is None:
        return Run(arm, seed, "missing")
    last = train if train.outcome != "completed" or evaluate is None else evaluate
    unread = evaluate is None and train.outcome == "completed"
    tested = {} if evaluate is None else evaluate.metrics
    chosen = train.details.get("chosen_epoch")
    return Run(
        arm=arm,
        seed=seed,
        outcome="missing" if unread else last.outcome,
        message="trained and not evaluated" if unread else last.message,
        seconds=_value(train.metrics, "train_seconds"),
        chosen_epoch=chosen if isinstance(chosen, int) else None,
        resumed=train.resumed,
        shared=train.details.get("shared") is not None,
        reached=None if target is None else epoch_reaching(train, target) is not None,
        epochs=tuple(_epochs(train)),
        energy={
            name: joules for name in TRAINING_ENERGY if (joules := _value(train.metrics, name)) is not None
        },
        calibration_error=_value(tested, "calibration_error"),
        classes=() if evaluate is None else tuple(_classes(evaluate, folder / "evaluate" / "record.json")),
        telemetry=train.telemetry,
    )


def _epochs(train: Record) -> list[Epoch]:
    history = train.details.get("history")
    if not isinstance(history, list):
        return []
    return [
        Epoch(
            number=float(line["epoch"]),
            train_loss=_number(line.get("train_loss")),
            validation_loss=_number(line.get("validation_loss")),
            validation_accuracy=_number(line.get("validation_accuracy")),
        )
        for line in history
        if isinstance(line, dict) and "epoch" in line
    ]


def _classes(evaluate: Record, path: Path) -> list[ClassAccuracy]:
    lines = evaluate.details.get("per_class") or []
    try:
        return [ClassAccuracy.model_validate(line) for line in lines]
    except (ValidationError, TypeError) as error:
        first = str(error).partition("\n")[0]
        raise RecordError(
            f"{path}: details.per_class: {first}; remove it and run the experiment again"
        ) from None


def _value(metrics: dict[str, Measurement], name: str) -> float | None:
    found = metrics.get(name)
    return None if found is None else found.value


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _read_visit(folder: Path, arm: str, block: int, surroundings: Surroundings) -> Visit:
    record = _read_record(folder / "record.json", surroundings)
    if record is None:
        return Visit(arm, block, "missing")
    metrics = {name: item.value for name, item in record.metrics.items() if item.value is not None}
    visits = record.details.get("visits") or []
    found = tuple(Telemetry.model_validate(one["telemetry"]) for one in visits if one.get("telemetry"))
    return Visit(arm, block, record.outcome, record.message, metrics, found)


def _read_traces(path: Path, arm: str) -> Traces:
    """No number of the comparison comes from a trace, so its circumstances are not among those of the records."""
    if not path.exists():
        return Traces(arm, "missing")
    record = Record.read(path)
    try:
        found: dict[Mode, Traced] = {
            mode: Traced.model_validate(told)
            for mode in MODES
            if (told := record.details.get(mode)) is not None
        }
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("details", *first["loc"]))
        raise RecordError(
            f"{path}: {where}: {first['msg']}; remove it and run the experiment again"
        ) from None
    return Traces(arm, record.outcome, record.message, found)


def _facts(environment: Environment, record: Record) -> dict[str, str | None]:
    """What the page's table of the environment shows; null where it does not apply."""
    device = environment.device
    image, code = environment.image, record.code
    commit = None if code.commit is None else code.commit[:12] + (", modified" if code.modified else "")
    gpu = device is not None and device.type == "cuda"
    return {
        "Host": environment.host,
        "Platform": environment.platform,
        "CPU": f"{environment.cpu} ({environment.cpu_count} logical)",
        "Device": None if device is None else f"{device.name} ({device.type})",
        "Device UUID": device.uuid if device is not None and gpu else None,
        "Driver": device.driver if device is not None and gpu else None,
        "CUDA": device.cuda if device is not None and gpu else None,
        "Threads per run": None if environment.threads is None else str(environment.threads),
        "Python": environment.python,
        "PyTorch": environment.packages.get("torch"),
        "Image": "none (host)" if image is None else ", ".join(f"{k} {v}" for k, v in sorted(image.items())),
        "Assay": code.version + ("" if commit is None else f" (commit {commit})"),
        "Source code": f"SHA-256 {code.sources_sha256[:16]}…",
        "Data manifest": None if record.data_sha256 is None else f"SHA-256 {record.data_sha256[:16]}…",
    }
