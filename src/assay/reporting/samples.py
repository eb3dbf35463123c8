"""What figures and tables show of many samples: medians with intervals, curves on one grid, bins."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assay.reporting.logs import read_logs
from assay.reporting.read import ReportError, Results

if TYPE_CHECKING:
    import polars as pl

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
MAX_POINTS = 400
"""Points of one drawn line: a page cannot show more."""
MAX_PREDICTION_RUNS = 50
"""Runs per arm whose predictions the figure of calibration reads."""
BINS = 10


@dataclass(frozen=True)
class Spread:
    """A median over blocks with an interval; `confidence` null: lowest and highest block."""

    centre: float
    low: float
    high: float
    count: int
    confidence: float | None


def over_blocks(results: Results, arm: str, metric: str) -> Spread | None:
    """Median over the completed visits of an arm; null where none measured it."""
    values = sorted(
        visit.metrics[metric]
        for visit in results.visits
        if visit.arm == arm and visit.outcome == "completed" and metric in visit.metrics
    )
    return median_spread(values, results.comparison.confidence) if values else None


def training_energy(results: Results, arm: str, name: str = "train_energy") -> Spread | None:
    """Median over completed runs that were not resumed and had their devices to themselves; null where one of them was not measured."""
    runs = [
        run
        for run in results.runs
        if run.arm == arm and run.outcome == "completed" and not (run.resumed or run.shared)
    ]
    measured = [run.energy[name] for run in runs if name in run.energy]
    if not runs or len(measured) < len(runs):
        return None
    return median_spread(measured, results.comparison.confidence)


def geometric_mean(results: Results, arm: str, metric: str) -> float | None:
    """Over the completed visits of an arm, as verdicts on costs use it; null where not measured."""
    values = [
        visit.metrics[metric]
        for visit in results.visits
        if visit.arm == arm and visit.outcome == "completed" and metric in visit.metrics
    ]
    if not values or min(values) <= 0:
        return None
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def median_spread(values: Sequence[float], confidence: float) -> Spread:
    """Median with its distribution-free interval from order statistics (Conover 1999, section 3.2).

    [x(k), x(n+1-k)] covers the median with probability 1 - 2 P(Binomial(n, 1/2) < k). Below the n for which
    that can reach `confidence` (six for 95%), the range, with no confidence claimed.
    """
    ordered = sorted(values)
    n = len(ordered)
    k, tail = 0, 0.0
    while k < n // 2 and 1 - 2 * (tail + math.comb(n, k) / 2**n) >= confidence:
        tail += math.comb(n, k) / 2**n
        k += 1
    centre = float(np.median(ordered))
    if k == 0:
        return Spread(centre, ordered[0], ordered[-1], n, None)
    return Spread(centre, ordered[k - 1], ordered[n - k], n, 1 - 2 * tail)


def smallest_batch(results: Results) -> int:
    return results.experiment.profile.batch_sizes[0]


def median_curve(lines: Sequence[Curve]) -> Curve:
    """Median over lines at every x that at least half of them reach: lines that ended early are no matter."""
    grid, table = _on_one_grid(lines)
    return grid, np.nanmedian(table, axis=0)


def band(lines: Sequence[Curve]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """x, first and third quartile over lines, where `median_curve` has its median."""
    grid, table = _on_one_grid(lines)
    low, high = np.nanquantile(table, (0.25, 0.75), axis=0)
    return grid, low, high


def _on_one_grid(lines: Sequence[Curve]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x that at least half of the lines reach, float64 [X], and their values there, float64 [lines, X]."""
    grid = np.unique(np.concatenate([xs for xs, _ in lines]))
    table = np.full((len(lines), len(grid)), np.nan)
    for row, (xs, ys) in enumerate(lines):
        table[row, np.searchsorted(grid, xs)] = ys
    enough = 2 * np.isfinite(table).sum(axis=0) >= len(lines)
    return grid[enough], np.where(np.isfinite(table), table, np.nan)[:, enough]


def training_losses(results: Results, arms: Sequence[str], *, runs: int) -> dict[str, list[Curve]]:
    """Loss by step of up to `runs` runs per arm, averaged over stretches of steps where there are many."""
    import polars as pl

    curves: dict[str, list[Curve]] = {}
    for arm in arms:
        seeds = results.experiment.seeds
        chosen = [
            seeds[i] for i in np.unique(np.linspace(0, len(seeds) - 1, min(runs, len(seeds))).astype(int))
        ]
        paths = [results.run_path(arm, seed, "train", "log.jsonl") for seed in chosen]
        lines = read_logs([path for path in paths if path.exists()], ["seed", "event", "step", "loss"])
        steps = lines.filter((pl.col("event") == "step") & pl.col("loss").is_not_null())
        if steps.is_empty():
            continue
        width = max(1, math.ceil(int(steps["step"].max()) / MAX_POINTS))  # type: ignore[arg-type]
        stretch = (pl.col("step") // width * width + (width - 1) / 2).alias("x")
        means = steps.group_by("seed", stretch).agg(pl.col("loss").mean()).sort("seed", "x")
        curves[arm] = [
            (part["x"].to_numpy(), part["loss"].to_numpy())
            for part in means.partition_by("seed", maintain_order=True)
        ]
    return curves


def predictions(path: Path, columns: Sequence[str]) -> "pl.DataFrame":
    """Those columns of a run's predictions. Raises: ReportError naming a file that cannot be read."""
    import polars as pl

    try:
        return pl.read_parquet(path, columns=list(columns))
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).partition("\n")[0]
        raise ReportError(
            f"{path}: not readable as predictions ({first}); remove its folder and run the experiment again"
        ) from None


@dataclass(frozen=True)
class Reliability:
    """Mean confidence and accuracy by bin: float64 `[bins]`."""

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    runs: int


def reliability(results: Results, arm: str) -> Reliability | None:
    """Predictions of the arm's completed runs, in bins of equal count; null where there are none."""
    import polars as pl

    completed = [run.seed for run in results.runs if run.arm == arm and run.outcome == "completed"]
    paths = [
        path
        for seed in completed[:MAX_PREDICTION_RUNS]
        if (path := results.run_path(arm, seed, "evaluate", "predictions.parquet")).exists()
    ]
    if not paths:
        return None
    table = pl.concat([predictions(path, ["confidence", "correct"]) for path in paths])
    confidence = table["confidence"].cast(pl.Float64).to_numpy()
    correct = table["correct"].cast(pl.Float64).to_numpy()
    if len(confidence) < 5 * BINS:
        return None
    order = np.argsort(confidence, kind="stable")
    bins = np.array_split(order, BINS)
    means = [(float(confidence[part].mean()), float(correct[part].mean())) for part in bins]
    return Reliability(np.array([c for c, _ in means]), np.array([a for _, a in means]), len(paths))
