"""Experiments on disk, as the stages leave them: real records, with numbers that a test chooses."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from assay.comparison.floor import NoiseFloor, measure
from assay.comparison.model import Comparison
from assay.comparison.run import compare
from assay.config.arm import spec_of
from assay.config.repeated import repeated
from assay.config.schema import Experiment
from assay.evaluation import table
from assay.records import Code, Device, Environment, Measurement, Record, Telemetry

HASH = "0" * 64
Blocks = tuple[list[float | None], list[float | None]]


@dataclass
class Made:
    """An experiment's folder; tests change a record and compare again."""

    folder: Path
    experiment: Experiment

    def path(self, arm: str, seed: int, stage: str = "evaluate") -> Path:
        if stage == "profile":
            return self.folder / "profile" / f"block-{seed}" / arm / "record.json"
        return self.folder / "runs" / arm / f"seed-{seed}" / stage / "record.json"

    def edit(self, arm: str, seed: int, stage: str, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.path(arm, seed, stage)
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))

    def edit_all(self, arm: str, change: Callable[[dict[str, Any]], object]) -> None:
        for path in sorted(self.folder.rglob("record.json")):
            record = json.loads(path.read_text())
            if record["arm"] == arm:
                change(record)
                path.write_text(json.dumps(record))

    def repeat(self, seeds: dict[str, list[float | None]], blocks: dict[str, Blocks]) -> NoiseFloor:
        """The arm's second self: its numbers by seed; by block those of both selves. As the stage leaves the floor."""
        twice = repeated(self.experiment)
        arm, again = twice.arms
        noise = self.folder / "noise"
        for number, seed in enumerate(twice.seeds):
            metrics = {name: values[number] for name, values in seeds.items()}
            folder = noise / f"runs/{again}/seed-{seed}"
            for made in (
                record(twice, "train", again, seed, {}),
                evaluated(twice, again, seed, metrics, folder),
            ):
                made.started = "2026-01-02T00:00:00Z"
                made.write(folder / made.stage / "record.json")
        for block in range(twice.profile.blocks if twice.profile.enabled else 0):
            for who, name in enumerate((arm, again)):
                metrics = {metric: values[who][block] for metric, values in blocks.items()}
                record(twice, "profile", name, block, metrics).write(
                    noise / f"profile/block-{block}/{name}/record.json"
                )
        return self.find_floor()

    def find_floor(self) -> NoiseFloor:
        """As the stage does."""
        floor = measure(self.experiment, self.folder).floor
        floor.write(self.folder / "noise" / "floor.json")
        return floor

    def compare(self) -> Comparison:
        return compare(
            experiment_file=self.folder / "experiment.yaml",
            results=self.folder,
            output=self.folder / "comparison",
        )


TELEMETRY = Telemetry(interval_s=0.1, seconds=5.0, samples=50, late=0)


def block_details(arms: list[str]) -> dict[str, Any]:
    """What a profile's record tells of its block, as far as the contract asks."""
    return {
        "order": [*arms, *reversed(arms)],
        "profile": {"seconds": 1.0},
        "gates": [
            {"name": "throttling", "status": "held"},
            {"name": "ecc_errors", "status": "not measured"},
        ],
        "visits": [{"telemetry": TELEMETRY.model_dump()} for _ in range(2)],
    }


def record(
    experiment: Experiment, stage: str, arm: str, number: int, metrics: dict[str, float | None]
) -> Record:
    units = {
        "latency_ms": "ms",
        "latency_ms@16": "ms",
        "peak_memory_mb": "MiB",
        "parameters": "count",
        "loss": "nats",
    }
    return Record(
        stage=stage,
        experiment=experiment.name,
        arm=arm,
        seed=None if stage == "profile" else number,
        block=number if stage == "profile" else None,
        outcome="completed",
        started="2026-01-01T00:00:00Z",
        finished="2026-01-01T00:00:01Z",
        spec=spec_of(experiment.arms[arm]),
        data_sha256=HASH,
        batches_sha256=f"{number:064d}" if stage == "train" else None,
        weights_sha256=None if stage == "profile" else HASH,
        code=Code(version="1", sources_sha256=HASH),
        environment=Environment(
            host="node1",
            platform="Linux",
            python="3.12",
            packages={"torch": "2.9.1", "numpy": "2.4"},
            cpu="a CPU",
            cpu_count=4,
            threads=1,
            cores=[0],
            device=Device(
                type="cuda", name="H100", uuid="GPU-1", memory_mb=81559.0, driver="570", cuda="12.8"
            ),
        ),
        telemetry=None if stage == "evaluate" else TELEMETRY,
        details=block_details(list(experiment.arms)) if stage == "profile" else {},
        metrics={k: Measurement(unit=units.get(k, "fraction"), value=v) for k, v in metrics.items()},
    )


