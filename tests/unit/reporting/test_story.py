"""What the report tells beyond the verdict: the order of the story, effects, trade-offs, classes, examples."""

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_results import ARMS, CLASSES, EXAMPLES, NAMES, Made

from assay.records import Record, RecordError
from assay.reporting import belief, effects, html, quality, samples, tradeoffs
from assay.reporting.examples import SHOWN, SIDE, Disagreement, disagreements, png
from assay.reporting.read import ReportError, Results, load
from assay.reporting.style import drawing
from assay.reporting.tables import tables
from assay.reporting.tradeoffs import pareto

ORDER = [
    "verdict",
    "sure",
    "costs",
    "believe",
    "assumed",
    "learnt",
    "arms",
    "environment",
    "evidence",
    "details",
]


def test_the_story_has_its_order(reported: Path) -> None:
    ids = re.findall(r'<h[12] id="([\w-]+)"', (reported / "index.html").read_text())
    assert [name for name in ids if name in ORDER] == ORDER


# --- effects --------------------------------------------------------------------------------------------


def test_every_effect_is_drawn_with_its_margin_and_its_floor(tmp_path: Path) -> None:
    results = load(Made(tmp_path, noise=True).make())
    with drawing(salt="x"):
        drawn = effects.forest(results)
    assert drawn is not None
    figure, caption = drawn
    assert len(figure.axes) == len(results.metrics) == 4
    for axes, metric in zip(figure.axes, results.metrics, strict=True):
        assert axes.get_title(loc="left").lower().startswith(metric.title.lower())
        (line,) = metric.contrasts
        points = [one for one in axes.lines if one.get_marker() not in ("None", None, "")]
        factor = 100 if metric.unit == "fraction" else 1
        assert [float(one.get_xdata()[0]) for one in points] == pytest.approx([factor * line.estimate])
        filled = points[0].get_markerfacecolor() == points[0].get_markeredgecolor()
        assert filled == (line.verdict != "inconclusive")
        assert len(axes.patches) == (metric.margin is not None)
        dashed = [one for one in axes.lines if one.get_linestyle() == "--"]
        assert len(dashed) == 2 * (metric.floor is not None and metric.floor.value is not None)
    box = figure.axes[0].patches[0].get_bbox()
    assert (box.x0, box.x1) == pytest.approx((-0.5, 0.5)), "the margin of 0.005, in percentage points"
    assert "Dashed: the noise floor" in caption and "Shaded: the margin" in caption


# --- trade-offs -----------------------------------------------------------------------------------------


def test_the_pareto_front_holds_those_that_no_other_beats() -> None:
    points = [
        ("dear", 9.0, 0.9),
        ("cheap", 1.0, 0.5),
        ("beaten", 2.0, 0.4),
        ("middle", 3.0, 0.7),
        ("twin", 3.0, 0.7),
    ]
    assert pareto(points) == ["cheap", "middle", "twin", "dear"]
    assert pareto([("worse", 2.0, 0.5), ("better", 1.0, 0.5)]) == ["better"]


def test_energy_is_drawn_only_where_it_was_measured_of_every_run(tmp_path: Path, made: Path) -> None:
    assert tradeoffs.accuracy_against_energy(load(made)) is None
    arms = {name: arm | {"energy": 40.0 * (1 + 9 * (name == "cnn"))} for name, arm in ARMS.items()}
    results = load(Made(tmp_path, arms=arms, seeds=3, blocks=0, logs=False).make())
    with drawing(salt="x"):
        drawn = tradeoffs.accuracy_against_energy(results)
    assert drawn is not None and "(mlp, cnn)" in drawn[1]
    spread = samples.training_energy(results, "cnn")
    assert spread is not None and spread.centre == pytest.approx(400)
    path = results.run_path("cnn", 1, "train", "record.json")
    record = Record.read(path)
    record.metrics["train_energy"].value = None
    record.write(path)
    assert samples.training_energy(load(results.folder), "cnn") is None


# --- classes and calibration ----------------------------------------------------------------------------


def test_differences_by_class_are_those_of_the_predictions(made: Path) -> None:
    results = load(made)
    (found,) = quality.class_differences(results)
    frames = {
        (arm, seed): pl.read_parquet(results.run_path(arm, seed, "evaluate", "predictions.parquet"))
        for arm in ARMS
        for seed in range(6)
    }
    for place, label in enumerate(NAMES):
        shares = {
            key: frame.filter(pl.col("label") == int(label))["correct"].mean()
            for key, frame in frames.items()
        }
        expected = [shares["cnn", seed] - shares["mlp", seed] for seed in range(6)]
        assert found.differences[:, place] == pytest.approx(expected)
    (table,) = [one for one in tables(results) if one.name == "per-class"]
    means = [abs(line["difference"]) for line in table.data]
    assert means == sorted(means, reverse=True) and len(means) == CLASSES


