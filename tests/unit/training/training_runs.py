"""A small store of real digits, and runs on it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.config.arm import Arm
from assay.config.schema import Data
from assay.data.prepare import prepare
from assay.records import Record
from assay.training.folder import Run
from assay.training.run import train

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    prepare(Data(source="digits", test=0.6, validation=0.3), folder, module_roots=[])
    return folder


def arm_of(source: str = "builtin:mlp", **sections: Any) -> Arm:
    model = {
        "source": source,
        "options": sections.pop("options", {"hidden": [16]} if "mlp" in source else {"width": 4}),
    }
    training = {"epochs": 2, "batch_size": 64, "optimizer": {"name": "sgd", "learning_rate": 0.05}}
    training |= sections.pop("training", {})
    return Arm.model_validate({"model": model, "training": training, **sections})


MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(digits: Path, tmp_path: Path) -> MakeRun:
    def make(
        name: str = "a", *, seed: int = 0, settings: Arm | None = None, roots: tuple[Path, ...] = ()
    ) -> Run:
        folder = tmp_path / name / f"seed-{seed}"
        return Run(
            experiment="e",
            arm=name,
            seed=seed,
            settings=settings or arm_of(),
            data=digits,
            output=folder / "train",
            checkpoint=folder / "checkpoint",
            module_roots=roots,
        )

    return make


def trained(run: Run) -> Record:
    assert train(run) == 0
    return Record.read(run.output / "record.json")


def lines_of(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.output / "log.jsonl").read_text().splitlines()]


def with_training(run: Run, **training: Any) -> Run:
    changed = run.settings.training.model_copy(update=training)
    return replace(run, settings=run.settings.model_copy(update={"training": changed}))
