"""Telemetry in the report: real samplers beside a card that throttles, or none; the loss on their clock."""

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import standin
from made_results import Made
from standin import at, card

from assay.records import Log, Record
from assay.reporting import html, timelines
from assay.reporting.read import ReportError, Results, load
from assay.reporting.run import report
from assay.reporting.style import drawing
from assay.reporting.tables import tables
from assay.reporting.timelines import CPU_PANELS, GPU_PANELS, MAX_POINTS, Told, _draw, _panels, plots, read
from assay.telemetry.beside import Sampler
from assay.telemetry.window import Window, lines

Watched = Callable[..., Results]


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Watched:
    """watched(directives…): the run of mlp at seed 0 was really sampled for a while, its steps logged meanwhile."""
    results = Made(tmp_path, seeds=2, blocks=1, logs=False).make()

    def run(*directives: str, arm: str = "mlp", seed: int = 0, samples: int = 10) -> Results:
        gpus = (standin.UUID,) if directives else ()
        if gpus:
            library = request.getfixturevalue("nvml")
            standin.install(monkeypatch, library, tmp_path / "scenario", *directives)
        folder = results / "runs" / arm / f"seed-{seed}" / "train"
        with (
            Sampler(folder / "telemetry.jsonl", interval=0.02, gpus=gpus),
            Log(folder / "log.jsonl", identity={"arm": arm, "seed": seed}) as log,
        ):
            standin.wait_for_samples(folder / "telemetry.jsonl", 1)
            for step in range(1, 11):
                time.sleep(0.02)
                log.write("step", step=step, loss=2.3 / step)
            standin.wait_for_samples(folder / "telemetry.jsonl", samples)
        record = Record.read(folder / "record.json")
        summary = Window(folder / "telemetry.jsonl").summary()
        assert summary is not None
        record.model_copy(update={"telemetry": summary}).write(folder / "record.json")
        return load(results)

    return run


def drawn(results: Results, name: str):
    (plot,) = [plot for plot in plots(results) if plot.name == name]
    with drawing(salt=name):
        return plot.draw(results)


def labels(figure) -> list[str]:
    return [axes.get_ylabel() for axes in figure.axes]


def shaded(axes) -> list[tuple[float, float]]:
    """From where to where spans over the whole height lie."""
    boxes = [patch.get_bbox() for patch in axes.patches]
    return [(box.x0, box.x1) for box in boxes]


def test_throttling_is_shaded_where_it_was(watched: Watched) -> None:
    hot = at(25, temperature=88, sm=1200, power=300_000, reasons=0x28)
    results = watched(standin.BY_READINGS, card(reasons=4), at(15, reasons=0), hot, samples=35)
    figure, caption = drawn(results, "telemetry-mlp-seed-0")
    assert labels(figure) == ["loss", *(panel.title for panel in GPU_PANELS)]
    told = read(results.run_path("mlp", 0, "train", "telemetry.jsonl"))
    first, after_cap = told.held.index(True), told.capped.index(False)
    assert 0 < after_cap <= first and all(told.held[first:]) and not any(told.capped[after_cap:])
    for axes in figure.axes:
        spans = shaded(axes)
        assert len(spans) == 2, "heat, and before it the power limit"
        begin, end = spans[0]
        assert begin == pytest.approx(told.times[first] - told.times[0], abs=1e-6)
        assert end >= told.times[-1] - told.times[0]
        cap_ends = told.times[after_cap] - told.times[0]
        assert spans[1] == pytest.approx((0, cap_ends), abs=1e-6) and cap_ends <= begin
    assert "Shaded orange: heat or a fault" in caption and "Shaded yellow: the power limit" in caption
    (row,) = [row for row in tables_of(results, "telemetry") if row["of"] == "seed 0"]
    assert 0 < row["throttled_share"] < 1 and row["temperature_c"] == 88 and row["gpu"] == standin.UUID


def test_the_loss_lies_on_the_clock_of_the_samples(watched: Watched) -> None:
    results = watched(card())
    figure, _ = drawn(results, "telemetry-mlp-seed-0")
    (loss,) = figure.axes[0].lines
    (use,) = figure.axes[1].lines
    folder = results.run_path("mlp", 0, "train")
    logged = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines(folder / "log.jsonl")]
    sampled = read(folder / "telemetry.jsonl").times
    assert list(loss.get_xdata() - use.get_xdata()[0]) == pytest.approx(
        [t - sampled[0] for t in logged], abs=1e-5
    )
    assert list(loss.get_ydata()) == pytest.approx([2.3 / step for step in range(1, 11)])
    assert use.get_xdata()[-1] > loss.get_xdata()[-1], "the last sample is taken after the last step"
    assert figure.axes[0].get_shared_x_axes().joined(figure.axes[0], figure.axes[-1])


def test_a_healthy_card_is_not_shaded(watched: Watched) -> None:
    figure, caption = drawn(watched(card()), "telemetry-mlp-seed-0")
    assert [shaded(axes) for axes in figure.axes] == [[]] * len(figure.axes)
    assert caption.startswith("At no sample heat or a fault")


