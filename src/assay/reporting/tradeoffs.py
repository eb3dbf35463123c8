"""Figures of what an arm is worth against what it costs, with the arms that no other beats in both."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from assay.comparison.model import ArmSummary
from assay.reporting import parts, samples
from assay.reporting.parts import MAX_ARMS, Drawn
from assay.reporting.read import Results
from assay.reporting.samples import Spread
from assay.reporting.style import MUTED, ArmStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORTH = ("accuracy", "macro_f1")


def accuracy_against_latency(results: Results) -> Drawn | None:
    size = samples.smallest_batch(results)
    costs = {arm: samples.over_blocks(results, arm, f"latency_ms@{size}") for arm in results.arms}
    return _against(results, costs, f"latency of a batch of {size} (ms, lower is better)", "block")


def accuracy_against_energy(results: Results) -> Drawn | None:
    """Only where the energy of every completed run of an arm was measured."""
    costs = {arm: samples.training_energy(results, arm) for arm in results.arms}
    return _against(results, costs, "energy of a training (J, lower is better)", "run")


def pareto(points: Sequence[tuple[str, float, float]]) -> list[str]:
    """Names of those, by cost, that no other beats: none costs as little and is worth as much, and one of both more so.

    points: name, cost (lower is better), worth (higher is better).
    """
    front = [
        (cost, name)
        for name, cost, worth in points
        if not any(c <= cost and w >= worth and (c < cost or w > worth) for _, c, w in points)
    ]
    return [name for _, name in sorted(front)]


def _draw_arm(axes: "Axes", style: ArmStyle, arm: str, cost: Spread, gain: ArmSummary, height: float) -> None:
    """A marker with both of its intervals. height: in percent."""
    low, high = (None, None) if gain.interval is None else (gain.interval.low, gain.interval.high)
    if low is not None and high is not None:
        axes.plot([cost.centre] * 2, [100 * low, 100 * high], color=style.colour, linewidth=1.4)
    axes.plot([cost.low, cost.high], [height] * 2, color=style.colour, linewidth=1.4)
    axes.plot(
        [cost.centre], [height], linestyle="", marker=style.marker, markersize=7,
        color=style.colour, label=parts.short(arm),
    )  # fmt: skip


def _against(
    results: Results, costs: Mapping[str, Spread | None], label: str, replicate: str
) -> Drawn | None:
    worth = next((metric for metric in results.metrics if metric.name in WORTH), None)
    if worth is None:
        return None
    drawn: list[tuple[str, Spread, ArmSummary, float]] = []
    for arm in results.arms:
        cost, gain = costs[arm], worth.arms[arm]
        if cost is not None and gain.centre is not None:
            drawn.append((arm, cost, gain, 100 * gain.centre))
    if not drawn:
        return None
    styles = parts.styles(results)
    figure, axes = parts.figure()
    front = pareto([(arm, cost.centre, height) for arm, cost, _, height in drawn])
    where = {arm: (cost.centre, height) for arm, cost, _, height in drawn}
    axes.plot(
        *zip(*(where[arm] for arm in front), strict=True),
        color=MUTED,
        linewidth=1,
        linestyle=(0, (2, 2)),
        zorder=1,
    )
    for point in drawn[: 2 * MAX_ARMS]:
        _draw_arm(axes, styles[point[0]], *point)
    parts.log_axis(axes, "x", [end for _, cost, _, _ in drawn for end in (cost.low, cost.high)])
    axes.margins(0.16, 0.2)
    axes.set_xlabel(label)
    axes.set_ylabel(parts.label(worth))
    parts.legend(axes, min(len(drawn), 2 * MAX_ARMS))
    best = "it" if len(front) == 1 else "them"
    caption = (
        f"Up and to the left is better. Upright: {parts.confidence(results)} interval; across: "
        f"{parts.spread_words(drawn[0][1], replicate)}. Dotted, the Pareto front: no arm beats {best} in both "
        f"({', '.join(map(parts.short, front[:MAX_ARMS]))})."
    )
    return figure, caption + parts.cap(len(drawn), 2 * MAX_ARMS, "arms")
