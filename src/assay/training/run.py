"""One run, from settings to record: set up, train or go on, write weights and record."""

import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from assay.config.schema import Arm, spec_of
from assay.data.batches import Batches
from assay.data.store import MANIFEST, open_store
from assay.data.streams import stream_int
from assay.environment import capture, code, gpu_uuids
from assay.models.build import build
from assay.models.sources import source_files
from assay.records import (
    ASKED_TO_END,
    Log,
    Measurement,
    Outcome,
    Record,
    Telemetry,
    canonical_json,
    now,
    sha256_file,
    sha256_text,
    write_atomically,
)
from assay.sources import stage_sha256
from assay.telemetry.beside import Sampler
from assay.telemetry.run import epoch_ends, training_energy
from assay.telemetry.window import Window
from assay.training.checkpoint import Checkpoints, sole_writer
from assay.training.execution import apply, place
from assay.training.loop import Interrupted, Loop
from assay.training.outcomes import Diverged, first_line, out_of_memory

TELEMETRY = "telemetry.jsonl"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


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
    telemetry: float | None = None
    """Seconds between two samples of the machine; None: none are taken."""


class StopRequest:
    """Whether somebody asked this process to end, and by which signal first."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self) -> bool:
        return self.number is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        def note(number: int, _: object) -> None:
            self.number = self.number or number

        before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def train(run: Run) -> int:
    """Train one arm at one seed, going on from a checkpoint of the same run if there is one.

    Leaves `model.safetensors` and, last, `record.json`. A run that diverges or runs out of memory leaves them
    too: that is its result. Returns the exit status: 0, or 128 + the signal that asked the run to end.
    """
    stop = StopRequest()
    with stop.listening(), sole_writer(run.checkpoint.parent / ".lock"):
        try:
            _train(run, stop)
        except Interrupted:
            assert stop.number is not None
            asked = ASKED_TO_END.format(signal=stop.number)
            print(f"{run.output}: {asked}; the same command goes on from here")
            return 128 + stop.number
    return 0


@dataclass(frozen=True)
class _Ending:
    """How the loop ended; without a loop where not even the model could be built."""

    loop: Loop | None
    outcome: Outcome = "completed"
    message: str | None = None

    @property
    def completed(self) -> Loop | None:
        return self.loop if self.outcome == "completed" else None


def _train(run: Run, stop: StopRequest) -> None:
    started, began = now(), time.monotonic()
    device = apply(run.settings.execution)
    spec = spec_of(run.settings)
    data_sha256 = sha256_file(run.data / MANIFEST)
    origin = code("train", source_files(run.settings.model.source, run.module_roots))
    fingerprint = _fingerprint(run, spec, data_sha256, origin.user_sources, device)
    checkpoints = Checkpoints(run.checkpoint, fingerprint)
    ending, telemetry_notes = _run_loop(run, device, checkpoints, stop)
    resumed = checkpoints.attempt > 1
    seconds = None if resumed else time.monotonic() - began
    window = Window(run.output / TELEMETRY, {"attempt": checkpoints.attempt})
    telemetry = window.summary()
    weights = {} if ending.completed is None else ending.completed.best_weights
    record = Record(
        stage="train",
        experiment=run.experiment,
        arm=run.arm,
        seed=run.seed,
        outcome=ending.outcome,
        message=ending.message,
        started=started,
        finished=now(),
        spec=spec,
        spec_sha256=sha256_text(canonical_json(spec)),
        data_sha256=data_sha256,
        batches_sha256=None if ending.loop is None else ending.loop.position.digest or None,
        weights_sha256=_write_weights(weights, run.output / "model.safetensors"),
        code=origin,
        environment=capture(threads=run.settings.execution.threads, device=device),
        metrics=_metrics(ending.completed, seconds, resumed=resumed)
        | _energy(run, window, telemetry, ending.completed, resumed=resumed),
        telemetry=telemetry,
        details={} if ending.loop is None else _details(ending.loop),
        resumed=resumed,
        attempts=checkpoints.attempt,
        warnings=[*checkpoints.warnings, *telemetry_notes, *(telemetry.warnings if telemetry else [])],
    )
    record.write(run.output / "record.json")
    checkpoints.remove()


def _run_loop(
    run: Run, device: torch.device, checkpoints: Checkpoints, stop: StopRequest
) -> tuple[_Ending, list[str]]:
    """Begin or go on, to the end or to the arm's own failure, with a sampler beside it; also what was odd about that one.

    Raises: Interrupted.
    """
    saved = checkpoints.load()
    events = run.output / "log.jsonl"
    if saved is None:
        events.unlink(missing_ok=True)
        (run.output / TELEMETRY).unlink(missing_ok=True)
    identity: dict[str, str | int] = {
        "experiment": run.experiment,
        "arm": run.arm,
        "seed": run.seed,
        "stage": "train",
    }
    loop = None
    sampler = Sampler(
        run.output / TELEMETRY,
        interval=run.telemetry,
        gpus=gpu_uuids(device),
        identity=identity | {"attempt": checkpoints.attempt},
    )
    with sampler, Log(events, identity=identity, attempt=checkpoints.attempt) as log:
        for warning in checkpoints.warnings:
            print(warning, file=sys.stderr)
            log.write("warning", message=warning)
        try:
            loop = _loop(run, device, checkpoints, log, stop)
            if saved is not None:
                loop.restore(saved)
            log.write(
                "started" if saved is None else "resumed",
                epoch=loop.position.epoch,
                epochs=run.settings.training.epochs,
                steps_per_epoch=loop.training.steps_per_epoch,
                device=str(device),
            )
            loop.run()
            ending = _Ending(loop)
        except Diverged as error:
            ending = _Ending(loop, "diverged", str(error))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            ending = _Ending(loop, "out_of_memory", first_line(error))
        log.write("finished", outcome=ending.outcome, message=ending.message)
    return ending, sampler.notes


def _fingerprint(
    run: Run, spec: dict[str, object], data_sha256: str, user_sources: dict[str, str], device: torch.device
) -> str:
    """Everything that decides a run; how often it is saved does not."""
    training = run.settings.training.model_dump(mode="json", exclude={"checkpoint_seconds"})
    decisive = {
        "experiment": [run.experiment, run.arm, run.seed],
        "spec": spec | {"training": training},
        "data": data_sha256,
        "code": [stage_sha256("train"), sorted(user_sources.values())],
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }
    return sha256_text(canonical_json(decisive))


def _loop(run: Run, device: torch.device, checkpoints: Checkpoints, log: Log, stop: StopRequest) -> Loop:
    store = open_store(run.data)
    manifest, settings = store.manifest, run.settings
    classes = len(manifest.classes)
    model = build(
        settings.model,
        image_shape=manifest.image_shape,
        classes=classes,
        seed=run.seed,
        module_roots=run.module_roots,
    )
    model = place(model, settings.execution, device)

    def batches(split: str) -> Batches:
        return Batches(
            store.split(split),  # type: ignore[arg-type]
            batch_size=settings.training.batch_size,
            device=device,
            mean=manifest.mean,
            std=manifest.std,
            image_size=settings.model.image_size,
            channels_last=settings.execution.channels_last,
        )

    seed_globally(run.seed)
    return Loop(
        model,
        settings,
        seed=run.seed,
        classes=classes,
        training=batches("train"),
        validation=batches("validation"),
        checkpoints=checkpoints,
        log=log,
        stop_requested=stop,
    )


def seed_globally(seed: int) -> None:
    """Seed what a model may draw from while it trains: PyTorch's, NumPy's and Python's global generators."""
    number = stream_int(seed, "dropout")
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)


