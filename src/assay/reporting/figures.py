"""The figures of a report, each a function that returns a Figure or null where there is nothing to draw: cost and training.

No pyplot: figures are made and saved without a global state. What is capped says so in the caption.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from assay.reporting import effects, numbers, parts, quality, samples, tradeoffs
from assay.reporting.parts import MAX_ARMS, Drawn, Plot
from assay.reporting.read import Results

MAX_LINES = effects.MAX_LINES


def plots() -> tuple[Plot, ...]:
    """All figures but those of telemetry, in the order of the page."""
    return (
        Plot("differences", "Difference to the baseline", effects.differences),
        Plot("forest", "Every effect", effects.forest),
        Plot("paired-slopes", "Every pair", effects.paired_slopes),
        Plot("accuracy-against-latency", "Accuracy against latency", tradeoffs.accuracy_against_latency),
        Plot("accuracy-against-energy", "Accuracy against energy", tradeoffs.accuracy_against_energy),
        Plot("latency", "Latency against batch size", latency),
        Plot("validation-accuracy", "Learning curves", validation_accuracy),
        Plot("training-loss", "Training loss", training_loss),
        Plot("reliability", "Calibration", quality.reliability),
        Plot("per-class", "Class by class", quality.per_class),
    )


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
            axes.plot(xs, ys, color=style.colour, linewidth=0.5, alpha=0.3)
        grid, low, high = samples.band(lines)
        axes.fill_between(grid, low, high, color=style.colour, alpha=0.15, linewidth=0)
        xs, ys = samples.median_curve(lines)
        axes.plot(xs, ys, color=style.colour, linewidth=1.8, linestyle=style.dash, label=parts.short(arm))
    axes.xaxis.set_major_locator(parts.ticks(integer=True))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    parts.legend(axes, min(len(drawn), MAX_ARMS))
    caption = "Thin: one line per seed; thick: their median; band: the middle half of the seeds." + parts.cap(
        len(drawn), MAX_ARMS, "arms"
    )
    return figure, caption + parts.cap(len(results.experiment.seeds), MAX_LINES, "seeds an arm")
