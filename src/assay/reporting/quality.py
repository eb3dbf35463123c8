"""Figures and tables of what the predictions are worth: calibration, and accuracy class by class."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.reporting import numbers, parts, samples
from assay.reporting.parts import MAX_ARMS, Drawn
from assay.reporting.read import Results
from assay.reporting.style import INK, MUTED, ArmStyle
from assay.reporting.table import Column, Raw, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES = 20
"""Classes drawn: those of the largest mean differences; the table has all."""


def reliability(results: Results) -> Drawn | None:
    """Accuracy against confidence on the test split: on the diagonal, confidence means what it says."""
    bins = {arm: samples.reliability(results, arm) for arm in results.arms[:MAX_ARMS]}
    bins = {arm: found for arm, found in bins.items() if found is not None}
    if not bins:
        return None
    styles = parts.styles(results)
    figure, axes = parts.figure()
    least = min(float(found.confidence.min()) for found in bins.values() if found is not None)
    low = 100 * max(0.0, min(0.9, math.floor(10 * least) / 10))
    axes.plot([low, 100], [low, 100], color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    for arm, found in bins.items():
        assert found is not None
        style, error = styles[arm], calibration_error(results, arm)
        label = parts.short(arm) + ("" if error is None else f", ECE {100 * error:.2g}%")
        axes.plot(
            100 * found.confidence, 100 * found.accuracy, color=style.colour, linestyle=style.dash,
            marker=style.marker, label=label,
        )  # fmt: skip
    axes.set_xlabel("confidence (%)")
    axes.set_ylabel("accuracy (%)")
    parts.legend(axes, len(bins))
    runs = max(found.runs for found in bins.values() if found is not None)
    caption = (
        f"Test examples of {numbers.counted(runs, 'seed')} an arm, in bins of equal count by confidence. "
        "Below the diagonal a model is surer than it should be."
    )
    if any(calibration_error(results, arm) is not None for arm in bins):
        caption += " ECE: expected calibration error, mean over seeds."
    done = max(sum(run.arm == arm and run.outcome == "completed" for run in results.runs) for arm in bins)
    caption += parts.cap(len(results.arms), MAX_ARMS, "arms")
    return figure, caption + parts.cap(done, runs, "seeds an arm")


def calibration_error(results: Results, arm: str) -> float | None:
    """Mean over the arm's completed runs of what `evaluate` recorded; null where one was not."""
    found = [run.calibration_error for run in results.runs if run.arm == arm and run.outcome == "completed"]
    known = [value for value in found if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(found) else None


@dataclass(frozen=True)
class ClassDifferences:
    """One arm against the baseline at the seeds that both completed."""

    arm: str
    names: list[str]
    counts: NDArray[np.int64]
    """Test examples: int64 [C]."""
    accuracy: NDArray[np.float64]
    """Of the arm by seed: float64 [S, C], NaN for classes without examples."""
    baseline: NDArray[np.float64]
    """Of the baseline by seed: float64 [S, C]."""

    @property
    def differences(self) -> NDArray[np.float64]:
        return self.accuracy - self.baseline


def class_differences(results: Results) -> list[ClassDifferences]:
    """Of every arm against the baseline; none where classes were not recorded or differ between runs."""
    runs = {
        (run.arm, run.seed): run.classes for run in results.runs if run.outcome == "completed" and run.classes
    }
    shapes = {tuple((one.name, one.count) for one in classes) for classes in runs.values()}
    if len(shapes) != 1:
        return []
    (shape,) = shapes
    counts = np.array([count for _, count in shape], np.int64)
    found = []
    for arm in results.arms[1:]:
        seeds = [
            seed for seed in results.experiment.seeds if {(arm, seed), (results.arms[0], seed)} <= runs.keys()
        ]
        if seeds:
            ours, theirs = (
                np.array([[one.correct for one in runs[which, seed]] for seed in seeds], float)
                / np.where(counts, counts, np.nan)
                for which in (arm, results.arms[0])
            )
            found.append(ClassDifferences(arm, [name for name, _ in shape], counts, ours, theirs))
    return found


def per_class(results: Results) -> Drawn | None:
    """Accuracy minus the baseline's by class: mean over seeds, and each seed."""
    found = class_differences(results)
    if not found:
        return None
    drawn = found[: MAX_ARMS - 1]
    means = np.array([one.differences.mean(axis=0) for one in drawn])
    known = np.flatnonzero(np.isfinite(means).all(axis=0))
    largest = known[np.argsort(-np.abs(means[:, known]).max(axis=0), kind="stable")][:MAX_CLASSES]
    rows = largest[np.argsort(-means[0, largest], kind="stable")]
    styles = parts.styles(results)
    figure, axes = parts.figure(height=0.75 + len(rows) * (0.12 + 0.07 * len(drawn)))
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, one in enumerate(drawn):
        heights = np.arange(len(rows)) + 0.6 * ((place + 0.5) / len(drawn) - 0.5)
        _draw_classes(axes, one.arm, styles[one.arm], 100 * one.differences[:, rows], heights)
    axes.set_yticks(
        range(len(rows)), [parts.literal(parts.short(one.names[row], 18)) for row in rows], color=INK
    )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(
        f"accuracy minus that of {parts.short(results.arms[0])}\n(percentage points)", loc="right"
    )
    if len(drawn) > 1:
        parts.legend(axes, len(drawn) + 3)
    caption = "Test examples of each class; large: mean over seeds, upright strokes: each seed. Better is to the right."
    caption += parts.cap(len(found), len(drawn), "arms")
    return figure, caption + parts.cap(len(known), len(rows), "classes, those that differ most")


def _draw_classes(
    axes: "Axes",
    arm: str,
    style: ArmStyle,
    points: NDArray[np.floating[Any]],
    heights: NDArray[np.floating[Any]],
) -> None:
    """points: [seeds, classes]; heights: [classes]."""
    stroke = {"linestyle": "", "marker": "|", "markersize": 4, "markeredgewidth": 0.8, "alpha": 0.5}
    for values in parts.spread(list(points), 60):
        axes.plot(values, heights, color=style.colour, **stroke)  # type: ignore[arg-type]
    axes.plot(
        points.mean(axis=0), heights, linestyle="", marker=style.marker, markersize=5, color=style.colour,
        label=parts.short(arm),
    )  # fmt: skip


def class_table(results: Results) -> Table:
    """Every class: its test examples, and accuracy of the arm and the baseline over the seeds that both completed."""
    columns = [
        Column("Class"),
        Column("Arm"),
        Column("Test examples", "number"),
        Column("Accuracy", "number"),
    ]
    columns += [
        Column("Baseline", "number"),
        Column("Difference", "number"),
        Column("Lowest to highest seed", "number"),
    ]
    rows, data = [], []
    for one in class_differences(results):
        order = np.argsort(-np.abs(np.nan_to_num(one.differences.mean(axis=0))), kind="stable")
        for place in order:
            line = _class_data(one, int(place))
            data.append(line)
            rows.append(_class_row(line))
    return Table("per-class", "Class by class", columns, rows, data)


def _class_data(one: ClassDifferences, place: int) -> dict[str, Raw]:
    seeds = one.differences[:, place]
    values: dict[str, Raw] = dict.fromkeys(
        ("accuracy", "baseline_accuracy", "difference", "lowest", "highest")
    )
    if one.counts[place]:
        means = (
            one.accuracy[:, place].mean(),
            one.baseline[:, place].mean(),
            seeds.mean(),
            seeds.min(),
            seeds.max(),
        )
        values = dict(zip(values, map(float, means), strict=True))
    return {
        "class": one.names[place], "arm": one.arm, "examples": int(one.counts[place]), **values, "seeds": len(seeds),
    }  # fmt: skip


def _class_row(line: dict[str, Raw]) -> list[str]:
    name, arm, count, accuracy, baseline, difference, low, high, _ = line.values()
    texts = [str(name), str(arm), f"{count:,}"]
    if not isinstance(difference, float):
        return [*texts, *[numbers.NOTHING] * 4]
    assert isinstance(low, float) and isinstance(high, float)
    ends = (numbers.plain(100 * end, 1, sign=True) for end in (low, high))
    shares = [
        numbers.quantity(value, "fraction") for value in (accuracy, baseline) if isinstance(value, float)
    ]
    return [*texts, *shares, f"{numbers.plain(100 * difference, 1, sign=True)} pp", numbers.interval(*ends)]
