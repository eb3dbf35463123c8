"""Results of an experiment as the stages write them, through the real records and logs, without training.

Numbers are drawn so that they look like digits recognised by small networks; the comparison over them is made
by the real `compare`.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from assay.comparison.floor import measure
from assay.comparison.run import compare
from assay.config.arm import spec_of
from assay.config.repeated import second_self
from assay.config.schema import Experiment
from assay.data.store import (
    MANIFEST,
    Manifest,
    SplitName,
    SplitSummary,
    images_path,
    labels_path,
    split_sha256,
)
from assay.evaluation import summary, table
from assay.records import Code, Device, Environment, Log, Measurement, Outcome, Record, sha256_file

ARMS: dict[str, dict[str, Any]] = {
    "mlp": {
        "accuracy": 0.955,
        "latency": 0.021,
        "parameters": 17_226,
        "flops": 34_000,
        "seconds": 1.1,
        "memory": 31.0,
    },
    "cnn": {
        "accuracy": 0.978,
        "latency": 0.094,
        "parameters": 9_930,
        "flops": 410_000,
        "seconds": 3.4,
        "memory": 46.0,
    },
}
CLASSES = 10
NAMES = tuple(str(digit) for digit in range(CLASSES))
EXAMPLES = 450
EPOCHS = 15
STEPS = 9


@dataclass
class Made:
    """What to make."""

    folder: Path
    name: str = "digits"
    question: str = (
        "Does a small convolutional network recognise handwritten digits better than a perceptron?"
    )
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: ARMS)
    seeds: int = 6
    blocks: int = 6
    batch_sizes: tuple[int, ...] = (1, 16, 64)
    metrics: tuple[Any, ...] = (
        {"name": "accuracy", "margin": 0.005},
        {"name": "latency_ms", "margin": 0.05},
        {"name": "peak_memory_mb"},
        {"name": "parameters"},
    )
    names: Sequence[str] = NAMES
    """Of the classes."""
    image: dict[str, str] | None = None
    outcomes: Mapping[tuple[str, int], Outcome] = field(default_factory=dict)
    steps: int = STEPS
    target: float | None = None
    comparison: Mapping[str, Any] = field(default_factory=dict)
    logs: bool = True
    noise: bool = False
    change: Callable[[Record], None] | None = None

    @property
    def results(self) -> Path:
        return self.folder / "results" / self.name

    def make(self) -> Path:
        """Write everything up to and with the comparison; returns the results' folder."""
        experiment = self.experiment()
        self.results.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)
        (self.results / "experiment.yaml").write_text(text)
        examples = np.random.default_rng(7).random(EXAMPLES)
        self._data()
        for index, arm in enumerate(experiment.arms):
            for seed in experiment.seeds:
                self._run(experiment, arm, seed, np.random.default_rng((1, index, seed)), examples)
            for block in range(experiment.profile.blocks if experiment.profile.enabled else 0):
                self._visit(experiment, arm, block, np.random.default_rng((2, index, block)))
        if self.noise:
            self._repeat(experiment)
        compare(
            experiment_file=self.results / "experiment.yaml",
            results=self.results,
            output=self.results / "comparison",
        )
        return self.results

    def _data(self) -> None:
        """A store of random pictures; its labels are those of the predictions."""
        folder = self.results / "data"
        folder.mkdir(parents=True, exist_ok=True)
        summaries: dict[SplitName, SplitSummary] = {}
        for split, count in ({"train": 900, "validation": 150, "test": EXAMPLES}).items():
            labels = np.arange(count) % CLASSES
            images = np.random.default_rng((4, count)).integers(0, 256, (count, 8, 8, 1), np.uint8)
            np.save(images_path(folder, split), images)
            np.save(labels_path(folder, split), labels)
            summaries[split] = SplitSummary(
                count=count, sha256=split_sha256(folder, split), class_counts=np.bincount(labels).tolist()
            )
        Manifest(
            source="digits",
            image_shape=(8, 8, 1),
            classes=list(self.names),
            mean=[0.3],
            std=[0.4],
            splits=summaries,
        ).write(folder / MANIFEST)

    def experiment(self) -> Experiment:
        return Experiment.model_validate(
            {
                "name": self.name,
                "question": self.question,
                "baseline": next(iter(self.arms)),
                "factors": ["model"],
                "arms": {
                    arm: {"model": {"source": f"builtin:{arm.split('-')[0]}", "options": {"width": i + 1}}}
                    for i, arm in enumerate(self.arms)
                },
                "data": {"source": "digits"},
                "seeds": list(range(self.seeds)),
                "metrics": list(self.metrics),
                "profile": {
                    "enabled": self.blocks > 0,
                    "blocks": max(1, self.blocks),
                    "batch_sizes": list(self.batch_sizes),
                },
                "comparison": {"resamples": 1000, "target_accuracy": self.target, **self.comparison},
                "noise": {"enabled": self.noise},
            }
        )

    def _repeat(self, experiment: Experiment) -> None:
        """The baseline's second self: the same runs, and blocks that scatter."""
        arm, again = second_self(experiment)
        noise = self.results / "noise"
        for path in sorted((self.results / "runs" / arm).rglob("record.json")):
            record = Record.read(path).model_copy(
                update={"arm": again, "started": "2025-06-02T10:00:00.000000Z"}
            )
            place = noise / "runs" / again / path.relative_to(self.results / "runs" / arm)
            record.write(place)
            if record.stage == "evaluate":
                shutil.copy(path.with_name(table.FILE), place.with_name(table.FILE))
        for path in sorted((self.results / "profile").glob(f"*/{arm}/record.json")):
            for who, name in enumerate((arm, again)):
                record = Record.read(path).model_copy(update={"arm": name})
                factor = np.random.default_rng((3, who, int(record.block or 0))).lognormal(0, 0.01)
                for name_of, one in record.metrics.items():
                    if (
                        one.value is not None
                        and one.unit not in {"count", "FLOP"}
                        and name_of != "cold_start_s"
                    ):
                        one.value *= factor
                record.write(noise / "profile" / path.parts[-3] / name / "record.json")
        measure(experiment, self.results).floor.write(noise / "floor.json")

    def _record(self, experiment: Experiment, arm: str, **fields: Any) -> Record:
        record = Record(
            experiment=self.name,
            arm=arm,
            started="2025-06-01T10:00:00.000000Z",
            finished="2025-06-01T10:00:09.000000Z",
            spec=spec_of(experiment.arms[arm]),
            spec_sha256="ab" * 32,
            data_sha256=sha256_file(self.results / "data" / MANIFEST),
            code=Code(
                version="0.1.0", commit="0123456789abcdef" * 2, modified=False, sources_sha256="ef" * 32
            ),
            environment=Environment(
                host="workstation",
                platform="Linux-6.8.0-x86_64-with-glibc2.39",
                python="3.12.8",
                packages={"torch": "2.9.1+cpu", "numpy": "2.4.6", "scipy": "1.16.0", "polars": "1.30.0"},
                cpu="AMD EPYC 9354 32-Core Processor",
                cpu_count=4,
                threads=1,
                image=self.image,
                device=Device(type="cpu", name="AMD EPYC 9354 32-Core Processor"),
            ),
            **fields,
        )
        if self.change is not None:
            self.change(record)
        return record

    def _run(
        self, experiment: Experiment, arm: str, seed: int, generator: np.random.Generator, examples: Any
    ) -> None:
        folder = self.results / "runs" / arm / f"seed-{seed}"
        outcome = self.outcomes.get((arm, seed), "completed")
        message = None if outcome == "completed" else f"{outcome} in epoch 4, step 31"
        epochs = EPOCHS if outcome == "completed" else 4
        level = (
            self.arms[arm]["accuracy"]
            + 0.004 * np.random.default_rng(seed).normal()
            + 0.003 * generator.normal()
        )
        history = self._history(level, epochs, generator)
        seconds = self.arms[arm]["seconds"] * generator.lognormal(0, 0.03)
        if self.logs:
            self._log(folder / "train" / "log.jsonl", arm, seed, history, generator)
        self._record(
            experiment, arm, seed=seed, stage="train", outcome=outcome, message=message,
            batches_sha256=f"{seed:064x}",
            metrics={
                "train_seconds": Measurement(unit="s", value=seconds),
                "validation_accuracy": Measurement(unit="fraction", value=history[-1]["validation_accuracy"]),
                "train_energy": Measurement(unit="J", value=self.arms[arm].get("energy")),
            },
            details={
                "epochs": epochs,
                "chosen_epoch": epochs - 1,
                "history": history,
                "epoch_ends_s": [seconds * (epoch + 1) / epochs for epoch in range(epochs)],
                "epoch_energy_j": None,
            },
        ).write(folder / "train" / "record.json")  # fmt: skip
        found = self._predictions(level, generator, examples) if outcome == "completed" else None
        predictions_sha256 = table.write(
            found or table.Predictions.none(CLASSES), folder / "evaluate" / table.FILE, threads=1
        )
        self._record(
            experiment, arm, seed=seed, stage="evaluate", outcome=outcome, message=message,
            predictions_sha256=predictions_sha256,
            metrics=summary.measurements(found),
            details={} if found is None else summary.details(found, list(self.names)),
        ).write(folder / "evaluate" / "record.json")  # fmt: skip

    def _predictions(self, level: float, generator: np.random.Generator, examples: Any) -> table.Predictions:
        """Of examples that are hard for all alike, with a confidence that tells something."""
        count = len(examples)
        confidence = 1 - 0.6 * np.abs(generator.normal(0, 0.12, count)).clip(0, 1)
        correct = examples < level * (0.6 + 0.4 * confidence) / (0.6 + 0.4 * confidence.mean())
        labels, rows = np.arange(count) % CLASSES, np.arange(count)
        probabilities = np.repeat((1 - confidence)[:, None] / (CLASSES - 1), CLASSES, axis=1)
        probabilities[rows, np.where(correct, labels, (labels + 1) % CLASSES)] = confidence
        return table.Predictions(labels, probabilities, -np.log(probabilities[rows, labels]))

    def _history(self, level: float, epochs: int, generator: np.random.Generator) -> list[dict[str, Any]]:
        history = []
        for epoch in range(epochs):
            accuracy = level - 0.75 * float(np.exp(-0.75 * (epoch + 1))) + 0.004 * generator.normal()
            history.append(
                {
                    "epoch": epoch,
                    "step": (epoch + 1) * self.steps,
                    "learning_rate": 0.1 * (1 + np.cos(np.pi * epoch / EPOCHS)) / 2,
                    "train_loss": 2.2 * float(np.exp(-0.35 * epoch)) + 0.04,
                    "train_accuracy": min(1.0, accuracy + 0.01),
                    "validation_loss": 2.1 * float(np.exp(-0.35 * epoch)) + 0.1,
                    "validation_accuracy": min(1.0, accuracy),
                    "seconds": 0.08,
                }
            )
        return history

    def _log(
        self, path: Path, arm: str, seed: int, history: list[dict[str, Any]], generator: np.random.Generator
    ) -> None:
        identity = {"experiment": self.name, "arm": arm, "seed": seed, "stage": "train"}
        with Log(path, identity=identity) as log:
            log.write("started")
            for line in history:
                for step in range(line["step"] - self.steps + 1, line["step"] + 1):
                    loss = float(2.3 * np.exp(-step / 30) * generator.lognormal(0, 0.2) + 0.03)
                    log.write(
                        "step", step=step, epoch=line["epoch"], loss=loss, accuracy=line["train_accuracy"],
                        throughput_samples_per_sec=41_000.0, learning_rate=line["learning_rate"],
                    )  # fmt: skip
                log.write("epoch", step=line["step"], epoch=line["epoch"], loss=line["validation_loss"])
            log.write("finished")

    def _visit(self, experiment: Experiment, arm: str, block: int, generator: np.random.Generator) -> None:
        sizes, made = self.batch_sizes, self.arms[arm]
        latency = {size: made["latency"] * (1 + 0.12 * size) * generator.lognormal(0, 0.03) for size in sizes}
        metrics = {
            "latency_ms": _timed("ms", latency[sizes[0]], generator),
            "throughput": Measurement(unit="samples/s", value=1000 * sizes[-1] / latency[sizes[-1]]),
            "training_throughput": Measurement(unit="samples/s", value=20_000 * 0.03 / made["latency"]),
            "peak_memory_mb": Measurement(unit="MiB", value=made["memory"] * generator.lognormal(0, 0.01)),
            "parameters": Measurement(unit="count", value=made["parameters"]),
            "flops": Measurement(unit="FLOP", value=made["flops"]),
            "cold_start_s": Measurement(unit="s", value=0.4),
            "training_wait_ms": Measurement(unit="ms", value=0.25),
            "training_transfer_ms": Measurement(unit="ms", value=None),
            "flops_utilization": Measurement(unit="fraction", value=None),
            "reserved_memory_mb": Measurement(unit="MiB", value=None),
        }
        metrics |= {f"latency_ms@{size}": _timed("ms", value, generator) for size, value in latency.items()}
        metrics |= {
            f"throughput@{size}": Measurement(unit="samples/s", value=1000 * size / value)
            for size, value in latency.items()
        }
        order = "AB" if block % 2 == 0 else "BA"
        self._record(
            experiment, arm, block=block, stage="profile", outcome="completed", metrics=metrics,
            details={"order": order, "visits": [{"order": order, "position": 0, "pid": 4000 + block}]},
        ).write(self.results / "profile" / f"block-{block}" / arm / "record.json")  # fmt: skip


def _timed(unit: str, value: float, generator: np.random.Generator) -> Measurement:
    samples = [float(value * factor) for factor in generator.lognormal(0, 0.02, 30)]
    return Measurement(unit=unit, value=float(np.median(samples)), samples=samples, count=len(samples))