def test_the_calibration_error_is_the_mean_over_completed_runs_or_null(made: Path, tmp_path: Path) -> None:
    results = load(made)
    values = [
        Record.read(results.run_path("cnn", seed, "evaluate", "record.json"))
        .metrics["calibration_error"]
        .value
        for seed in range(6)
    ]
    assert quality.calibration_error(results, "cnn") == pytest.approx(np.mean(values))
    with drawing(salt="x"):
        drawn = quality.reliability(results)
    assert drawn is not None
    labels = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert labels[1] == f"cnn, ECE {100 * float(np.mean(values)):.2g}%"


def test_names_of_classes_are_shown_as_they_are(tmp_path: Path) -> None:
    names = ["$\\frac$", "$", "a\nb", "<b>", "", "_x", "中文", "%d & {}", "$a$b$", "x" * 200]
    results = load(Made(tmp_path, names=names, seeds=2, blocks=0, logs=False).make())
    with drawing(salt="x"):
        drawn = quality.per_class(results)
        assert drawn is not None
        drawn[0].draw_without_rendering()
    shown = {label.get_text() for label in drawn[0].axes[0].get_yticklabels()}
    assert {r"\$\frac\$", "a b", "<b>"} <= shown
    page = html.page(results, tables(results), [])
    assert "&lt;b&gt;" in page and "<b>\n" not in page


def test_damaged_classes_are_named(tmp_path: Path) -> None:
    results = load(Made(tmp_path, seeds=2, blocks=0, logs=False).make())
    path = results.run_path("cnn", 1, "evaluate", "record.json")
    for damage in ({"name": "0"}, 7, None):
        record = Record.read(path)
        record.details["per_class"] = [damage]
        record.write(path)
        with pytest.raises(
            RecordError, match=r"cnn/seed-1/evaluate/record\.json: details\.per_class: .*run the"
        ):
            load(results.folder)


# --- examples -------------------------------------------------------------------------------------------


def rewritten(results: Path, change: Callable[[str, int], dict[int, int]]) -> Results:
    """Predictions are the labels but where `change(arm, seed)` gives another class by index."""
    found = load(results)
    labels = np.arange(EXAMPLES) % CLASSES
    for run in found.runs:
        said = labels.copy()
        for index, other in change(run.arm, run.seed).items():
            said[index] = other
        frame = pl.DataFrame({"index": np.arange(EXAMPLES), "label": labels, "prediction": said})
        path = found.run_path(run.arm, run.seed, "evaluate", "predictions.parquet")
        frame.sample(fraction=1, shuffle=True, seed=run.seed).write_parquet(path)
    return found


def test_examples_are_chosen_by_the_rule(tmp_path: Path) -> None:
    made = Made(tmp_path, seeds=4, blocks=0, logs=False).make()

    def change(arm: str, seed: int) -> dict[int, int]:
        if arm == "mlp":
            wrong = {30: 7 if seed else 5, 12: 9}  # at every seed
            wrong |= {11: 4} if seed < 3 else {}  # at three of four
            wrong |= {13: 4} if seed < 2 else {}  # at half of them: not listed
            return wrong | ({14: 1} if seed < 3 else {})
        return {14: 1} if seed == 3 else {} | {15: 2}  # 14: once the other way, so not listed

    found = disagreements(rewritten(made, change))
    ahead, behind = found
    assert (ahead.right, ahead.wrong, ahead.seeds, ahead.tested) == ("cnn", "mlp", 4, EXAMPLES)
    assert [(one.index, one.label, one.said, one.times) for one in ahead.examples] == [
        (12, "2", "9", 4), (30, "0", "7", 4), (11, "1", "4", 3),
    ]  # fmt: skip
    assert (ahead.always, ahead.mostly) == (2, 3)
    assert [(one.index, one.times) for one in behind.examples] == [(15, 3)]


