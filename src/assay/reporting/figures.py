"""The figures of a report: one function each, which returns a Figure or null where there is nothing to draw.

No pyplot: figures are made and saved without a global state. What is capped says so in the caption.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.comparison.model import Contrast, MetricResult
from assay.reporting import numbers, parts, samples
from assay.reporting.read import Results
from assay.reporting.style import HEIGHT, INK, MUTED, ArmStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ARMS = 8
"""Arms drawn in one figure; the tables have all."""
MAX_LINES = 60
"""Thin lines drawn per arm or figure; medians and intervals are over all runs read."""
MAX_POINTS = 200
"""Small points drawn per row of differences."""
MAX_ROWS = 24
"""Rows of the figure of differences."""

Drawn = tuple["Figure", str]
"""A figure and its caption."""


@dataclass(frozen=True)
class Plot:
    """A figure's name (of its files), its title, and the function that draws it."""

    name: str
    title: str
    draw: Callable[[Results], Drawn | None]


def plots() -> tuple[Plot, ...]:
    """All figures, in the order of the page."""
    return (
        Plot("differences", "Difference to the baseline", differences),
        Plot("paired-slopes", "Every pair", paired_slopes),
        Plot("accuracy-against-latency", "Accuracy against cost", accuracy_against_latency),
        Plot("latency", "Latency against batch size", latency),
        Plot("validation-accuracy", "Learning curves", validation_accuracy),
        Plot("training-loss", "Training loss", training_loss),
        Plot("reliability", "Calibration", reliability),
    )


# --- comparison -----------------------------------------------------------------------------------------


def differences(results: Results) -> Drawn | None:
    """Each arm against the baseline on the headline metric: pairs, mean, interval, margin."""
    metric = results.headline_metric
    shown = (
        [] if metric is None else [c for c in metric.contrasts if c.differences and c.estimate is not None]
    )
    if metric is None or not shown:
        return None
    styles = parts.styles(results)
    rows = shown[:MAX_ROWS]
    figure, axes = parts.figure(height=max(HEIGHT, 0.9 + 0.42 * len(rows)))
    if metric.margin is not None:
        low, high = parts.margin(metric)
        axes.axvspan(low, high, color=MUTED, alpha=0.13, linewidth=0)
    axes.axvline(parts.no_difference(metric), color=INK, linewidth=1)
    for row, found in enumerate(rows):
        _difference_row(axes, metric, found, row, styles[found.arm])
    axes.set_yticks(range(len(rows)), [parts.short(found.arm) for found in rows], color=INK)
    room = 0.5 if len(rows) > 2 else 0.8
    axes.set_ylim(len(rows) - 1 + room, -room)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(parts.difference_label(metric, results.comparison.baseline))
    better = "right" if metric.direction == "higher" else "left"
    caption = (
        f"Small: one {parts.replicate(metric)} each; large: mean with {parts.confidence(results)} interval. "
        f"Better is to the {better}."
    )
    if metric.margin is not None:
        caption += " Shaded: the margin within which a difference does not matter."
    caption += parts.cap(max(len(found.differences) for found in rows), MAX_POINTS, "pairs an arm")
    return figure, caption + parts.cap(len(shown), len(rows), "arms")


def _difference_row(axes: "Axes", metric: MetricResult, found: Contrast, row: int, style: ArmStyle) -> None:
    values = parts.on_axis(metric, np.fromiter(found.differences.values(), float))
    values = values[np.linspace(0, len(values) - 1, min(len(values), MAX_POINTS)).astype(int)]
    offsets = 0.22 + 0.1 * (np.arange(len(values)) % 3 - 1)
    axes.plot(
        values,
        row + offsets,
        linestyle="",
        marker=style.marker,
        markersize=3.5,
        color=style.colour,
        alpha=0.5,
    )
    assert found.estimate is not None
    centre = float(parts.readable(metric, found.estimate))
    if found.interval is not None and found.interval.low is not None and found.interval.high is not None:
        low, high = (parts.readable(metric, end) for end in (found.interval.low, found.interval.high))
        axes.plot([low, high], [row - 0.12] * 2, color=style.colour, linewidth=2.2, solid_capstyle="butt")
    axes.plot([centre], [row - 0.12], marker=style.marker, markersize=8, color=style.colour)


