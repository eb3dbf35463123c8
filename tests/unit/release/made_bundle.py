"""A small experiment on real digits, really trained, evaluated and compared: what bundles are made from."""

from pathlib import Path
from typing import Any

import torch
import yaml

from assay.comparison.run import compare
from assay.config.schema import Experiment
from assay.data.prepare import prepare
from assay.evaluation.run import Run as Evaluation
from assay.evaluation.run import evaluate
from assay.release.bundle.make import Asked, make
from assay.training.folder import Run as Training
from assay.training.run import train

torch.set_num_threads(1)
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {"source": "builtin:mlp", "options": {"hidden": [16]}},
    "wide": {"source": "builtin:mlp", "options": {"hidden": [32]}},
}


def made_results(
    folder: Path,
    *,
    name: str = "digits",
    models: dict[str, dict[str, Any]] | None = None,
    seeds: int = 3,
    roots: tuple[Path, ...] = (),
    execution: dict[str, Any] | None = None,
) -> Path:
    """`folder/NAME`, as the workflow leaves it, without a profile."""
    models = models or MODELS
    experiment = Experiment.model_validate(
        {
            "name": name,
            "question": "Which?",
            "baseline": next(iter(models)),
            "factors": ["model"],
            "arms": {
                arm: {
                    "model": model,
                    "training": {
                        "epochs": 1,
                        "batch_size": 64,
                        "optimizer": {"name": "sgd", "learning_rate": 0.05},
                    },
                    "execution": {"device": "cpu", **(execution or {})},
                }
                for arm, model in models.items()
            },
            "data": {"source": "digits", "test": 0.6, "validation": 0.3},
            "seeds": list(range(seeds)),
            "metrics": [{"name": "accuracy"}],
            "profile": {"enabled": False},
        }
    )
    results = folder / name
    prepare(experiment.data, results / "data", module_roots=[])
    (results / "experiment.yaml").write_text(
        yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)
    )
    for arm, settings in experiment.arms.items():
        for seed in experiment.seeds:
            run = results / "runs" / arm / f"seed-{seed}"
            shared: dict[str, Any] = {
                "experiment": name,
                "arm": arm,
                "seed": seed,
                "settings": settings,
                "data": results / "data",
                "module_roots": roots,
            }
            assert train(Training(**shared, output=run / "train", checkpoint=run / "checkpoint")) == 0
            evaluate(Evaluation(**shared, train=run / "train", output=run / "evaluate"))
    compare(
        experiment_file=results / "experiment.yaml",
        results=results,
        output=results / "comparison",
    )
    return results


def made_bundle(results: Path, arm: str = "mlp", folder: Path | None = None, **asked: Any) -> Path:
    """The bundle of an arm in `folder`, or else where `assay release bundle` puts it."""
    folder = folder or results / "bundle" / arm
    make(Asked(results=results, arm=arm, **asked), folder)
    return folder
