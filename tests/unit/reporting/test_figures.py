"""What the figures draw, against the records, computed here once more: a curve that is another's would still look well."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_results import ARMS
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from assay.comparison.model import Comparison
from assay.records import Record
from assay.reporting import effects, figures, quality, tradeoffs
from assay.reporting.parts import Drawn
from assay.reporting.read import Results, load
from assay.reporting.style import drawing


@pytest.fixture(scope="module")
def results(made: Path) -> Results:
    return load(made)


def drawn(found: Drawn | None) -> Figure:
    assert found is not None
    return found[0]


def metric(results: Results, name: str = "accuracy"):
    comparison = Comparison.read(results.folder / "comparison" / "comparison.json")
    return next(one for one in comparison.metrics if one.name == name)


def trained(results: Results, arm: str, seed: int) -> Record:
    return Record.read(results.run_path(arm, seed, "train", "record.json"))


def measured(results: Results, arm: str, name: str) -> list[float]:
    paths = [results.folder / "profile" / f"block-{block}" / arm / "record.json" for block in range(6)]
    return [Record.read(path).metrics[name].value for path in paths]


def thick(figure: Figure) -> dict[str, list[float]]:
    """y of the lines that have a name."""
    lines = figure.axes[0].get_lines()
    return {
        line.get_label(): list(line.get_ydata()) for line in lines if not line.get_label().startswith("_")
    }


def test_pairs_and_their_mean_are_those_of_the_comparison(results: Results) -> None:
    (line,) = metric(results).contrasts
    with drawing(salt="x"):
        figure = drawn(effects.differences(results))
    points, interval, centre = figure.axes[0].get_lines()[-3:]
    assert list(points.get_xdata()) == pytest.approx([100 * one for one in line.differences.values()])
    assert list(interval.get_xdata()) == pytest.approx([100 * line.interval.low, 100 * line.interval.high])
    assert list(centre.get_xdata()) == pytest.approx([100 * line.estimate])


def test_a_slope_joins_the_two_runs_of_a_seed(results: Results) -> None:
    arms = metric(results).arms
    with drawing(salt="x"):
        lines = drawn(effects.paired_slopes(results)).axes[0].get_lines()
    slopes = [tuple(line.get_ydata()) for line in lines if list(line.get_xdata()) == [0, 1]]
    expected = [
        (100 * arms["mlp"].values[str(seed)], 100 * arms["cnn"].values[str(seed)]) for seed in range(6)
    ]
    assert slopes == [pytest.approx(one) for one in expected]
    means = [line.get_ydata()[0] for line in lines if line.get_markersize() == 8]
    assert means == pytest.approx([100 * arms[arm].centre for arm in ("mlp", "cnn")])


def test_a_learning_curve_is_the_median_of_its_seeds_and_its_band_their_middle_half(results: Results) -> None:
    with drawing(salt="x"):
        figure = drawn(figures.validation_accuracy(results))
    bands = [one for one in figure.axes[0].collections if isinstance(one, PolyCollection)]
    for arm, band in zip(("mlp", "cnn"), bands, strict=True):
        table = np.array(
            [
                [100 * line["validation_accuracy"] for line in trained(results, arm, seed).details["history"]]
                for seed in range(6)
            ]
        )
        assert thick(figure)[arm] == pytest.approx(np.median(table, axis=0))
        heights = band.get_paths()[0].vertices[:, 1]
        low, high = np.quantile(table, (0.25, 0.75), axis=0)
        assert (heights.min(), heights.max()) == pytest.approx((low.min(), high.max()))


def test_the_training_loss_is_that_of_the_logs(results: Results) -> None:
    with drawing(salt="x"):
        figure = drawn(figures.training_loss(results))
    for arm in ARMS:
        table = []
        for seed in range(6):
            lines = [json.loads(line) for line in results.run_path(arm, seed, "train", "log.jsonl").open()]
            table.append(
                [line["loss"] for line in lines if line["event"] == "step" and line["loss"] is not None]
            )
        assert thick(figure)[arm] == pytest.approx(np.median(table, axis=0))


def test_an_arm_lies_at_its_latency_and_its_accuracy(results: Results) -> None:
    with drawing(salt="x"):
        lines = drawn(tradeoffs.accuracy_against_latency(results)).axes[0].get_lines()
    points = {line.get_label(): line.get_xydata()[0] for line in lines if line.get_label() in ARMS}
    for arm in ARMS:
        cost = np.median(measured(results, arm, "latency_ms@1"))
        assert list(points[arm]) == pytest.approx([cost, 100 * metric(results).arms[arm].centre])


def test_latency_by_batch_size_is_the_median_over_blocks(results: Results) -> None:
    with drawing(salt="x"):
        axes = drawn(figures.latency(results)).axes[0]
    for arm, container in zip(("mlp", "cnn"), axes.containers, strict=True):
        line = container.lines[0]
        expected = [np.median(measured(results, arm, f"latency_ms@{size}")) for size in (1, 16, 64)]
        assert list(line.get_xdata()) == [1, 16, 64] and list(line.get_ydata()) == pytest.approx(expected)


def test_calibration_is_accuracy_by_confidence(results: Results) -> None:
    import polars as pl

    with drawing(salt="x"):
        figure = drawn(quality.reliability(results))
    for arm in ARMS:
        paths = [results.run_path(arm, seed, "evaluate", "predictions.parquet") for seed in range(6)]
        table = pl.concat([pl.read_parquet(path) for path in paths])
        (found,) = [heights for label, heights in thick(figure).items() if label.startswith(f"{arm},")]
        assert np.mean(found) == pytest.approx(100 * table["correct"].mean()), "bins of equal count"
