"""A tuned experiment as the stages leave it: real records, with scores that a test chooses."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from assay.comparison.model import Comparison, Contract
from assay.comparison.run import compare
from assay.config.arm import Arm, spec_of
from assay.config.load import from_mapping
from assay.config.schema import Experiment
from assay.config.trials import settings_at
from assay.evaluation import table
from assay.records import Code, Environment, Measurement, Outcome, Record
from assay.sweep.model import Selected, Trials
from assay.sweep.propose import propose
from assay.sweep.read import points_tried, record_path
from assay.sweep.select import select, tuned

RATE = "training.optimizer.learning_rate"
EXPERIMENT: dict[str, Any] = {
    "name": "e",
    "factors": ["model"],
    "arms": {"mlp": {"model": {"source": "builtin:mlp"}}, "cnn": {"model": {"source": "builtin:cnn"}}},
    "data": {"source": "digits"},
    "seeds": 6,
    "training": {"epochs": 3, "batch_size": 64},
    "profile": {"enabled": False},
    "sweep": {"method": "random", "trials": 4, "seeds": 2, "space": {RATE: {"log_uniform": [1e-4, 1]}}},
}
Score = Callable[[str, dict[str, Any], int], float | None]
"""Of arm, point and seed; None for a training that diverged."""


def peak(arm: str, point: dict[str, Any], seed: int) -> float:
    """Best at a rate of 0.03, a little different for each arm."""
    import math

    return 0.9 - 0.1 * abs(math.log10(point[RATE]) - math.log10(0.03)) - 0.01 * (arm == "mlp") + 1e-5 * seed


def experiment(**changes: Any) -> Experiment:
    return from_mapping(EXPERIMENT | changes, file="e.yaml")


def swept(**changes: Any) -> Experiment:
    """With another sweep."""
    return experiment(sweep=EXPERIMENT["sweep"] | changes)


def record(
    arm: str, seed: int, settings: Arm, score: float | None, stage: str = "train", **fields: Any
) -> Record:
    outcome: Outcome = "completed" if score is not None else "diverged"
    names = ("validation_accuracy", "validation_loss") if stage == "train" else ("accuracy", "loss")
    values = (score, None if score is None else 1 - score)
    return Record(
        stage=stage,  # type: ignore[arg-type]
        experiment="e",
        arm=arm,
        seed=seed,
        outcome=outcome,
        message=None if score is not None else "training loss is nan in epoch 0, step 2",
        started="2026-01-01T00:00:00Z",
        finished="2026-01-01T00:00:01Z",
        spec=spec_of(settings),
        data_sha256="d" * 64,
        batches_sha256=f"{seed:064x}" if stage == "train" else None,
        code=Code(version="0", sources_sha256=stage),
        environment=Environment(
            host="h", platform="p", python="3", packages={"torch": "2"}, cpu="c", cpu_count=4, threads=1
        ),
        metrics={
            name: Measurement(unit="fraction", value=value) for name, value in zip(names, values, strict=True)
        },
        details={"epochs": settings.training.epochs},
        **fields,
    )


EXAMPLES = 1000
"""Of the test split."""


def evaluated(arm: str, seed: int, settings: Arm, right: int, folder: Path) -> None:
    """An evaluation in which the first so many examples are right."""
    labels = np.arange(EXAMPLES) % 2
    own = np.where(np.arange(EXAMPLES) < right, 0.75, 0.25)
    probabilities = np.zeros((EXAMPLES, 2))
    probabilities[np.arange(EXAMPLES), labels] = own
    probabilities[np.arange(EXAMPLES), 1 - labels] = 1 - own
    made = record(arm, seed, settings, right / EXAMPLES, "evaluate")
    del made.metrics["loss"]
    found = table.Predictions(labels, probabilities, -np.log(own))
    made.predictions_sha256 = table.write(found, folder / table.FILE, threads=1)
    made.write(folder / "record.json")


@dataclass
class Tuned:
    """An experiment's folder; tests change a file and compare again."""

    folder: Path
    experiment: Experiment
    score: Score = peak

    def arm_folder(self, arm: str) -> Path:
        return self.folder / "sweep" / arm

    def search(self) -> None:
        """Every trial of every arm, round by round, and what they select."""
        sweep = self.experiment.sweep
        assert sweep is not None
        for arm, settings in self.experiment.arms.items():
            folder = self.arm_folder(arm)
            for number in range(
                -(-(sweep.trials or 0) // sweep.per_round) if sweep.method == "bayesian" else 0
            ):
                propose("e", arm, sweep, settings, folder, number)
                self._train(arm, (number + 1) * sweep.per_round)
            self._train(arm)
            select("e", arm, sweep, settings, folder)

    def _train(self, arm: str, most: int | None = None) -> None:
        sweep, settings = self.experiment.sweep, self.experiment.arms[arm]
        assert sweep is not None
        if most is not None:
            most = min(most, sweep.trials or 0)
        for number, point in enumerate(points_tried(sweep, arm, self.arm_folder(arm), most)):
            for seed in sweep.seeds:
                made = record(arm, seed, settings_at(settings, point), self.score(arm, point, seed))
                made.write(record_path(self.arm_folder(arm), number, seed))

    def compared(self) -> tuple[Comparison, Contract]:
        """Runs of the comparison in the selected settings, and what it says."""
        content = self.experiment.model_dump(mode="json")
        (self.folder / "experiment.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        for arm, settings in tuned(self.experiment, self.folder).arms.items():
            for seed in self.experiment.seeds:
                folder = self.folder / "runs" / arm / f"seed-{seed}"
                level = (950 if arm == "cnn" else 930) + seed % 3
                if not folder.exists():
                    record(arm, seed, settings, level / EXAMPLES).write(folder / "train" / "record.json")
                    evaluated(arm, seed, settings, level, folder / "evaluate")
        return self.compare()

    def compare(self) -> tuple[Comparison, Contract]:
        output = self.folder / "comparison"
        made = compare(experiment_file=self.folder / "experiment.yaml", results=self.folder, output=output)
        return made, Contract.model_validate_json((output / "contract.json").read_bytes())

    def trials(self, arm: str) -> Trials:
        return Trials.read(self.arm_folder(arm) / "trials.json")

    def selected(self, arm: str) -> Selected:
        return Selected.read(self.arm_folder(arm) / "selected.json")

    def edit(self, path: Path, change: Callable[[dict[str, Any]], object]) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


def finished(folder: Path, made: Experiment | None = None, score: Score = peak) -> Tuned:
    """Searched through."""
    found = Tuned(folder, made or experiment(), score)
    found.search()
    return found
