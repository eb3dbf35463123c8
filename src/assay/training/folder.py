"""A run, and the files that it leaves."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from assay.config.arm import Arm, spec_of
from assay.records import Record, RecordError, canonical_json, sha256_file, sha256_text, write_atomically

LOG, TELEMETRY = "log.jsonl", "telemetry.jsonl"


@dataclass(frozen=True)
class Run:
    """What is trained, and where its files are."""

    experiment: str
    arm: str
    seed: int
    settings: Arm
    data: Path
    output: Path
    checkpoint: Path
    module_roots: Sequence[Path] = ()
    until: int | None = None
    """Epochs after which it pauses, should a sweep stop it there; None: it is trained to the end."""
    telemetry: float | None = None
    """Seconds between two samples of the machine; None: none are taken."""


def lock(run: Run) -> Path:
    """Held by whoever writes to the run's folder."""
    return run.checkpoint.parent / ".lock"


def identity(run: Run) -> dict[str, str | int]:
    """What every line of a run's log begins with."""
    return {"experiment": run.experiment, "arm": run.arm, "seed": run.seed, "stage": "train"}


def failure_file(run: Run) -> Path:
    """The record of the last attempt that a dead process ended; it is no result, and Snakemake does not know it."""
    return run.output / "failure.json"


def tidy(run: Run) -> None:
    """Remove, after the record was written, what only an unfinished run needs."""
    shutil.rmtree(run.checkpoint, ignore_errors=True)
    failure_file(run).unlink(missing_ok=True)


def earlier_failures(run: Run) -> list[str]:
    """What ended an earlier attempt at this very run."""
    try:
        record = Record.read(failure_file(run))
    except RecordError:
        return []
    same = record.spec_sha256 == sha256_text(canonical_json(spec_of(run.settings)))
    return [f"an earlier attempt failed: {record.message}"] if same else []


def write_weights(weights: dict[str, Tensor], path: Path) -> str:
    write_atomically(path, save(weights))
    return sha256_file(path)
