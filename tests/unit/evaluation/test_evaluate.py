"""Evaluation of real, short trainings on a small store."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars
import pytest
import torch
from safetensors.torch import load_file, save_file

from assay.config.arm import Arm
from assay.config.schema import Data
from assay.data.prepare import prepare
from assay.data.store import open_store
from assay.evaluation.run import Run, evaluate
from assay.records import Record, canonical_json, sha256_file
from assay.training.folder import Run as Training
from assay.training.run import train

torch.set_num_threads(1)
SETTINGS = {
    "model": {"source": "builtin:mlp"},
    "training": {"epochs": 2, "batch_size": 64},
    "execution": {"device": "cpu"},
}
METRICS = {"accuracy", "top5_accuracy", "loss", "macro_f1", "calibration_error"}
SCHEMA = {
    "index": polars.Int64,
    "label": polars.Int64,
    "prediction": polars.Int64,
    "confidence": polars.Float32,
    "loss": polars.Float32,
    "correct": polars.Boolean,
    "probabilities": polars.List(polars.Float32),
}
DIVERGING = """
import torch

class Net(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = torch.nn.LazyLinear(classes)

    def forward(self, images):
        return self.layer(images.flatten(1)) * float("nan")

def net(num_classes):
    return Net(num_classes)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "data"
    prepare(Data(source="digits"), folder, module_roots=[])
    return folder


def trained(folder: Path, store: Path, settings: dict, roots=()) -> Run:
    arm = Arm.model_validate(settings)
    shared = {"experiment": "e", "arm": "a", "seed": 3, "settings": arm, "data": store, "module_roots": roots}
    assert train(Training(**shared, output=folder / "train", checkpoint=folder / "checkpoint")) == 0
    return Run(**shared, train=folder / "train", output=folder / "evaluate")


@pytest.fixture(scope="module")
def run(tmp_path_factory, store):
    run = trained(tmp_path_factory.mktemp("run"), store, SETTINGS)
    evaluate(run)
    return run


@pytest.fixture
def copy(run, tmp_path):
    """The same training in a folder of its own, to be spoiled."""
    shutil.copytree(run.train, tmp_path / "train")
    return Run(**{**run.__dict__, "train": tmp_path / "train", "output": tmp_path / "evaluate"})


def record(run: Run) -> Record:
    return Record.read(run.output / "record.json")


def test_record_says_what_was_evaluated_and_how_well(run, store):
    found, training = record(run), Record.read(run.train / "record.json")
    assert (found.stage, found.arm, found.seed, found.outcome) == ("evaluate", "a", 3, "completed")
    assert found.weights_sha256 == training.weights_sha256
    assert found.data_sha256 == training.data_sha256
    assert found.spec == training.spec
    assert set(found.metrics) == METRICS
    count = len(open_store(store).split("test"))
    assert {one.count for one in found.metrics.values()} == {count}
    assert 0.5 < found.metrics["accuracy"].value <= found.metrics["top5_accuracy"].value <= 1
    assert sum(one["count"] for one in found.details["per_class"]) == count
    assert sum(one["count"] for one in found.details["reliability"]) == count


def test_predictions_are_the_test_split_in_order_and_agree_with_the_record(run, store):
    frame = polars.read_parquet(run.output / "predictions.parquet")
    labels = open_store(store).split("test").labels
    assert dict(frame.schema) == SCHEMA
    assert np.array_equal(frame["index"], np.arange(len(labels)))
    assert np.array_equal(frame["label"], labels)
    probabilities = np.array(frame["probabilities"].to_list())
    assert np.array_equal(probabilities.argmax(1), frame["prediction"])
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    assert np.allclose(probabilities.max(1), frame["confidence"])
    assert np.allclose(-np.log(probabilities[np.arange(len(labels)), labels]), frame["loss"], atol=1e-4)
    metrics = record(run).metrics
    assert frame["correct"].mean() == pytest.approx(metrics["accuracy"].value)
    assert frame["loss"].mean() == pytest.approx(metrics["loss"].value, rel=1e-5)


def test_second_evaluation_gives_the_same_bytes(run, copy):
    evaluate(copy)
    name = "predictions.parquet"
    assert (copy.output / name).read_bytes() == (run.output / name).read_bytes()


def test_changed_weights_are_refused_and_nothing_is_written(copy):
    path = copy.train / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    expected = Record.read(copy.train / "record.json").weights_sha256
    with pytest.raises(ValueError, match=expected) as caught:
        evaluate(copy)
    assert "model.safetensors" in str(caught.value) and "record.json" in str(caught.value)
    assert not copy.output.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_sha256": "0" * 64}, "trained on 0000"),
        ({"spec": {"model": {"source": "builtin:cnn"}}}, "builtin:cnn"),
    ],
)
def test_other_data_and_another_model_are_refused(copy, change, words):
    path = copy.train / "record.json"
    Record.read(path).model_copy(update=change).write(path)
    with pytest.raises(ValueError, match=words):
        evaluate(copy)


def test_missing_weights_are_named(copy):
    (copy.train / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors: no such weights"):
        evaluate(copy)


def test_training_that_diverged_gives_a_record_of_nulls_and_no_predictions(tmp_path, store):
    (tmp_path / "own_net.py").write_text(DIVERGING)
    run = trained(tmp_path, store, SETTINGS | {"model": {"source": "own_net:net"}}, [tmp_path])
    evaluate(run)
    found = record(run)
    assert found.outcome == "diverged"
    assert found.message == Record.read(run.train / "record.json").message
    assert set(found.metrics) == METRICS
    assert {one.value for one in found.metrics.values()} == {None}
    frame = polars.read_parquet(run.output / "predictions.parquet")
    assert dict(frame.schema) == SCHEMA
    assert len(frame) == 0


def test_scores_that_are_not_finite_on_the_test_split_are_a_divergence(copy):
    weights, path = copy.train / "model.safetensors", copy.train / "record.json"
    save_file({name: value * float("nan") for name, value in load_file(weights).items()}, weights)
    Record.read(path).model_copy(update={"weights_sha256": sha256_file(weights)}).write(path)
    evaluate(copy)
    assert record(copy).outcome == "diverged"
    assert "test example 0" in record(copy).message
    assert record(copy).metrics["accuracy"].value is None
    assert len(polars.read_parquet(copy.output / "predictions.parquet")) == 0


def script(run: Run, *extra: str) -> subprocess.CompletedProcess:
    root = Path(__file__).parents[3]
    command = [sys.executable, root / "workflow/scripts/evaluate.py", "--experiment", "e", "--arm", "a"]
    settings = canonical_json(run.settings.model_dump(mode="json"))
    command += ["--seed", "3", "--settings", settings, "--manifest", run.data / "manifest.json"]
    command += ["--trained", run.train / "record.json", "--record", run.output / "record.json"]
    environment = {"PYTHONPATH": str(root / "src"), "PATH": ""}
    return subprocess.run(
        [*map(str, command), *extra],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_script_evaluates_and_explains_what_it_refuses(copy):
    assert script(copy).returncode == 0
    assert json.loads((copy.output / "record.json").read_text())["outcome"] == "completed"
    (copy.train / "model.safetensors").write_bytes(b"")
    refused = script(copy)
    assert refused.returncode == 1
    assert refused.stderr.startswith("evaluate: a, seed 3: ")
    assert "Traceback" not in refused.stderr
