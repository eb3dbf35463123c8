"""The test split, read once: a run's kept weights, from file to predictions and record."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load
from torch import nn

from assay.config.arm import Arm, spec_of
from assay.data.batches import Batches
from assay.data.store import MANIFEST, Manifest, Store, open_store
from assay.data.streams import stream_int
from assay.environment import capture, code
from assay.evaluation.predictions import predict
from assay.evaluation.summary import details, measurements
from assay.evaluation.table import FILE, Predictions, write
from assay.isolation import places
from assay.isolation.supervisor import Crossing
from assay.models.build import build
from assay.models.sources import source_files
from assay.records import (
    Outcome,
    Record,
    canonical_json,
    now,
    sha256_file,
    sha256_text,
)
from assay.training.execution import apply, compiled, place
from assay.training.outcomes import Diverged, first_line, out_of_memory


class EvaluationError(ValueError):
    """Weights, data or settings that do not belong together."""


@dataclass(frozen=True)
class Run:
    """What is evaluated, and where its files are."""

    experiment: str
    arm: str
    seed: int
    settings: Arm
    data: Path
    train: Path
    output: Path
    module_roots: Sequence[Path] = ()


def evaluate(run: Run, crossing: Crossing | None = None) -> None:
    """Run the kept weights over the test split in the arm's execution settings.

    crossing: the bound that this very job crossed, in place of predictions.

    Leaves `predictions.parquet` and, last, `record.json`. A training that did not complete, scores that are
    not finite and memory that ran out are results too: the record says so, its values are null and the
    predictions are empty.

    Raises: ValueError for weights, data or a model other than the training's record names.
    """
    started = now()
    trained = Record.read(run.train / "record.json")
    store = open_store(run.data)
    spec, data_sha256 = spec_of(run.settings), sha256_file(run.data / MANIFEST)
    weights = _checked_weights(run, trained, spec, data_sha256)
    origin = code("evaluate", source_files(run.settings.model.source, run.module_roots))
    device = apply(run.settings.execution)
    outcome: Outcome = trained.outcome
    message = trained.message
    found = None
    if crossing is not None:
        outcome, message = crossing.outcome, crossing.message
    elif outcome == "completed":
        try:
            found = _predictions(run, store, weights, device)
        except Diverged as error:
            outcome, message = "diverged", str(error)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            outcome, message = "out_of_memory", first_line(error)
    nothing = Predictions.none(len(store.manifest.classes))
    predictions_sha256 = write(found or nothing, run.output / FILE, threads=run.settings.execution.threads)
    record = Record(
        stage="evaluate",
        experiment=run.experiment,
        arm=run.arm,
        seed=run.seed,
        outcome=outcome,
        message=message,
        started=started,
        finished=now(),
        spec=spec,
        spec_sha256=sha256_text(canonical_json(spec)),
        data_sha256=data_sha256,
        weights_sha256=trained.weights_sha256,
        predictions_sha256=predictions_sha256,
        code=origin,
        environment=capture(threads=run.settings.execution.threads, device=device),
        metrics=measurements(found),
        details={} if found is None else details(found, store.manifest.classes),
        warnings=places.current().warnings,
    )
    record.write(run.output / "record.json")


def _checked_weights(run: Run, trained: Record, spec: dict[str, object], data_sha256: str) -> bytes:
    """The content of the weights' file, once it is certain that it belongs to the record beside it."""
    path = run.train / "model.safetensors"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such weights; train the run again") from None
    found = sha256_file(path)
    if found != trained.weights_sha256:
        raise EvaluationError(
            f"{path}: its SHA-256 is {found}, but {run.train / 'record.json'} says {trained.weights_sha256}; "
            f"train the run again"
        )
    if trained.data_sha256 != data_sha256:
        raise EvaluationError(
            f"{run.data / MANIFEST}: its SHA-256 is {data_sha256}, but the run was trained on "
            f"{trained.data_sha256}; train the run again"
        )
    if trained.spec.get("model") != spec["model"]:
        raise EvaluationError(
            f"{run.train / 'record.json'}: model: trained was {trained.spec.get('model')}, asked for is "
            f"{spec['model']}; train the run again"
        )
    return content


def _predictions(run: Run, store: Store, weights: bytes, device: torch.device) -> Predictions:
    manifest, settings = store.manifest, run.settings
    model = _model(run, manifest, weights, device)
    torch.manual_seed(stream_int(run.seed, "dropout"))
    batches = Batches(
        store.split("test"),
        batch_size=settings.training.batch_size,
        device=device,
        mean=manifest.mean,
        std=manifest.std,
        image_size=settings.model.image_size,
        channels_last=settings.execution.channels_last,
    )
    return predict(model, batches.sequential(), batches.count, len(manifest.classes), settings.execution)


def _model(run: Run, manifest: Manifest, weights: bytes, device: torch.device) -> nn.Module:
    settings = run.settings
    model = build(
        settings.model,
        image_shape=manifest.image_shape,
        classes=len(manifest.classes),
        seed=run.seed,
        module_roots=run.module_roots,
    )
    try:
        model.load_state_dict(load(weights))
    except RuntimeError as error:
        raise EvaluationError(
            f"{run.train / 'model.safetensors'}: these weights do not fit {settings.model.source}: {error}; "
            f"train the run again"
        ) from None
    return compiled(place(model, settings.execution, device), settings.execution, device)
