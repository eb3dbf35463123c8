"""An evaluation's record is believed only as far as its predictions bear it out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from assay.comparison.recompute import Recomputation
from assay.evaluation import summary, table
from assay.records import Record, RecordError, sha256_file

Make = Callable[..., Any]
ACCURACY = {"mlp": [0.91, 0.92, 0.93], "cnn": [0.95, 0.96, 0.97]}
LOSS = {"mlp": [0.3] * 3, "cnn": [0.2] * 3}


@pytest.fixture
def made(make: Make) -> Any:
    """Whose records have all that an evaluation writes, over 400 examples of 12 classes."""
    made = make({"accuracy": ACCURACY, "loss": LOSS})
    labels = np.random.default_rng(0).integers(0, 12, 400)
    for path in sorted(made.folder.rglob("evaluate/record.json")):
        record = Record.read(path)
        generator = np.random.default_rng([record.seed or 0, list(ACCURACY).index(record.arm or "")])
        scores = generator.normal(size=(400, 12)) + 3 * np.eye(12)[labels]
        scores -= scores.max(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        found = table.Predictions(labels, np.exp(logs), -logs[np.arange(400), labels])
        record.predictions_sha256 = table.write(found, path.with_name(table.FILE), threads=1)
        record.metrics = summary.measurements(found)
        record.details = summary.details(found, [f"class {i}" for i in range(12)])
        record.write(path)
    return made


def file_of(made: Any, arm: str = "cnn", seed: int = 1) -> Path:
    return Path(made.path(arm, seed)).with_name(table.FILE)


def rewrite(made: Any, *columns: Any, arm: str = "cnn", seed: int = 1) -> None:
    """Change predictions, and their checksum in the record too."""
    path = file_of(made, arm, seed)
    polars.read_parquet(path).with_columns(*columns).write_parquet(path)
    made.edit(arm, seed, "evaluate", lambda record: record.update(predictions_sha256=sha256_file(path)))


def test_what_evaluations_leave_is_believed(made: Any) -> None:
    assert made.compare().valid


@pytest.mark.parametrize("name", ["accuracy", "top5_accuracy", "loss", "macro_f1", "calibration_error"])
@pytest.mark.parametrize("error", [1.0, 1e-3, -1e-3])
def test_an_edited_metric_is_refused(made: Any, name: str, error: float) -> None:
    before = Record.read(made.path("cnn", 1)).metrics[name].value
    assert before is not None
    edited = 0.999 if error == 1.0 else before + error
    made.edit("cnn", 1, "evaluate", lambda record: record["metrics"][name].update(value=edited))
    with pytest.raises(RecordError) as caught:
        made.compare()
    text = str(caught.value)
    assert text.startswith(
        f"{made.path('cnn', 1)}: metrics.{name}: is {edited!r}, and predictions.parquet beside it"
    )
    assert float(text.partition("gives ")[2].partition(";")[0]) == pytest.approx(before, rel=1e-5)
    assert "put back the record" in text


def test_a_value_made_null_and_a_wrong_count_are_refused(made: Any) -> None:
    made.edit("mlp", 0, "evaluate", lambda record: record["metrics"]["loss"].update(value=None))
    with pytest.raises(
        RecordError, match=r"metrics\.loss: is null, and predictions\.parquet beside it gives"
    ):
        made.compare()
    made.edit("mlp", 0, "evaluate", lambda record: record["metrics"].pop("loss"))
    made.edit("mlp", 0, "evaluate", lambda record: record["metrics"]["accuracy"].update(count=4000))
    with pytest.raises(RecordError, match=r"metrics\.accuracy\.count: is 4000\.0, .* gives 400"):
        made.compare()


def test_accuracy_by_class_and_by_confidence_are_held_against_predictions(made: Any) -> None:
    path = made.path("mlp", 2)
    whole = path.read_text()
    for key, line, name in (
        ("per_class", 3, "correct"),
        ("per_class", 0, "accuracy"),
        ("reliability", 14, "count"),
    ):
        made.edit("mlp", 2, "evaluate", lambda r, k=key, i=line, n=name: r["details"][k][i].update({n: 0.5}))
        with pytest.raises(RecordError, match=rf"details\.{key}\.{line}\.{name}: is 0\.5"):
            made.compare()
        path.write_text(whole)
    made.edit("mlp", 2, "evaluate", lambda record: record["details"]["per_class"].pop())
    with pytest.raises(RecordError, match=r"details\.per_class: has 11 lines"):
        made.compare()


def test_a_value_where_there_can_be_none_is_refused(make: Make) -> None:
    made = make({"accuracy": ACCURACY, "top5_accuracy": {arm: [0.99] * 3 for arm in ACCURACY}})
    with pytest.raises(RecordError, match=r"metrics\.top5_accuracy: is 0\.99, .* there is none \(null\)"):
        made.compare()


def damage_missing(path: Path) -> None:
    path.unlink()


def damage_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_emptied(path: Path) -> None:
    path.write_bytes(b"")


def damage_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def damage_replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_missing, "no predictions"),
        (damage_truncated, "is not a whole Parquet file"),
        (damage_emptied, "is not a whole Parquet file"),
        (damage_flipped, ""),
        (damage_replaced_by_a_folder, "no predictions"),
    ],
)
def test_damaged_predictions_are_refused(made: Any, damage: Callable[[Path], None], words: str) -> None:
    damage(file_of(made))
    with pytest.raises(RecordError, match=rf"cnn/seed-1/evaluate/predictions\.parquet: .*{words}") as caught:
        made.compare()
    assert "remove its folder and run the experiment again" in str(caught.value)


@pytest.mark.parametrize(("arm", "seed"), [("mlp", 1), ("cnn", 2)])
def test_predictions_swapped_between_arms_or_seeds_are_refused(made: Any, arm: str, seed: int) -> None:
    mine, other = file_of(made), file_of(made, arm, seed)
    content = mine.read_bytes()
    shutil.copy(other, mine)
    other.write_bytes(content)
    with pytest.raises(
        RecordError, match=r"SHA-256 is .*, and record\.json beside it says .*predictions_sha256"
    ):
        made.compare()


def test_a_whole_evaluation_of_another_training_is_refused(made: Any) -> None:
    for name in ("record.json", table.FILE):
        shutil.copy(made.path("cnn", 2).with_name(name), made.path("cnn", 1).with_name(name))
    made.edit("cnn", 2, "train", lambda record: record.update(weights_sha256="2" * 64))
    made.edit("cnn", 1, "evaluate", lambda record: record.update(weights_sha256="2" * 64, seed=1))
    with pytest.raises(
        RecordError, match=r"seed-1/evaluate/record\.json: weights_sha256: is 2222.* another run's"
    ):
        made.compare()


def test_a_record_that_names_no_predictions_is_refused(made: Any) -> None:
    made.edit("cnn", 1, "evaluate", lambda record: record.update(predictions_sha256=None))
    with pytest.raises(RecordError, match="says None"):
        made.compare()


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ((polars.col("label") + 1) % 12, "correct: is not prediction = label"),
        (polars.lit(True).alias("correct"), "correct: is not"),
        (polars.col("prediction") * 0, "prediction: is not the most probable class"),
        (polars.col("confidence") * 0.9, "confidence: is not the highest"),
        (polars.col("loss") * 0.9, "loss: is not minus the logarithm"),
        (polars.col("label") + 12, "label: is not one of 12 classes"),
        (polars.col("index") + 1, "index: the examples are not"),
        (polars.col("loss").cast(polars.Float64), "loss: is Float64, not Float32"),
        (polars.col("probabilities").list.head(3), "label: is not one of 3 classes"),
        (polars.lit(None, polars.Float32).alias("loss"), "not every example has all its values"),
        (polars.lit(float("nan"), polars.Float32).alias("loss"), "loss: is not minus"),
    ],
)
def test_predictions_that_contradict_themselves_are_refused(made: Any, column: Any, words: str) -> None:
    rewrite(made, column)
    with pytest.raises(RecordError, match=words):
        made.compare()


def other_labels(made: Any, arm: str, seed: int, count: int = 400) -> None:
    """Predictions of another split, with numbers that are right for it."""
    path = made.path(arm, seed)
    record = Record.read(path)
    labels = np.random.default_rng(1).integers(0, 12, count)
    probabilities = np.full((count, 12), 0.1 / 11)
    probabilities[np.arange(count), labels] = 0.9
    found = table.Predictions(labels, probabilities, np.full(count, -np.log(0.9)))
    record.predictions_sha256 = table.write(found, path.with_name(table.FILE), threads=1)
    record.metrics, record.details = summary.measurements(found), {}
    record.write(path)


@pytest.mark.parametrize("count", [400, 399])
def test_predictions_of_another_split_are_refused_by_the_other_runs(made: Any, count: int) -> None:
    other_labels(made, "cnn", 1, count)
    with pytest.raises(
        RecordError, match=r"cnn/seed-1/.*mlp/seed-0/evaluate/predictions\.parquet.* another split"
    ):
        made.compare()


def test_predictions_of_another_split_are_refused_by_the_prepared_data(made: Any) -> None:
    stored = made.folder / "data" / "test.labels.npy"
    stored.parent.mkdir()
    labels = polars.read_parquet(file_of(made))["label"].to_numpy()
    np.save(stored, labels)
    check = Recomputation(stored.parent).check
    check(made.path("cnn", 1), Record.read(made.path("cnn", 1)), None)
    other_labels(made, "cnn", 1)
    with pytest.raises(RecordError, match=r"label: is \d+ for example \d+, and .*test\.labels\.npy has"):
        check(made.path("cnn", 1), Record.read(made.path("cnn", 1)), None)
    stored.write_bytes(b"")
    with pytest.raises(RecordError, match=r"test\.labels\.npy: cannot be read"):
        Recomputation(stored.parent).check(made.path("cnn", 1), Record.read(made.path("cnn", 1)), None)


@pytest.mark.parametrize("edge", [1 / 3, 0.2, 7 / 15, 1.0])
def test_rounding_at_an_edge_of_a_bin_is_no_difference(made: Any, edge: float) -> None:
    """Confidence on an edge, to double precision on either side of it; by single precision it falls on one."""
    path = made.path("mlp", 0)
    record = Record.read(path)
    labels = polars.read_parquet(file_of(made))["label"].to_numpy()
    for shift in (-1e-12, 0.0, 1e-12):
        probabilities = np.full((400, 12), (1 - edge) / 11)
        probabilities[np.arange(400), labels] = edge + shift
        probabilities = probabilities.clip(1e-300, 1.0)
        losses = -np.log(probabilities[np.arange(400), labels])
        found = table.Predictions(labels, probabilities, losses)
        record.predictions_sha256 = table.write(found, path.with_name(table.FILE), threads=1)
        record.metrics = summary.measurements(found)
        record.details = summary.details(found, [str(i) for i in range(12)])
        record.write(path)
        assert made.compare().valid


def test_probabilities_too_small_for_single_precision_are_no_difference(made: Any) -> None:
    path = made.path("mlp", 0)
    record = Record.read(path)
    labels = polars.read_parquet(file_of(made))["label"].to_numpy()
    scores = 300 * np.random.default_rng(6).normal(size=(400, 12))
    scores -= scores.max(axis=1, keepdims=True)
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    found = table.Predictions(labels, np.exp(logs), -logs[np.arange(400), labels])
    record.predictions_sha256 = table.write(found, path.with_name(table.FILE), threads=1)
    record.metrics, record.details = summary.measurements(found), {}
    record.write(path)
    assert max(found.losses) > 500
    assert made.compare().valid


def test_classes_that_single_precision_cannot_tell_apart_are_no_difference(made: Any) -> None:
    """Top-5 of twelve classes whose probabilities differ in the tenth digit only."""
    path = made.path("mlp", 0)
    record = Record.read(path)
    labels = polars.read_parquet(file_of(made))["label"].to_numpy()
    probabilities = 1 / 12 + 1e-10 * np.random.default_rng(5).normal(size=(400, 12))
    found = table.Predictions(labels, probabilities, -np.log(probabilities[np.arange(400), labels]))
    record.predictions_sha256 = table.write(found, path.with_name(table.FILE), threads=1)
    record.metrics, record.details = summary.measurements(found), {}
    record.write(path)
    assert json.loads(path.read_text())["metrics"]["top5_accuracy"]["value"] > 0
    assert made.compare().valid
