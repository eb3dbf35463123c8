"""`floor.json`: what an arm shows against itself, per recorded number. `docs/noise.md` says what that means.

A function of the experiment and the records alone, so that a comparison can check the file against them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field

from assay.comparison import contract, statistics
from assay.comparison.collect import Collected, Evidence, Kind, Reader, Replicate
from assay.comparison.model import BCA, Interval
from assay.comparison.statistics import Floats
from assay.config.metrics import METRICS, Direction, Scale, title_of
from assay.config.repeated import repeated
from assay.config.schema import LEAST_NOISE_PAIRS, Experiment
from assay.records import Typed

FOLDER = "noise"
FILE = "floor.json"
_COUNTED = {"count", "FLOP"}
_EXACT = {name for name, metric in METRICS.items() if metric.pairing == "exact"}


class Quantity(Typed):
    """One recorded number of the arm against the same number of its second self.

    On scale `ratio` the floor is relative, as margins are: 0.02 is every ratio from 1/1.02 to 1.02.
    """

    name: str
    title: str
    unit: str
    kind: Kind
    scale: Scale
    direction: Direction | None = Field(default=None, description="Null for what is not judged.")
    floor: float | None = Field(
        description="Of a comparison of as many pairs; null: not known, see `reason`."
    )
    reason: str | None = Field(default=None, description="Why there is no floor.")
    pairs: int
    differences: dict[str, float] = Field(
        default={}, description="By seed or block: again - arm, or the logarithm of again / arm."
    )
    differing: int = Field(default=0, description="Pairs that differ at all.")
    differing_at_most: float | None = Field(
        default=None, description="Upper bound of the share of pairs that differ."
    )
    estimate: float | None = Field(default=None, description="Mean difference, or ratio of geometric means.")
    interval: Interval | None = None
    p: float | None = Field(default=None, description="Of the sign-flip test, not adjusted.")
    told_apart: bool | None = Field(
        default=None,
        description="By test and interval, as arms are: by chance, or by what sets the two apart.",
    )
    other_seeds: float | None = Field(
        default=None,
        description="For comparison: what two sets of as many different seeds of the arm may differ by.",
    )

    def at(self, pairs: int, alpha: float) -> float | None:
        """The floor of a comparison of this many pairs."""
        if self.floor is None:
            return None
        differences = np.array(list(self.differences.values()))
        return relative(self.scale, float(statistics.noise_floor(differences, pairs, alpha=alpha)))


class Origin(Typed):
    """Where and when it was measured: all values that the records have."""

    started: str | None
    finished: str | None
    facts: dict[str, list[str]]


class NoiseFloor(Typed):
    """`floor.json`."""

    schema_version: Literal[1] = 1
    experiment: str
    arm: str
    again: str = Field(description="What the arm is called the second time.")
    alpha: float
    valid: bool = Field(description="Whether the two were alike in all that arms must be alike in.")
    violations: list[str]
    seeds: list[int]
    blocks: int
    identical_weights: int | None = Field(
        description="Seeds at which both trainings left the same weights, bit by bit; null: not compared."
    )
    origin: Origin
    quantities: list[Quantity]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises: RecordError naming the file and what is wrong with it."""
        return cls.parse(
            path, "no noise floor; run `assay noise FILE`", "remove it and run `assay noise FILE` again"
        )

    def quantity(self, name: str) -> Quantity | None:
        return next((one for one in self.quantities if one.name == name), None)


@dataclass(frozen=True)
class Measured:
    """The floor and the records behind it."""

    floor: NoiseFloor
    evidence: list[Evidence]


def measure(experiment: Experiment, results: Path) -> Measured:
    """The noise floor from the records in `results` and `results/noise`.

    The arm's runs are the experiment's own; its second runs and the blocks of both are of the floor alone.

    Raises: RecordError for a damaged record, or one that is not what its place says.
    """
    twice = repeated(experiment)
    found = _collect(twice, results)
    arm, again = twice.arms
    checked = contract.check(twice, found.evidence)
    violations = [*checked.violations, *_copies(found.evidence, arm)]
    alpha = round(1 - experiment.comparison.confidence, 12)
    return Measured(
        NoiseFloor(
            experiment=experiment.name,
            arm=arm,
            again=again,
            alpha=alpha,
            valid=not violations,
            violations=violations,
            seeds=twice.seeds,
            blocks=twice.profile.blocks if twice.profile.enabled else 0,
            identical_weights=_identical_weights(found.evidence),
            origin=_origin(found.evidence),
            quantities=list(_quantities(twice, found, violations, alpha)),
        ),
        found.evidence,
    )


