"""Parts that several figures share: axes, legends, labels, and the words of captions."""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from assay.comparison.model import MetricResult
from assay.reporting import numbers, samples
from assay.reporting.read import Results
from assay.reporting.style import GRID, HEIGHT, SMALL, WIDTH, ArmStyle, arm_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

T = TypeVar("T")
MAX_ARMS = 8
"""Arms drawn in one figure; the tables have all."""

Drawn = tuple["Figure", str]
"""A figure and its caption."""


@dataclass(frozen=True)
class Plot:
    """A figure's name (of its files), its title, and the function that draws it."""

    name: str
    title: str
    draw: Callable[[Results], Drawn | None]


def figure(height: float = HEIGHT) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    return figure, axes


def plain_ticks(axis: "Axis") -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_locator(ticks())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}".replace("-", numbers.MINUS)))


def ticks(*, integer: bool = False) -> "MaxNLocator":
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=integer)


def styles(results: Results) -> dict[str, ArmStyle]:
    return {arm: arm_style(index) for index, arm in enumerate(results.arms)}


def short(name: str, most: int = 20) -> str:
    """Names often differ at their ends: the middle goes."""
    end = most * 2 // 5
    return name if len(name) <= most else f"{name[: most - end - 1]}…{name[-end:]}"


def literal(text: str) -> str:
    """Without what matplotlib takes for mathematics, and on one line."""
    return " ".join(text.split()).replace("$", r"\$")


def legend(axes: "Axes", entries: int) -> None:
    """Inside where few arms leave room, else below, in two columns where they fit."""
    if entries <= 3:
        axes.legend(loc="best")
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= 16 else 1
    figure.set_figheight(figure.get_figheight() + 0.16 * math.ceil(entries / columns))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, fontsize=SMALL, columnspacing=1.2
    )


def log_axis(axes: "Axes", which: str, values: Sequence[float]) -> None:
    """Logarithmic where the values span a factor of three, with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    positive = [value for value in values if value > 0]
    if not positive or max(positive) / min(positive) < 3:
        return
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    subdivisions = (1.0, 2.0, 5.0) if max(positive) / min(positive) < 300 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subdivisions))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x" if which == "x" else "y", which="minor", length=0)
    axes.grid(axis="x" if which == "x" else "y", which="major", color=GRID)


def label(metric: MetricResult) -> str:
    unit = "%" if metric.unit == "fraction" else metric.unit
    return f"{metric.title} ({unit})"


def difference_label(metric: MetricResult, baseline: str) -> str:
    unit = "percentage points" if metric.unit == "fraction" else metric.unit
    text = f"{metric.title} minus that of {short(baseline)} ({unit})"
    if metric.scale == "ratio":
        text = f"{metric.title}, times that of {short(baseline)}"
    return textwrap.fill(text, 32)


def replicate(metric: MetricResult) -> str:
    return "block" if metric.pairing == "block" else "seed"


def confidence(results: Results) -> str:
    return f"{100 * results.comparison.confidence:g}%"


def spread_words(cost: samples.Spread, replicate: str = "block") -> str:
    if cost.confidence is None:
        return f"from the lowest to the highest {replicate}"
    return f"{100 * cost.confidence:.3g}% interval of the median over {replicate}s"


def effect(metric: MetricResult) -> str:
    """Unit of a difference or ratio."""
    if metric.scale == "ratio":
        return "ratio"
    return {"fraction": "percentage points"}.get(metric.unit, metric.unit)


def readable(metric: MetricResult, value: float) -> float:
    return value if metric.scale == "ratio" or metric.unit != "fraction" else 100 * value


def on_axis(metric: MetricResult, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Paired differences in the axis' unit: those of ratios are logarithms."""
    if metric.scale == "ratio":
        return np.exp(values)
    return 100 * values if metric.unit == "fraction" else values


def no_difference(metric: MetricResult) -> float:
    return 1.0 if metric.scale == "ratio" else 0.0


def around(metric: MetricResult, value: float) -> tuple[float, float]:
    """Ends on the axis of a margin or noise floor, which is relative where the metric is compared by ratio."""
    if metric.scale == "ratio":
        return 1 / (1 + value), 1 + value
    return -readable(metric, value), readable(metric, value)


def array(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values])


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most that many, evenly from first to last."""
    if len(items) <= most:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, most).astype(int)]


def cap(total: int, shown: int, what: str) -> str:
    return f" Drawn: {shown:,} of {total:,} {what}." if total > shown else ""