def test_thumbnails_are_the_images_of_the_store(made: Path) -> None:
    from PIL import Image

    found = disagreements(load(made))
    shown = [example for one in found for example in one.examples if example.image is not None]
    assert 0 < len(shown) <= 2 * SHOWN
    stored = np.load(made / "data" / "test.images.npy")
    for example in shown:
        content = base64.b64decode(str(example.image).removeprefix("data:image/png;base64,"))
        with Image.open(io.BytesIO(content)) as picture:
            assert np.array_equal(np.asarray(picture), stored[example.index, :, :, 0])
    large = np.zeros((400, 200, 3), np.uint8)
    with Image.open(io.BytesIO(png(large))) as picture:
        assert picture.size == (SIDE // 2, SIDE) and picture.mode == "RGB"


@pytest.mark.parametrize("damage", ["gone", "other"])
def test_without_the_data_of_the_records_there_are_no_thumbnails_and_the_rest_stays(
    tmp_path: Path, damage: str
) -> None:
    results = Made(tmp_path, seeds=3, blocks=0, logs=False).make()
    before = disagreements(load(results))
    manifest = results / "data" / "manifest.json"
    if damage == "gone":
        manifest.unlink()
    else:
        manifest.write_text(manifest.read_text() + " ")
    found = disagreements(load(results))
    assert any(one.image for each in before for one in each.examples)
    assert not any(one.image for each in found for one in each.examples)

    def numbers(found: list[Disagreement]) -> list[tuple[int, int]]:
        return [(one.index, one.times) for each in found for one in each.examples]

    assert numbers(before) == numbers(found)
    assert "data:image/png" not in html.page(load(results), [], [])


def test_failed_runs_and_lost_predictions_are_no_obstacle(tmp_path: Path) -> None:
    results = Made(tmp_path, seeds=3, blocks=0, logs=False, outcomes={("cnn", 1): "diverged"}).make()
    assert {one.seeds for one in disagreements(load(results))} == {2}
    (results / "runs/cnn/seed-0/evaluate/predictions.parquet").unlink()
    assert disagreements(load(results)) == []


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"nonsense"])
def test_damaged_predictions_are_named(tmp_path: Path, content: bytes) -> None:
    results = load(Made(tmp_path, seeds=2, blocks=0, logs=False).make())
    results.run_path("cnn", 1, "evaluate", "predictions.parquet").write_bytes(content)
    for read in (disagreements, quality.reliability):
        with pytest.raises(
            ReportError, match=r"cnn/seed-1/evaluate/predictions\.parquet: not readable.*run the"
        ):
            read(results)


# --- why to believe it ----------------------------------------------------------------------------------


def test_reasons_and_assumptions_follow_the_records(tmp_path: Path, made: Path) -> None:
    (visits,) = [line for line in belief.reasons(load(made)) if line[1].startswith("12 of 12 visits")]
    assert visits[0] == "unknown" and "not all of them were judged by the gates" in visits[1]

    def judge(record: Record) -> None:
        if record.stage == "profile":
            record.details["gates"] = [{"name": "cpu_contention", "status": "held"}]

    judged = load(Made(tmp_path / "judged", change=judge, logs=False, steps=1).make())
    assert dict(belief.reasons(judged))["held"] == "12 of 12 visits of arms in profile blocks are valid."
    results = load(made)
    assert dict(belief.assumptions(results))["completed"].startswith("12 of 12 runs completed")
    assert "host" in dict(belief.assumptions(results))

    def change(record: Record) -> None:
        record.environment.image = {"base_digest": "sha256:" + "a" * 64, "sif_sha256": "b" * 64}
        if record.stage == "train" and record.seed == 2:
            record.resumed = True
        if record.stage == "profile" and record.block == 1:
            record.outcome = "invalid"

    other = load(Made(tmp_path, change=change, blocks=2, outcomes={("cnn", 1): "diverged"}).make())
    told = dict(belief.reasons(other))
    assert (
        told["invalid"].startswith("2 of 4 visits") and "2 were measured in circumstances" in told["invalid"]
    )
    found = dict(belief.assumptions(other))
    assert found["missing"].startswith("11 of 12 runs completed") and "inconclusive" in found["missing"]
    assert "left out for all arms alike" in found["missing"]
    assert found["resumed"].startswith("2 runs resumed") and "learnt is the same, and" in found["resumed"]
    path = other.folder / "experiment.yaml"
    path.write_text(path.read_text().replace("deterministic: true", "deterministic: false"))
    assert "but for what is not deterministic" in dict(belief.assumptions(load(other.folder)))["resumed"]
    (contract,) = [text for _, text in belief.reasons(other) if "of the contract" in text]
    resumed = next(line for line in other.contract.variables if line.name == "training.resumed")
    assert resumed.status == "varies" and "different in ways that do not bias" in contract
    assert "of what could bias, only declared factors differ" in belief.contract_note(other)
    assert found["pinned"] == "All records come from one pinned image."


def test_a_block_that_is_not_valid_is_left_out_and_not_a_missing_pair(tmp_path: Path) -> None:
    """statistics.md: the machine decides that, not how a model came out; the other blocks are compared."""

    def change(record: Record) -> None:
        if record.stage == "profile" and record.block == 1:
            record.outcome = "invalid"

    found = dict(belief.assumptions(load(Made(tmp_path, change=change, logs=False, steps=1).make())))
    assert "missing" not in found
    assert "left out for all arms alike, and the others are compared" in found["invalid"]
    assert "inconclusive" not in found["invalid"]


def test_the_verdicts_card_says_which_costs_are_undecided(tmp_path: Path) -> None:
    """Three blocks can decide nothing: their ratio is not told as if they had."""
    metrics = tuple({"name": name} for name in ("accuracy", "latency_ms", "parameters"))
    results = load(Made(tmp_path, metrics=metrics, blocks=3, logs=False, steps=1).make())
    costs = dict(html._costs(results, "cnn"))
    latency, parameters = (
        next(text for title, text in costs.items() if title.startswith(word))
        for word in ("latency", "parameters")
    )
    assert latency.endswith(", inconclusive") and "inconclusive" not in parameters