EXAMPLES = 10_000
"""Of the test split: an accuracy that a test chooses has four digits."""


def evaluated(
    experiment: Experiment, arm: str, seed: int, metrics: dict[str, float | None], folder: Path
) -> Record:
    """A record of evaluation, and beside it predictions that give its numbers. A metric without a value is left out."""
    found = {name: value for name, value in metrics.items() if value is not None}
    made = record(experiment, "evaluate", arm, seed, found)
    path = folder / "evaluate" / table.FILE
    made.predictions_sha256 = table.write(predictions(found), path, threads=1)
    return made


def predictions(metrics: dict[str, float]) -> table.Predictions:
    """Of three classes, with this accuracy and this loss; the first examples are the correct ones."""
    accuracy, loss = metrics.get("accuracy", 1.0), metrics.get("loss", 0.5)
    right = round(EXAMPLES * accuracy)
    wrong = EXAMPLES - right
    easy = min(0.6, max(0.01, (loss * EXAMPLES - 0.7 * wrong) / max(1, right)))
    hard = (loss * EXAMPLES - easy * right) / max(1, wrong)
    own = np.exp(-np.where(np.arange(EXAMPLES) < right, easy, hard))
    labels = np.arange(EXAMPLES) % 3
    probabilities = np.zeros((EXAMPLES, 3))
    probabilities[np.arange(EXAMPLES), labels] = own
    probabilities[np.arange(EXAMPLES), (labels + 1) % 3] = 1 - own
    return table.Predictions(labels, probabilities, -np.log(own))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """make({"accuracy": {"mlp": [...], "cnn": [...]}}, **settings of the experiment)."""

    def build(values: dict[str, dict[str, list[float | None]]], **settings: Any) -> Made:
        arms = list(next(iter(values.values())))
        costs = {"latency_ms", "peak_memory_mb", "parameters", "throughput"}
        by_seed = [metric for metric in values if metric not in costs]
        by_block = [metric for metric in values if metric in costs]
        seeds = len(values[by_seed[0]][arms[0]]) if by_seed else 1
        blocks = len(values[by_block[0]][arms[0]]) if by_block else 1
        experiment = Experiment.model_validate(
            {
                "name": "test",
                "baseline": arms[0],
                "factors": ["model"],
                "arms": {arm: {"model": {"source": f"builtin:{arm}"}} for arm in arms},
                "data": {"source": "digits"},
                "seeds": list(range(seeds)),
                "metrics": [{"name": metric} for metric in values],
                "profile": {"enabled": bool(by_block), "blocks": blocks},
                **settings,
            }
        )
        made = Made(tmp_path, experiment)
        (tmp_path / "experiment.yaml").write_text(
            yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)
        )
        for arm in arms:
            for seed in range(seeds):
                metrics = {metric: values[metric][arm][seed] for metric in by_seed}
                record(experiment, "train", arm, seed, {}).write(made.path(arm, seed, "train"))
                folder = made.path(arm, seed, "train").parents[1]
                evaluated(experiment, arm, seed, metrics, folder).write(made.path(arm, seed))
            for block in range(blocks if by_block else 0):
                metrics = {metric: values[metric][arm][block] for metric in by_block}
                record(experiment, "profile", arm, block, metrics).write(made.path(arm, block, "profile"))
        return made

    return build
