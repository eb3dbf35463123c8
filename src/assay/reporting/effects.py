"""Figures of effects: every pair, every interval, and what a difference must exceed to matter."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.comparison.model import Contrast, MetricResult
from assay.reporting import parts
from assay.reporting.parts import MAX_ARMS, Drawn
from assay.reporting.read import Results
from assay.reporting.style import HEIGHT, INK, MUTED, PAPER, SMALL, WIDTH, ArmStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LINES = 60
"""Thin lines drawn per arm or figure; medians and intervals are over all runs read."""
MAX_POINTS = 200
"""Small points drawn per row of differences."""
MAX_ROWS = 24
"""Rows of the figure of differences."""
MAX_METRICS = 14
"""Panels of the forest plot."""


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
        low, high = parts.around(metric, metric.margin)
        axes.axvspan(low, high, color=MUTED, alpha=0.13, linewidth=0)
    axes.axvline(parts.no_difference(metric), color=INK, linewidth=1)
    for row, found in enumerate(rows):
        _difference_row(axes, metric, found, row, styles[found.arm])
    axes.set_yticks(range(len(rows)), [parts.short(found.arm) for found in rows], color=INK)
    room = 0.5 if len(rows) > 2 else 0.8
    axes.set_ylim(len(rows) - 1 + room, -room)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(parts.difference_label(metric, results.comparison.baseline), loc="right")
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


def forest(results: Results) -> Drawn | None:
    """Every metric and arm against the baseline: one axis per metric, in its own unit, with margin and noise floor."""
    from matplotlib.figure import Figure

    found = [
        (metric, rows)
        for metric in results.metrics
        if (rows := [c for c in metric.contrasts if c.estimate is not None])
    ]
    if not found:
        return None
    drawn = found[:MAX_METRICS]
    arms = max(len(rows) for _, rows in drawn)
    shown = min(arms, MAX_ARMS)
    heights = [0.34 + 0.13 * min(len(rows), MAX_ARMS) for _, rows in drawn]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.1), layout="constrained")
    grid = figure.subplots(len(drawn), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    styles = parts.styles(results)
    for axes, (metric, rows) in zip(grid[:, 0], drawn, strict=True):
        _forest_panel(axes, metric, rows[:MAX_ARMS], styles, single=arms == 1)
    caption = (
        f"Mean effect against {parts.short(results.comparison.baseline)} with its {parts.confidence(results)} interval, where there "
        "is one; filled: a verdict, hollow: inconclusive. Upright: no difference."
    )
    caption += " Shaded: the margin." if any(metric.margin is not None for metric, _ in drawn) else ""
    if any(metric.floor is not None and metric.floor.value is not None for metric, _ in drawn):
        caption += " Dashed: the noise floor."
    return figure, caption + parts.cap(len(found), len(drawn), "metrics") + parts.cap(arms, shown, "arms")


def _forest_panel(
    axes: "Axes", metric: MetricResult, rows: list[Contrast], styles: dict[str, ArmStyle], *, single: bool
) -> None:
    axes.set_facecolor("none")
    none, ends = parts.no_difference(metric), [parts.no_difference(metric)]
    if metric.margin is not None:
        low, high = parts.around(metric, metric.margin)
        axes.axvspan(low, high, color=MUTED, alpha=0.16, linewidth=0)
    if metric.floor is not None and metric.floor.value is not None:
        for end in parts.around(metric, metric.floor.value):
            axes.axvline(end, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
    axes.axvline(none, color=INK, linewidth=0.8)
    for row, line in enumerate(rows):
        assert line.estimate is not None
        style, centre = styles[line.arm], parts.readable(metric, line.estimate)
        found = line.interval
        if found is not None and found.low is not None and found.high is not None:
            across = [parts.readable(metric, end) for end in (found.low, found.high)]
            axes.plot(across, [row, row], color=style.colour, linewidth=1.6, solid_capstyle="butt")
            ends += across
        face = PAPER if line.verdict == "inconclusive" else style.colour
        axes.plot(
            [centre], [row], linestyle="", marker=style.marker, markersize=5, markerfacecolor=face,
            markeredgecolor=style.colour, markeredgewidth=1.2, zorder=4,
        )  # fmt: skip
        ends.append(centre)
    better = "right" if metric.direction == "higher" else "left"
    title = f"{metric.title[:1].upper()}{metric.title[1:]}"
    axes.set_title(
        f"{title} ({parts.effect(metric)}; better: {better})", loc="left", fontsize=SMALL, color=INK, pad=2
    )
    axes.set_yticks(
        [] if single else range(len(rows)), [] if single else [parts.short(line.arm, 14) for line in rows]
    )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.tick_params(labelsize=SMALL, pad=1)
    parts.plain_ticks(axes.xaxis)
    if metric.scale == "ratio":
        parts.log_axis(axes, "x", ends)


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
