"""What a finished experiment tells about the next: scatter of the differences, and what a seed costs."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from assay.comparison.model import Comparison, MetricResult
from assay.config.schema import Experiment
from assay.records import Record

LEAST_PAIRS = 3


@dataclass(frozen=True)
class Pilot:
    """One contrast of a finished comparison, on the scale of the differences: logarithms for ratios.

    level, equivalence_level: the share of alpha that the contrast is sure to have, as in the comparison.
    """

    metric: MetricResult
    arm: str
    baseline: str
    pairs: int
    mean: float
    deviation: float
    level: float
    equivalence_level: float


def pilots(comparison: Comparison, metric: MetricResult) -> list[Pilot]:
    """One for each arm that has three pairs, which tell how differences scatter. Raises: ValueError where none has."""
    if metric.pairing == "exact":
        raise ValueError(f"{metric.name} is a count: it is compared exactly, and one seed is enough")
    others = len(metric.contrasts) + len(metric.between)
    family = [one for one in comparison.metrics if one.pairing == metric.pairing and one.margin is not None]
    claims = sum(any(contrast.pairs for contrast in one.contrasts) for one in family) or 1
    found = []
    for contrast in metric.contrasts:
        differences = np.array(list(contrast.differences.values()))
        if differences.size < LEAST_PAIRS:
            continue
        found.append(
            Pilot(
                metric=metric,
                arm=contrast.arm,
                baseline=contrast.baseline,
                pairs=differences.size,
                mean=float(differences.mean()),
                deviation=float(differences.std(ddof=1)),
                level=comparison.alpha / others,
                equivalence_level=comparison.alpha / (claims * others),
            )
        )
    if not found:
        raise ValueError("\n".join(left_out(metric)))
    return found


def left_out(metric: MetricResult) -> list[str]:
    """Why there is nothing to learn from an arm."""
    return [
        f"{contrast.arm} in {metric.name}: {LEAST_PAIRS} pairs at least tell how differences scatter: "
        + (" ".join(contrast.reasons) or f"there are {len(contrast.differences)}")
        for contrast in metric.contrasts
        if len(contrast.differences) < LEAST_PAIRS
    ]


@dataclass(frozen=True)
class Cost:
    """What one more seed, or profile block, of all arms takes. Null where it was not measured."""

    gpu_seconds: float | None
    job_seconds: float | None
    """Of its jobs, one after another."""
    joules: float | None
    """Of the trainings' GPUs."""


def seed_cost(experiment: Experiment, results: Path) -> Cost:
    """Means over the runs that completed in one go, added up over arms: one lacking leaves the sum unknown.

    Raises: RecordError for a damaged record.
    """
    gpu, jobs, energy = [], [], []
    for arm, settings in experiment.arms.items():
        runs = results / "runs" / arm
        trained = _records(runs / f"seed-{seed}" / "train" for seed in experiment.seeds)
        evaluated = _records(runs / f"seed-{seed}" / "evaluate" for seed in experiment.seeds)
        seconds = _mean(trained, lambda record: _metric(record, "train_seconds"))
        on_gpu = all(
            record.environment.device is not None and record.environment.device.type == "cuda"
            for record in trained
        )
        execution = settings.execution
        gpu.append(seconds * execution.devices * execution.nodes if seconds is not None and on_gpu else None)
        jobs += [_mean(trained, _span), _mean(evaluated, _span)]
        energy.append(_mean(trained, lambda record: _metric(record, "train_energy")))
    return Cost(_sum(gpu), _sum(jobs), _sum(energy))


def block_cost(experiment: Experiment, results: Path) -> Cost:
    """Raises: RecordError for a damaged record."""
    spans = []
    on_gpu = True
    for block in range(experiment.profile.blocks):
        found = _records(results / "profile" / f"block-{block}" / arm for arm in experiment.arms)
        if len(found) == len(experiment.arms):
            begun = min(_time(record.started) for record in found)
            spans.append((max(_time(record.finished) for record in found) - begun).total_seconds())
        devices = [record.environment.device for record in found]
        on_gpu = on_gpu and all(device is not None and device.type == "cuda" for device in devices)
    seconds = math.fsum(spans) / len(spans) if spans else None
    return Cost(seconds if on_gpu else None, seconds, None)


def _records(folders: Iterable[Path]) -> list[Record]:
    found = [Record.read(path) for folder in folders if (path := folder / "record.json").exists()]
    return [record for record in found if record.outcome == "completed" and not record.resumed]


def _metric(record: Record, name: str) -> float | None:
    measurement = record.metrics.get(name)
    return None if measurement is None else measurement.value


def _span(record: Record) -> float:
    return (_time(record.finished) - _time(record.started)).total_seconds()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _mean(records: list[Record], of: Callable[[Record], float | None]) -> float | None:
    known = [value for record in records if (value := of(record)) is not None]
    return math.fsum(known) / len(known) if known else None


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if known and len(known) == len(values) else None
