"""`reproduction.json`: an experiment that was run again from its archive, against what is archived."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field

from assay.comparison.model import Comparison, Contrast, Interval, MetricResult, VerdictWord
from assay.comparison.multiplicity import holm
from assay.config.schema import Experiment
from assay.records import Record, Typed

Word = Literal["identical", "consistent", "different"]


class Pair(Typed):
    """One run, archived and anew. Null: one of the two has no such thing."""

    arm: str
    seed: int
    outcome: bool
    batches: bool | None
    weights: bool | None
    metrics: bool | None = Field(description="All metrics of the test split, to the last bit.")

    @property
    def identical(self) -> bool:
        return self.outcome and False not in (self.batches, self.weights, self.metrics)


class Estimate(Typed):
    """One arm against the baseline on one metric, archived and anew."""

    metric: str
    arm: str
    learnt: bool = Field(
        description="Whether it is of what was learnt; else of costs, which are of a machine."
    )
    archived: float | None
    archived_interval: tuple[float, float] | None
    archived_verdict: VerdictWord
    reproduced: float | None
    reproduced_interval: tuple[float, float] | None
    reproduced_verdict: VerdictWord
    agrees: bool | None = Field(
        description="Each estimate lies in the other's interval, or both are equal, or p does not tell them apart; null: there "
        "is nothing to tell by."
    )
    p: float | None = Field(
        default=None,
        description="Of what was learnt, that running it again changes nothing: t-test over seeds, Holm over all estimates.",
    )
    contradicts: bool = Field(description="One says better and the other worse.")


class Circumstance(Typed):
    """Something that may keep bits from being the same."""

    what: str
    archived: str
    here: str


class Reproduction(Typed):
    """`reproduction.json`."""

    schema_version: Literal[1] = 1
    experiment: str
    archive_sha256: str = Field(description="Of the archive's list of checksums.")
    word: Word
    sentence: str
    same_bits_expected: bool = Field(
        description="Deterministic arms, the same packages, processor and device: every bit is to be the same."
    )
    circumstances: list[Circumstance]
    runs: list[Pair]
    estimates: list[Estimate]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises: RecordError naming the file and what is wrong with it."""
        return cls.parse(path, "no such file; run assay reproduce", "remove it and run assay reproduce again")


def reproduction(
    experiment: Experiment, archived: Path, anew: Path, *, sums: str, packages: list[Circumstance]
) -> Reproduction:
    """Compare two folders of results of the same experiment.

    packages: differences of this environment against the archived lock. Raises: RecordError for a damaged file.
    """
    before, after = (
        Comparison.read(folder / "comparison" / "comparison.json") for folder in (archived, anew)
    )
    runs = [_pair(archived, anew, arm, seed) for arm in experiment.arms for seed in experiment.seeds]
    estimates = told_apart(_estimates(before, after), before, after)
    circumstances = _circumstances(experiment, archived, anew)
    deterministic = all(arm.execution.deterministic for arm in experiment.arms.values())
    expected = deterministic and not circumstances
    word = _word(runs, estimates, expected)
    return Reproduction(
        experiment=experiment.name,
        archive_sha256=sums,
        word=word,
        sentence=_sentence(word, runs, estimates, expected),
        same_bits_expected=expected,
        circumstances=[*circumstances, *packages],
        runs=runs,
        estimates=estimates,
    )


def _word(runs: list[Pair], estimates: list[Estimate], expected: bool) -> Word:
    learnt = [one for one in estimates if one.learnt]
    if any(one.contradicts for one in estimates):
        return "different"
    if all(run.identical for run in runs) and all(one.archived == one.reproduced for one in learnt):
        return "identical"
    if expected or not all(one.agrees for one in learnt) or not all(run.outcome for run in runs):
        return "different"
    return "consistent"


def _sentence(word: Word, runs: list[Pair], estimates: list[Estimate], expected: bool) -> str:
    same = sum(run.identical for run in runs)
    bits = f"{same} of {len(runs)} runs came out to the bit"
    costs = [one for one in estimates if not one.learnt]
    agreeing = sum(one.agrees is True for one in costs)
    told = f"; {agreeing} of {len(costs)} estimates of costs lie in each other's interval" if costs else ""
    match word:
        case "identical":
            return f"Reproduced: {bits}, and every verdict on what was learnt with them{told}."
        case "consistent":
            return f"Reproduced within chance: {bits}{told}."
        case "different":
            if contradicting := [f"{one.arm} in {one.metric}" for one in estimates if one.contradicts]:
                return f"Not reproduced: the verdict on {', '.join(contradicting)} is the opposite; {bits}."
            why = (
                ", where all had to: same packages, processor and device"
                if expected and same < len(runs)
                else ""
            )
            return f"Not reproduced: {bits}{why}{told}."


def _record(path: Path) -> Record | None:
    return Record.read(path) if path.exists() else None