def _write_weights(weights: dict[str, Tensor], path: Path) -> str:
    write_atomically(path, save(weights))
    return sha256_file(path)


def _metrics(loop: Loop | None, seconds: float | None, *, resumed: bool) -> dict[str, Measurement]:
    """Of the chosen epoch. Timings of a resumed run are left out: it was not measured as one."""
    chosen: dict[str, float | int] = {}
    if loop is not None:
        chosen = next(entry for entry in loop.position.history if entry["epoch"] == loop.position.best_epoch)
    throughput = None
    if loop is not None and not resumed and loop.position.seconds > 0:
        samples = loop.training.steps_per_epoch * loop.training.batch_size * len(loop.position.history)
        throughput = samples / loop.position.seconds
    count = None if loop is None else loop.validation.count
    return {
        "validation_accuracy": Measurement(
            unit="fraction", value=chosen.get("validation_accuracy"), count=count
        ),
        "validation_loss": Measurement(unit="nats", value=chosen.get("validation_loss"), count=count),
        "train_seconds": Measurement(unit="s", value=seconds),
        "train_samples_per_second": Measurement(unit="samples/s", value=throughput),
    }


def _energy(
    run: Run, window: Window, telemetry: Telemetry | None, loop: Loop | None, *, resumed: bool
) -> dict[str, Measurement]:
    """Null, like all timings, for a run that was taken up again or did not complete."""
    whole = loop if not resumed else None
    return training_energy(
        window,
        telemetry,
        epoch_ends(run.output / "log.jsonl", 1) if whole else [],
        samples=None
        if whole is None
        else whole.training.steps_per_epoch * whole.training.batch_size * len(whole.position.history),
        chosen=None if whole is None else whole.position.best_epoch,
    )


def _details(loop: Loop) -> dict[str, object]:
    return {
        "epochs": len(loop.position.history),
        "chosen_epoch": loop.position.best_epoch,
        "steps_per_epoch": loop.training.steps_per_epoch,
        "history": loop.position.history,
    }