def relative(scale: Scale, number: float) -> float:
    """A size on the scale of the differences as margins are written."""
    return math.expm1(number) if scale == "ratio" else number


def _collect(twice: Experiment, results: Path) -> Collected:
    arm, again = twice.arms
    data = results / "data"
    first, second = Reader(twice, results, data), Reader(twice, results / FOLDER, data)
    runs = {(arm, seed): first.run(arm, seed) for seed in twice.seeds}
    runs |= {(again, seed): second.run(again, seed) for seed in twice.seeds}
    blocks = range(twice.profile.blocks if twice.profile.enabled else 0)
    visits = {(name, block): second.visit(name, block) for block in blocks for name in (arm, again)}
    return Collected(runs, visits, [*first.evidence, *second.evidence], [])


def _copies(evidence: Iterable[Evidence], arm: str) -> list[str]:
    """Records of the second self that are the first one's: the same job cannot have run twice at one time."""
    spans = {
        (one.stage, one.replicate, one.span) for one in evidence if one.arm == arm and one.stage != "profile"
    }
    return [
        f"{one.path}: is a copy of {arm}'s record and no second run; remove it and run `assay noise FILE` again"
        for one in evidence
        if one.arm != arm and (one.stage, one.replicate, one.span) in spans
    ]


def _identical_weights(evidence: Iterable[Evidence]) -> int | None:
    weights: dict[int, list[str]] = {}
    for one in evidence:
        if one.stage == "train" and one.weights is not None:
            weights.setdefault(one.replicate, []).append(one.weights)
    pairs = [both for both in weights.values() if len(both) == 2]
    return sum(first == second for first, second in pairs) if pairs else None


def _origin(evidence: list[Evidence]) -> Origin:
    facts: dict[str, set[str]] = {}
    for one in evidence:
        environment, device = one.environment, one.device
        image = environment.image
        values = {
            "host": environment.host,
            "cpu": environment.cpu,
            "device": None if device is None else device.name,
            "device uuid": None if device is None else device.uuid,
            "driver": None if device is None else device.driver,
            "image": "none (host)" if image is None else image.get("sif_sha256") or image.get("base_digest"),
            "commit": one.code.commit,
        }
        for name, value in values.items():
            if value is not None:
                facts.setdefault(name, set()).add(value)
    return Origin(
        started=min((one.span[0] for one in evidence), default=None),
        finished=max((one.span[1] for one in evidence), default=None),
        facts={name: sorted(values) for name, values in facts.items()},
    )


# --- quantities -----------------------------------------------------------------------------------------


def _quantities(
    twice: Experiment, found: Collected, violations: list[str], alpha: float
) -> Iterable[Quantity]:
    """Judged metrics first; of what is recorded beside them, all that was measured at all."""
    judged = [choice.name for choice in twice.metrics if METRICS[choice.name].pairing != "exact"]
    kinds: tuple[Kind, Kind] = ("seed", "block")
    for kind in kinds:
        replicates = found.replicates(kind)
        recorded, units = _recorded(replicates.values())
        mine = [name for name in judged if METRICS[name].pairing == kind] if replicates else []
        for name in dict.fromkeys((*mine, *recorded)):
            yield _quantity(name, units.get(name, ""), kind, twice, found, violations, alpha)


def _recorded(replicates: Iterable[Replicate]) -> tuple[list[str], dict[str, str]]:
    """Names with a value somewhere, known metrics first, and units. Counts have no noise."""
    units = {
        name: one.unit
        for replicate in replicates
        for name, one in (replicate.metrics | replicate.other_metrics).items()
        if one.unit not in _COUNTED and name not in _EXACT and one.value is not None
    }
    return sorted(units, key=lambda name: (name not in METRICS, *_natural(name))), units


def _natural(name: str) -> tuple[str, float]:
    """`latency_ms@16` before `latency_ms@128`."""
    stem, _, size = name.partition("@")
    return stem, float(size) if size.isdigit() else -1.0