def test_on_a_cpu_there_is_no_panel_and_no_column_of_a_gpu(watched: Watched, tmp_path: Path) -> None:
    results = watched()
    figure, caption = drawn(results, "telemetry-mlp-seed-0")
    assert set(labels(figure)) <= {"loss", *(panel.title for panel in CPU_PANELS)}
    assert {"loss", "load"} <= set(labels(figure)) and "GPU" not in caption
    (table,) = [table for table in tables(results) if table.name == "telemetry"]
    assert {"GPU", "Power", "Throttled", "SM clock"}.isdisjoint(column.title for column in table.columns)
    report(results=results.folder, output=tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "figure-telemetry-mlp-seed-0" in page and "What the machine did" in page
    assert "throttled most" not in page, "one run was watched, and it is drawn"


def test_what_a_driver_does_not_tell_gets_no_panel(watched: Watched) -> None:
    results = watched(card(sm=None, mem=None, power=None, limit=None, memory_temperature=None))
    figure, _ = drawn(results, "telemetry-mlp-seed-0")
    assert labels(figure) == ["loss", "in use (%)", "heat (°C)"]
    assert len(figure.axes[-1].lines) == 1


def test_a_lost_card_is_marked_and_its_run_is_the_one_that_is_drawn(watched: Watched) -> None:
    watched(card())
    results = watched(standin.BY_READINGS, card(), at(5, standin.UUID, lost=1), seed=1)
    names = [plot.name for plot in plots(results)]
    assert names == ["telemetry-mlp-seed-1"]
    assert results.runs[1].telemetry.gpus[0].lost is not None
    _, caption = drawn(results, names[0])
    assert "the GPU was lost" in caption and "Drawn: 1 of 2 runs of the arm" in caption


def test_without_telemetry_there_is_nothing_of_it(made: Path) -> None:
    results = load(made)
    assert plots(results) == []
    assert not [table for table in tables(results) if table.name == "telemetry"]
    assert "What the machine did" not in html.page(results, tables(results), [])


def test_a_file_that_is_gone_costs_its_figure_alone(watched: Watched) -> None:
    results = watched()
    results.run_path("mlp", 0, "train", "telemetry.jsonl").unlink()
    assert drawn(results, "telemetry-mlp-seed-0") is None
    assert [table for table in tables(results) if table.name == "telemetry"]


@pytest.mark.parametrize("damage", ["nonsense\n", '{"event": "sample"}\n', "[1]\n"])
def test_a_damaged_file_is_named(watched: Watched, damage: str) -> None:
    results = watched()
    path = results.run_path("mlp", 0, "train", "telemetry.jsonl")
    path.write_text(path.read_text() + damage)
    with pytest.raises(ReportError, match=r"seed-0/train/telemetry\.jsonl: not telemetry: .*remove the file"):
        read(path)
    path.write_text(path.read_text().removesuffix(damage) + '{"event": "samp')
    assert len(read(path).times) >= 2, "the half line of a killed sampler is left out"


def test_a_damaged_log_of_infinite_losses_is_no_obstacle(watched: Watched) -> None:
    results = watched()
    log = results.run_path("mlp", 0, "train", "log.jsonl")
    told = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps(line | {"loss": "nan"}) + "\n" for line in told))
    figure, _ = drawn(results, "telemetry-mlp-seed-0")
    assert "loss" not in labels(figure)


def test_many_samples_are_few_points_and_lose_no_peak() -> None:
    told = Told(on_gpu=True)
    for index in range(20_000):
        told.times.append(1e9 + 0.1 * index)
        told.held.append(index == 7777)
        told.capped.append(False)
    told.values = {"0 temperature_c": [60.0 + 30 * (index == 7777) for index in range(20_000)]}
    with drawing(salt="x"):
        figure, caption = _draw(told, None)
    (axes,) = figure.axes
    assert len(axes.lines[0].get_xdata()) <= MAX_POINTS
    assert axes.collections[0].get_datalim(axes.transData).y1 == pytest.approx(90)
    assert len(shaded(axes)) == 1 and "0.005% of the samples" in caption


def test_a_pause_between_two_attempts_is_a_gap(watched: Watched) -> None:
    told = Told(interval=0.1, values={"cpu load": [1.0] * 20})
    told.times = [1e9 + 0.1 * index + (3600 if index >= 10 else 0) for index in range(20)]
    told.held = told.capped = [False] * 20
    with drawing(salt="x"):
        figure, _ = _draw(told, None)
    xs = figure.axes[0].lines[0].get_xdata()
    assert len(xs) == 21 and xs[10] != xs[10], "NaN: the line is broken there"


def test_of_a_long_file_every_so_many_samples_are_read(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = watched()
    path = results.run_path("mlp", 0, "train", "telemetry.jsonl")
    all_of_them = read(path)
    assert all_of_them.stride == 1
    monkeypatch.setattr(timelines, "READ_BYTES", path.stat().st_size // 3 + 1)
    some = read(path)
    assert some.stride == 3 and some.times == all_of_them.times[::3]
    assert "one in 3 samples" in drawn(results, "telemetry-mlp-seed-0")[1]


def test_several_cards_are_told_apart() -> None:
    told = Told(times=[0.0, 1.0], held=[False] * 2, capped=[False] * 2, on_gpu=True)
    told.values = {f"{gpu} utilization_percent": [50.0, 60.0] for gpu in (0, 1)}
    ((title, series),) = _panels(told)
    assert title == "in use (%)" and [label for label, _ in series] == ["GPU 0", "GPU 1"]


def tables_of(results: Results, name: str) -> list[dict]:
    (table,) = [table for table in tables(results) if table.name == name]
    return list(table.data)