def _pair(archived: Path, anew: Path, arm: str, seed: int) -> Pair:
    trains, evaluates = (
        [
            _record(folder / "runs" / arm / f"seed-{seed}" / stage / "record.json")
            for folder in (archived, anew)
        ]
        for stage in ("train", "evaluate")
    )
    before, after = trains
    tested, again = evaluates
    if before is None or after is None or tested is None or again is None:
        return Pair(arm=arm, seed=seed, outcome=False, batches=None, weights=None, metrics=None)
    return Pair(
        arm=arm,
        seed=seed,
        outcome=(before.outcome, tested.outcome) == (after.outcome, again.outcome),
        batches=_same(before.batches_sha256, after.batches_sha256),
        weights=_same(before.weights_sha256, after.weights_sha256),
        metrics={name: one.value for name, one in tested.metrics.items()}
        == {name: one.value for name, one in again.metrics.items()},
    )


def _same(one: str | None, other: str | None) -> bool | None:
    return None if one is None and other is None else one == other


def _estimates(before: Comparison, after: Comparison) -> list[Estimate]:
    found = []
    metrics = {metric.name: metric for metric in after.metrics}
    for metric in before.metrics:
        lines = {line.arm: line for line in metrics[metric.name].contrasts} if metric.name in metrics else {}
        found += [_estimate(metric, line, lines[line.arm]) for line in metric.contrasts if line.arm in lines]
    return found


def _estimate(metric: MetricResult, before: Contrast, after: Contrast) -> Estimate:
    one, other = _ends(before.interval), _ends(after.interval)
    agrees: bool | None = None
    if before.estimate == after.estimate:
        agrees = True
    elif one and other and before.estimate is not None and after.estimate is not None:
        agrees = one[0] <= after.estimate <= one[1] and other[0] <= before.estimate <= other[1]
    return Estimate(
        metric=metric.name,
        arm=before.arm,
        learnt=metric.pairing != "block" and "seconds" not in metric.name and "energy" not in metric.name,
        archived=before.estimate,
        archived_interval=one,
        archived_verdict=before.verdict,
        reproduced=after.estimate,
        reproduced_interval=other,
        reproduced_verdict=after.verdict,
        agrees=agrees,
        contradicts={before.verdict, after.verdict} == {"better", "worse"},
    )


def told_apart(estimates: list[Estimate], before: Comparison, after: Comparison) -> list[Estimate]:
    """With p, and in agreement where p is above the comparison's level.

    Of two honest runs one's estimate lies outside of the other's interval far more often than the interval's level says (Cumming
    and Maillardet 2006), so that alone shows nothing.
    """
    one, other = (
        {(metric.name, line.arm): line.differences for metric in found.metrics for line in metric.contrasts}
        for found in (before, after)
    )
    tested: dict[int, float] = {}
    for place, found in enumerate(estimates):
        key = found.metric, found.arm
        p = changed_p(one[key], other[key]) if found.learnt else None
        if p is not None:
            tested[place] = p
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [
        found
        if place not in adjusted
        else found.model_copy(
            update={
                "p": adjusted[place],
                "agrees": found.agrees or adjusted[place] > before.alpha,
            }
        )
        for place, found in enumerate(estimates)
    ]


def changed_p(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """Two-sided p of Student's t-test that differences at the same seeds are the same, archived and anew, in the mean.

    None where the seeds are others, or fewer than two.
    """
    from scipy.special import stdtr

    if before.keys() != after.keys() or len(before) < 2:
        return None
    changes = np.array([after[seed] - before[seed] for seed in before])
    error = float(changes.std(ddof=1)) / math.sqrt(len(changes))
    if error <= 1e-12 * float(np.abs(changes).max()):
        return 0.0 if changes.any() else 1.0
    return 2 * float(stdtr(len(changes) - 1, -abs(float(changes.mean())) / error))


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    if interval is None or interval.low is None or interval.high is None:
        return None
    return interval.low, interval.high


def _circumstances(experiment: Experiment, archived: Path, anew: Path) -> list[Circumstance]:
    """What differs between the records of the two: packages, Python, processor, device, threads."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for arm in experiment.arms:
        for seed in experiment.seeds:
            path = Path("runs", arm, f"seed-{seed}", "train", "record.json")
            for side, folder in enumerate((archived, anew)):
                if (record := _record(folder / path)) is not None:
                    for what, value in _of(record).items():
                        found.setdefault(what, (set(), set()))[side].add(value)
    return [
        Circumstance(what=what, archived=_listed(before), here=_listed(here))
        for what, (before, here) in found.items()
        if before != here
    ]


def _of(record: Record) -> dict[str, str]:
    environment = record.environment
    device = environment.device
    versions = {f"package {name}": version for name, version in environment.packages.items()}
    return versions | {
        "Python": environment.python,
        "processor": environment.cpu,
        "device": "none" if device is None else f"{device.type} {device.name}",
        "image": "none" if environment.image is None else environment.image.get("base_digest", "unknown"),
    }


def _listed(values: set[str]) -> str:
    return ", ".join(sorted(values)) or "none"