def _quantity(
    name: str, unit: str, kind: Kind, twice: Experiment, found: Collected, violations: list[str], alpha: float
) -> Quantity:
    metric = METRICS.get(name)
    if metric is not None:
        unit, scale = metric.unit, metric.scale
    else:
        scale = "difference" if unit in {"fraction", "nats"} else "ratio"
    arm, again = twice.arms
    replicates = found.replicates(kind)
    values = _values(name, replicates, scale)
    reason = violations[0] if violations else _problem(name, values, kind, replicates)
    quantity = Quantity(
        name=name,
        title=title_of(name),
        unit=unit,
        kind=kind,
        scale=scale,
        direction=_direction(twice, name),
        floor=None,
        reason=reason,
        pairs=0 if reason else len(values[arm]),
    )
    if reason is not None:
        return quantity
    first, second = (np.array([number for _, number in sorted(values[who].items())]) for who in (arm, again))
    assert first.dtype == second.dtype == np.float64
    differences = second - first
    update = _statistics(differences, scale, twice, alpha)
    update["differences"] = dict(zip(map(str, sorted(values[arm])), differences.tolist(), strict=True))
    if metric is not None and kind == "seed":
        spread = float(statistics.noise_floor(first - first.mean(), len(first), alpha=alpha))
        update["other_seeds"] = None if math.isnan(spread) else relative(scale, spread)
    return quantity.model_copy(update=update)


def _direction(twice: Experiment, name: str) -> Direction | None:
    choice = next((choice for choice in twice.metrics if choice.name == name), None)
    return None if choice is None else choice.direction or METRICS[name].direction


def _values(
    name: str, replicates: Mapping[tuple[str, int], Replicate], scale: Scale
) -> dict[str, dict[int, float | None]]:
    """By arm and replicate, without blocks that were not valid; NaN for a ratio of what is not positive."""
    invalid = {number for (_, number), replicate in replicates.items() if replicate.outcome == "invalid"}
    values: dict[str, dict[int, float | None]] = {arm: {} for arm, _ in replicates}
    for (arm, number), replicate in replicates.items():
        if number not in invalid:
            measurement = (replicate.metrics | replicate.other_metrics).get(name)
            value = None if measurement is None or replicate.outcome != "completed" else measurement.value
            if value is not None and scale == "ratio":
                value = math.log(value) if value > 0 else math.nan
            values[arm][number] = value
    return values


def _problem(
    name: str,
    values: Mapping[str, Mapping[int, float | None]],
    kind: Kind,
    replicates: Mapping[tuple[str, int], Replicate],
) -> str | None:
    pairs = min((len(found) for found in values.values()), default=0)
    if not pairs:
        return f"no {kind} of it was valid" if values else f"there is no {kind} of it"
    numbers = [number for found in values.values() for number in found.values()]
    completed = any(replicate.outcome == "completed" for replicate in replicates.values())
    if completed and all(number is None for number in numbers):
        return "it was not measured"
    for who, found in values.items():
        missing = [number for number, value in found.items() if value is None]
        if missing:
            listed = ", ".join(map(str, missing[:6])) + (" and more" if len(missing) > 6 else "")
            lacking = replicates[who, missing[0]]
            return f"there is no value for {who} at {kind} {listed} ({lacking.why_missing(name)})"
    if any(number is not None and math.isnan(number) for number in numbers):
        return "a ratio needs positive values"
    if pairs < LEAST_NOISE_PAIRS:
        return f"{'one pair tells' if pairs == 1 else f'{pairs} pairs tell'} no spread; it takes {LEAST_NOISE_PAIRS}"
    return None


def _statistics(differences: Floats, scale: Scale, twice: Experiment, alpha: float) -> dict[str, object]:
    settings = twice.comparison
    n, mean = len(differences), float(differences.mean())
    low, high = map(
        float,
        statistics.bca_interval(differences, confidence=settings.confidence, resamples=settings.resamples),
    )
    p = float(statistics.sign_flip_p(differences))
    constant = bool(statistics.mean_is_constant(differences))
    excludes = (constant and mean != 0) or low > 0 or high < 0
    differing = int(np.count_nonzero(differences))
    read = math.exp if scale == "ratio" else float
    interval = Interval(method=BCA, confidence=settings.confidence, reason="all are the same: nothing varies")
    if math.isfinite(low) and math.isfinite(high):
        interval = Interval(method=BCA, confidence=settings.confidence, low=read(low), high=read(high))
    return {
        "floor": relative(scale, float(statistics.noise_floor(differences, n, alpha=alpha))),
        "differing": differing,
        "differing_at_most": statistics.most_that_differ(differing, n, alpha=alpha),
        "estimate": read(mean),
        "interval": interval,
        "p": p,
        "told_apart": p <= alpha and excludes,
    }
