"""Runs, logs and attempts as the real writers leave them, for watchers."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from assay.config.load import from_mapping
from assay.config.schema import Data, Experiment
from assay.data.prepare import prepare
from assay.evaluation.run import Run as Evaluation
from assay.evaluation.run import evaluate
from assay.isolation.attempts import Evidence
from assay.monitoring.files import Moment
from assay.records import Log
from assay.training.folder import Run
from assay.training.run import train

torch.set_num_threads(1)
EXPERIMENT: dict[str, Any] = {
    "name": "e",
    "factors": ["model", "training.optimizer.learning_rate"],
    "arms": {
        "small": {"model": {"source": "builtin:mlp", "options": {"hidden": [16]}}},
        "large": {"model": {"source": "builtin:mlp", "options": {"hidden": [32]}}},
    },
    "data": {"source": "digits", "test": 0.6, "validation": 0.3},
    "seeds": 2,
    "training": {"epochs": 3, "batch_size": 64, "optimizer": {"name": "sgd", "learning_rate": 0.05}},
    "execution": {"device": "cpu"},
    "profile": {"blocks": 2},
}
STEPS = 7
"""Of an epoch; `trained` asserts it."""


def experiment_of(**changes: Any) -> Experiment:
    return from_mapping(EXPERIMENT | changes, file="e.yaml")


def resolve(experiment: Experiment, results: Path) -> None:
    """`experiment.yaml`, as the workflow leaves it."""
    results.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    (results / "experiment.yaml").write_text(text)


def train_one(results: Path, experiment: Experiment, data: Path, arm: str, seed: int) -> Path:
    """Train and evaluate for real; returns the folder of the run."""
    folder = results / "runs" / arm / f"seed-{seed}"
    settings = experiment.arms[arm]
    run = Run("e", arm, seed, settings, data, folder / "train", folder / "checkpoint", telemetry=0.02)
    assert train(run) == 0
    evaluate(Evaluation("e", arm, seed, settings, data, folder / "train", folder / "evaluate"))
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(Data(**EXPERIMENT["data"]), folder, module_roots=[])
    return folder


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return train_one(tmp_path_factory.mktemp("trained"), experiment_of(), data, "small", 0)


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A run that was trained and evaluated; a copy that a test may change."""
    folder = tmp_path / "results" / "e" / "runs" / "small" / "seed-0"
    shutil.copytree(trained_once, folder)
    return folder


class Clock:
    """Moments of a watcher, which a test lets pass."""

    def __init__(self) -> None:
        self.moment = Moment(wall=time.time(), monotonic=1000.0)

    def after(self, seconds: float) -> Moment:
        self.moment = Moment(self.moment.wall + seconds, self.moment.monotonic + seconds)
        return self.moment


class Live:
    """A training under way: the real writers of its files, without the training."""

    def __init__(
        self,
        folder: Path,
        *,
        attempt: int = 1,
        epochs: int = 10,
        supervised: bool = True,
        host: str = "elsewhere",
    ) -> None:
        self.train = folder / "train"
        self.train.mkdir(parents=True, exist_ok=True)
        self.evidence = Evidence(self.train, 1000.0) if supervised else None
        if self.evidence is not None:
            self.evidence.attempt = replace(self.evidence.attempt, host=host)
            self.beat()
        identity: dict[str, str | int] = {"experiment": "e", "arm": "small", "seed": 0, "stage": "train"}
        self.log = Log(self.train / "log.jsonl", identity=identity, attempt=attempt)
        self.steps = 0
        event = "started" if attempt == 1 else "resumed"
        self._write(event, epoch=0, epochs=epochs, steps_per_epoch=STEPS, device="cpu", ranks=1)

    def _write(self, event: str, **fields: Any) -> None:
        self.log.write(event, **fields)
        self.log.flush()

    def step(self, loss: float = 0.5) -> None:
        self.steps += 1
        fields = {"loss": loss, "accuracy": 0.75, "throughput_samples_per_sec": 1234.5}
        self._write("step", step=self.steps, epoch=(self.steps - 1) // STEPS, **fields)

    def epoch(self) -> None:
        fields = {"validation_loss": 0.4, "validation_accuracy": 0.8}
        self._write("epoch", step=self.steps, epoch=self.steps // STEPS - 1, loss=0.4, accuracy=0.8, **fields)

    def finish(self, outcome: str) -> None:
        self._write("finished", outcome=outcome, message=None)

    def beat(self) -> None:
        """As its supervisor does every 3 s."""
        assert self.evidence is not None
        self.evidence._write()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shift(path: Path, seconds: float) -> None:
    """As a file server would show the file whose clock is ahead by so much."""
    stat = path.stat()
    os.utime(path, (stat.st_atime + seconds, stat.st_mtime + seconds))
