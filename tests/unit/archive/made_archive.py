"""Results whose records, logs and checksums agree, as those of a run do, made without training."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "reporting"))

from made_results import Made

from assay.archive.gather import Sources
from assay.config.schema import Experiment
from assay.records import Log, Record, canonical_json, sha256_file, sha256_text
from assay.sources import stage_sha256

REPOSITORY = Path(__file__).parents[3]
MANIFEST: dict[str, Any] = {
    "schema_version": 1,
    "source": "digits",
    "image_shape": [8, 8, 1],
    "classes": ["0", "1"],
    "mean": [0.3],
    "std": [0.4],
    "splits": {
        name: {"count": 2, "sha256": "ab" * 32, "class_counts": [1, 1]}
        for name in ("train", "validation", "test")
    },
    "sources": {},
    "warnings": [],
}


class Whole(Made):
    """Results whose records, logs and checksums agree, as those of a run do."""

    def experiment(self) -> Experiment:
        experiment = super().experiment()
        return experiment.model_copy(
            update={"profile": experiment.profile.model_copy(update={"traces": False})}
        )

    def make(self) -> Path:
        manifest = self.results / "data" / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text(json.dumps(MANIFEST))
        return super().make()

    def _record(self, experiment: Experiment, arm: str, **fields: Any) -> Record:
        record = super()._record(experiment, arm, **fields)
        record.spec_sha256 = sha256_text(canonical_json(record.spec))
        record.data_sha256 = sha256_file(self.results / "data" / "manifest.json")
        record.code.sources_sha256 = stage_sha256(record.stage)
        return record

    def _log(self, path: Path, arm: str, seed: int, history: list[dict[str, Any]], generator: Any) -> None:
        identity = {"experiment": self.name, "arm": arm, "seed": seed, "stage": "train"}
        outcome = self.outcomes.get((arm, seed), "completed")
        with Log(path, identity=identity) as log:
            log.write("started")
            for line in history:
                log.write("step", step=line["step"], epoch=line["epoch"], loss=1.0 + generator.random())
                log.write("epoch", **line)
            log.write("finished", outcome=outcome)


def sources_of(folder: Path, name: str = "digits") -> Sources:
    """Of results in a working folder, with this checkout's code."""
    (folder / f"{name}.yaml").write_text(f"# as written\nname: {name}\n")
    (folder / "logs" / name).mkdir(parents=True, exist_ok=True)
    (folder / "logs" / name / "compare.log").write_text("compared\n")
    return Sources(
        experiment_file=folder / f"{name}.yaml",
        overrides="{}",
        results=folder / "results" / name,
        logs=folder / "logs" / name,
        code=REPOSITORY,
        module_roots=[folder],
    )