def paired_slopes(results: Results) -> Drawn | None:
    """The headline metric by arm, one line per seed or block."""
    metric = results.headline_metric
    if metric is None or metric.pairing == "exact":
        return None
    arms = [arm for arm in results.arms if any(v is not None for v in metric.arms[arm].values.values())]
    drawn = arms[:MAX_ARMS]
    if not drawn:
        return None
    factor = 100.0 if metric.unit == "fraction" else 1.0
    replicates = list(dict.fromkeys(key for arm in drawn for key in metric.arms[arm].values))
    styles = parts.styles(results)
    figure, axes = parts.figure()
    for replicate in parts.spread(replicates, MAX_LINES):
        values = [metric.arms[arm].values.get(replicate) for arm in drawn]
        heights = [math.nan if value is None else factor * value for value in values]
        axes.plot(range(len(drawn)), heights, color=MUTED, linewidth=0.9, alpha=0.55, zorder=2)
        for place, height in enumerate(heights):
            style = styles[drawn[place]]
            axes.plot([place], [height], marker=style.marker, markersize=4.5, color=style.colour, zorder=3)
    for place, arm in enumerate(drawn):
        _mean_beside(axes, metric, arm, place, styles[arm], last=place == len(drawn) - 1)
    names = [parts.short(arm) for arm in drawn]
    slanted: Any = (
        {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len("".join(names)) > 40 else {}
    )
    axes.set_xticks(range(len(drawn)), names, color=INK, **slanted)
    axes.set_xlim(-0.45, len(drawn) - 0.55)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel(parts.label(metric))
    word = parts.replicate(metric)
    caption = f"One line per {word}; beside it the mean with its {parts.confidence(results)} interval."
    caption += parts.cap(len(arms), len(drawn), "arms") + parts.cap(len(replicates), MAX_LINES, f"{word}s")
    return figure, caption


def _mean_beside(
    axes: "Axes", metric: MetricResult, arm: str, place: int, style: ArmStyle, *, last: bool
) -> None:
    summary = metric.arms[arm]
    factor = 100.0 if metric.unit == "fraction" else 1.0
    if summary.centre is None:
        return
    x = place + (0.18 if last else -0.18 if place == 0 else 0.12)
    if (
        summary.interval is not None
        and summary.interval.low is not None
        and summary.interval.high is not None
    ):
        ends = [factor * summary.interval.low, factor * summary.interval.high]
        axes.plot([x, x], ends, color=style.colour, linewidth=2.2, solid_capstyle="butt", zorder=4)
    axes.plot([x], [factor * summary.centre], marker=style.marker, markersize=8, color=style.colour, zorder=5)


def accuracy_against_latency(results: Results) -> Drawn | None:
    """Where each arm lies between what it is worth and what it costs."""
    worth = next((m for m in results.metrics if m.name in {"accuracy", "macro_f1"}), None)
    if worth is None:
        return None
    size = samples.smallest_batch(results)
    costs = {arm: samples.over_blocks(results, arm, f"latency_ms@{size}") for arm in results.arms}
    points = [(arm, costs[arm], worth.arms[arm]) for arm in results.arms]
    drawn = [(arm, cost, gain) for arm, cost, gain in points if cost is not None and gain.centre is not None]
    if not drawn:
        return None
    styles = parts.styles(results)
    figure, axes = parts.figure()
    for arm, cost, gain in drawn[: 2 * MAX_ARMS]:
        style = styles[arm]
        assert gain.centre is not None
        low, high = (None, None) if gain.interval is None else (gain.interval.low, gain.interval.high)
        if low is not None and high is not None:
            axes.plot([cost.centre] * 2, [100 * low, 100 * high], color=style.colour, linewidth=1.6)
        axes.plot([cost.low, cost.high], [100 * gain.centre] * 2, color=style.colour, linewidth=1.6)
        axes.plot(
            [cost.centre], [100 * gain.centre], linestyle="", marker=style.marker, markersize=9,
            color=style.colour, label=parts.short(arm),
        )  # fmt: skip
    parts.log_axis(axes, "x", [end for _, cost, _ in drawn for end in (cost.low, cost.high)])
    axes.margins(0.16, 0.2)
    axes.set_xlabel(f"latency of a batch of {size} (ms, lower is better)")
    axes.set_ylabel(parts.label(worth))
    parts.legend(axes, min(len(drawn), 2 * MAX_ARMS))
    across = parts.spread_words(drawn[0][1])
    caption = (
        f"Up and to the left is better. Upright: {parts.confidence(results)} interval; across: {across}."
    )
    return figure, caption + parts.cap(len(drawn), 2 * MAX_ARMS, "arms")


# --- cost -----------------------------------------------------------------------------------------------


def latency(results: Results) -> Drawn | None:
    """Median latency of a batch against its size, by arm."""
    sizes = results.experiment.profile.batch_sizes
    curves = {
        arm: [(size, samples.over_blocks(results, arm, f"latency_ms@{size}")) for size in sizes]
        for arm in results.arms
    }
    measured = {arm: [(s, c) for s, c in curve if c is not None] for arm, curve in curves.items()}
    measured = {arm: curve for arm, curve in measured.items() if curve}
    if not measured:
        return None
    styles = parts.styles(results)
    figure, axes = parts.figure()
    for arm in list(measured)[:MAX_ARMS]:
        style, curve = styles[arm], measured[arm]
        xs, low, high = [s for s, _ in curve], [c.low for _, c in curve], [c.high for _, c in curve]
        axes.fill_between(xs, low, high, color=style.colour, alpha=0.18, linewidth=0)
        axes.errorbar(
            xs, [c.centre for _, c in curve], color=style.colour, linestyle=style.dash, marker=style.marker,
            yerr=[[c.centre - c.low for _, c in curve], [c.high - c.centre for _, c in curve]],
            capsize=2.5, elinewidth=1.2, label=parts.short(arm),
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    parts.log_axis(
        axes, "y", [end for curve in measured.values() for _, c in curve for end in (c.low, c.high)]
    )
    axes.set_xlabel("batch size")
    axes.set_ylabel("latency of a batch (ms)")
    parts.legend(axes, min(len(measured), MAX_ARMS))
    first = next(iter(measured.values()))[0][1]
    caption = (
        f"Median over {numbers.counted(first.count, 'block')}; bars and bands: {parts.spread_words(first)}."
    )
    return figure, caption + parts.cap(len(measured), MAX_ARMS, "arms")


# --- training -------------------------------------------------------------------------------------------


def validation_accuracy(results: Results) -> Drawn | None:
    """Accuracy on the validation split by epoch: one thin line per seed, and the median."""
    curves = {
        arm: [
            (
                np.array([e.number for e in run.epochs]),
                100 * parts.array(e.validation_accuracy for e in run.epochs),
            )
            for run in results.runs
            if run.arm == arm and run.epochs
        ]
        for arm in results.arms
    }
    return _curves(results, curves, x="epoch", y="validation accuracy (%)")


def training_loss(results: Results) -> Drawn | None:
    """Loss on training batches by step, from the logs."""
    curves = samples.training_losses(results, results.arms[:MAX_ARMS], runs=MAX_LINES)
    drawn = _curves(results, curves, x="step", y="training loss (nats)")
    if drawn is not None:
        axes = drawn[0].axes[0]
        finite = [ys[np.isfinite(ys) & (ys > 0)] for lines in curves.values() for _, ys in lines]
        parts.log_axis(axes, "y", np.concatenate(finite).tolist())
    return drawn


def _curves(
    results: Results,
    curves: Mapping[str, Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]],
    *,
    x: str,
    y: str,
) -> Drawn | None:
    drawn = {arm: lines for arm, lines in curves.items() if any(np.isfinite(ys).any() for _, ys in lines)}
    if not drawn:
        return None
    styles = parts.styles(results)
    figure, axes = parts.figure()
    for arm in list(drawn)[:MAX_ARMS]:
        style, lines = styles[arm], drawn[arm]
        for xs, ys in parts.spread(lines, MAX_LINES):
            axes.plot(xs, ys, color=style.colour, linewidth=0.6, alpha=0.35)
        xs, ys = samples.median_curve(lines)
        axes.plot(xs, ys, color=style.colour, linewidth=2.2, linestyle=style.dash, label=parts.short(arm))
    axes.xaxis.set_major_locator(parts.ticks(integer=True))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    parts.legend(axes, min(len(drawn), MAX_ARMS))
    caption = "Thin: one line per seed; thick: their median." + parts.cap(len(drawn), MAX_ARMS, "arms")
    return figure, caption + parts.cap(len(results.experiment.seeds), MAX_LINES, "seeds an arm")


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
        style = styles[arm]
        axes.plot(
            100 * found.confidence, 100 * found.accuracy, color=style.colour, linestyle=style.dash,
            marker=style.marker, label=parts.short(arm),
        )  # fmt: skip
    axes.set_xlabel("confidence (%)")
    axes.set_ylabel("accuracy (%)")
    parts.legend(axes, len(bins))
    runs = max(found.runs for found in bins.values() if found is not None)
    caption = (
        f"Test examples of {numbers.counted(runs, 'seed')} an arm, in bins of equal count by confidence. "
        "Below the diagonal a model is surer than it should be."
    )
    done = max(sum(run.arm == arm and run.outcome == "completed" for run in results.runs) for arm in bins)
    caption += parts.cap(len(results.arms), MAX_ARMS, "arms")
    return figure, caption + parts.cap(done, runs, "seeds an arm")
