"""Trainings as processes of their own: to be killed, asked to end, and looked at afterwards."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import held
import pytest
from held import Held, wait_for

from assay.config.schema import Data
from assay.data.prepare import prepare
from assay.records import Record
from assay.telemetry.window import lines as telemetry_lines

REPOSITORY = Path(__file__).parents[2]
HELD = Path(held.__file__).parent
SECONDS = 300
"""For what takes a moment on a quiet machine; that it ends at all is what is tested."""
SETTINGS: dict[str, Any] = {
    "model": {"source": "held:net", "options": {"width": 8, "dropout": 0.3}},
    "augmentation": {"crop_padding": 1, "mixup": 0.2},
    "training": {
        "epochs": 12,
        "batch_size": 32,
        "accumulate": 2,
        "ema_decay": 0.9,
        "checkpoint_seconds": 0.05,
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
    },
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    prepare(Data(source="digits"), folder, module_roots=[])
    return folder


def start(
    folder: Path,
    digits: Path,
    settings: dict[str, Any] = SETTINGS,
    *,
    module_root: Path = HELD,
    **variables: str,
) -> "subprocess.Popen[str]":
    """The entry point, with these variables in its environment and no other of Slurm's."""
    script = REPOSITORY / "workflow" / "scripts" / "train.py"
    names = ["--experiment", "e", "--arm", "a", "--seed", "0", "--settings", json.dumps(settings)]
    folders = [
        "--manifest",
        str(digits / "manifest.json"),
        "--record",
        str(folder / "train" / "record.json"),
        "--module-root",
        str(module_root),
        *("--telemetry", "0.05"),
    ]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") and name != "ASSAY_FORKSERVER"
    }
    environment = inherited | {"PYTHONPATH": str(REPOSITORY / "src")} | variables
    return subprocess.Popen(
        [sys.executable, "-P", str(script), *names, *folders],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(
    folder: Path, digits: Path, settings: dict[str, Any] = SETTINGS, *, module_root: Path = HELD
) -> Record:
    running = start(folder, digits, settings, module_root=module_root)
    output, _ = running.communicate(timeout=SECONDS)
    assert running.returncode == 0, output
    return Record.read(folder / "train" / "record.json")


def essence(record: Record) -> tuple[object, ...]:
    history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in record.details["history"]]
    return record.weights_sha256, record.batches_sha256, record.details["chosen_epoch"], history


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train" / "log.jsonl").read_text().splitlines()]


def samplers(folder: Path) -> list[int]:
    """The processes that wrote telemetry, in order."""
    path = folder / "train" / "telemetry.jsonl"
    return [line["pid"] for line in telemetry_lines(path) if line["event"] == "start"]


def held_since(folder: Path, checkpoint: str = "state.pt") -> Held:
    """A training that goes no further once it has left that checkpoint."""
    return Held(folder / "hold", folder / "checkpoint" / checkpoint)


def wait_for_checkpoint(folder: Path, running: "subprocess.Popen[str]") -> None:
    """Of a training that is long enough to go on for much longer."""
    wait_for((folder / "checkpoint" / "state.pt").exists, running)
