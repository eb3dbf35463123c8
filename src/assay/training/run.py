"""One run, from settings to record: set up, train or go on, write weights and record."""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from assay.config.arm import Arm, spec_of
from assay.data.batches import Batches
from assay.data.store import MANIFEST, open_store
from assay.data.streams import stream_int
from assay.environment import capture, code, gpu_uuids, shared_gpu
from assay.isolation.places import current as current_place
from assay.models.build import build
from assay.models.sources import source_files
from assay.records import (
    ASKED_TO_END,
    Log,
    Outcome,
    Record,
    RecordError,
    canonical_json,
    now,
    sha256_file,
    sha256_text,
    write_atomically,
)
from assay.sources import stage_sha256
from assay.telemetry.beside import Sampler
from assay.telemetry.run import energy_by_epoch, epoch_ends, without_energy
from assay.telemetry.window import Window
from assay.training.batch_norm import over_all_ranks
from assay.training.checkpoint import Checkpoints, sole_writer
from assay.training.execution import apply, keep_memory, place
from assay.training.loop import Interrupted, Loop
from assay.training.measured import details_of, metrics
from assay.training.outcomes import Diverged, first_line, out_of_memory
from assay.training.ranks import ALONE, Ranks

LOG, TELEMETRY = "log.jsonl", "telemetry.jsonl"
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
    until: int | None = None
    """Epochs after which it pauses, should a sweep stop it there; None: it is trained to the end."""
    telemetry: float | None = None
    """Seconds between two samples of the machine; None: none are taken."""


class StopRequest:
    """The signal by which somebody first asked this process to end; 0: nobody did."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> int:
        return self.number

    def listen(self) -> dict[signal.Signals, Any]:
        """From now on; returns the handlers that there were."""

        def note(number: int, _: object) -> None:
            self.number = self.number or number

        return {number: signal.signal(number, note) for number in STOP_SIGNALS}

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = self.listen()
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
    with stop.listening(), sole_writer(lock(run)):
        try:
            train_as(run, ALONE, stop)
        except Interrupted as interruption:
            return interrupted(run, int(interruption.args[0]))
    return 0


def interrupted(run: Run, number: int) -> int:
    """Say that the run was asked to end by a signal of this number; returns the exit status."""
    print(f"{run.output}: {ASKED_TO_END.format(signal=number)}; the same command goes on from here")
    return 128 + number


def lock(run: Run) -> Path:
    """Held by whoever writes to the run's folder."""
    return run.checkpoint.parent / ".lock"


@dataclass(frozen=True)
class _Ending:
    """How the loop ended; without a loop where not even the model could be built."""

    loop: Loop | None
    outcome: Outcome = "completed"
    message: str | None = None

    @property
    def measured(self) -> Loop | None:
        """A loop with numbers that stand: of a whole training, or of one that paused."""
        return self.loop if self.outcome in ("completed", "pruned") else None


def train_as(
    run: Run, ranks: Ranks, stop: StopRequest, begun: Callable[[dict[str, Any]], None] = lambda _: None
) -> None:
    """Train as the only process or as one of several: rank 0 writes, and memory that runs out is raised for all to end.

    begun: is told by rank 0 what a record needs to know if another process has to write it.
    Raises: Interrupted.
    """
    started, began = now(), time.monotonic()
    device = apply(run.settings.execution)
    keep_memory(device)
    spec = spec_of(run.settings)
    data_sha256 = sha256_file(run.data / MANIFEST)
    origin = code("train", source_files(run.settings.model.source, run.module_roots))
    execution = run.settings.execution
    fingerprint = _fingerprint(run, spec, data_sha256, origin.user_sources, device)
    checkpoints = Checkpoints(run.checkpoint, fingerprint, (execution.devices, execution.nodes))
    environment = capture(threads=execution.threads, device=device)
    own = environment.model_dump(mode="json", include={"host", "device"})
    places = ranks.gather({"rank": ranks.rank, **own})
    gpus = [uuid for one in ranks.gather(gpu_uuids(device))[: execution.devices] for uuid in one]
    saved, checkpoints.attempt = ranks.from_first(
        (checkpoints.load() if ranks.first else None, checkpoints.attempt)
    )
    if saved is not None and run.until is not None and _beyond(saved, run.until):
        saved = None
    if ranks.first:
        about = {"attempts": checkpoints.attempt, "environment": environment.model_dump(mode="json")}
        begun(about | {"ranks": places})
    with _sampler(run, ranks, gpus, checkpoints.attempt, fresh=saved is None) as sampler:
        ending = _run_loop(run, ranks, device, checkpoints, saved, stop)
    if not ranks.first:
        return
    resumed = checkpoints.attempt > 1
    shared = shared_gpu(device.type)
    timed = not resumed and shared is None
    seconds = time.monotonic() - began if timed else None
    window = Window(run.output / TELEMETRY, {"attempt": checkpoints.attempt})
    telemetry = window.summary()
    if shared is not None and telemetry is not None:
        telemetry = without_energy(telemetry)
    # The sampler sees one node: what the GPUs of several took is not known.
    ends = [] if resumed else epoch_ends(run.output / LOG, checkpoints.attempt)
    energy = energy_by_epoch(window, telemetry, ends) if execution.nodes == 1 and timed else None
    paused = ending.outcome == "pruned"
    weights = {} if ending.measured is None or paused else ending.measured.best_weights
    details = details_of(ending.loop, energy, ends) | {"shared": shared}
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
        weights_sha256=write_weights(weights, run.output / "model.safetensors"),
        code=origin,
        environment=environment,
        metrics=metrics(ending.measured, seconds, energy, ends if timed else [], timed=timed),
        telemetry=telemetry,
        details=details if ranks.size == 1 else details | {"ranks": places},
        resumed=resumed,
        attempts=checkpoints.attempt,
        warnings=[
            *(*checkpoints.warnings, *earlier_failures(run), *current_place().warnings),
            *(*sampler.notes, *(telemetry.warnings if telemetry else [])),
        ],
    )
    record.write(run.output / "record.json")
    if not paused:
        tidy(run)


def _sampler(run: Run, ranks: Ranks, gpus: Sequence[str], attempt: int, *, fresh: bool) -> Sampler:
    """Beside the first rank, of its node's GPUs; the others have none."""
    path = run.output / TELEMETRY
    if fresh and ranks.first:
        path.unlink(missing_ok=True)
    return Sampler(
        path,
        interval=run.telemetry if ranks.first else None,
        gpus=gpus,
        identity=identity(run) | {"attempt": attempt},
        family=os.getpid() if ranks.size == 1 else os.getppid(),
    )


def _run_loop(
    run: Run,
    ranks: Ranks,
    device: torch.device,
    checkpoints: Checkpoints,
    saved: dict[str, Any] | None,
    stop: StopRequest,
) -> _Ending:
    """Begin or go on, to the end or to the arm's own failure. Raises: Interrupted."""
    events = run.output / LOG if ranks.first else Path(os.devnull)
    if saved is None and ranks.first:
        events.unlink(missing_ok=True)
    loop = None
    with Log(events, identity=identity(run), attempt=checkpoints.attempt) as log:
        for warning in checkpoints.warnings:
            print(warning, file=sys.stderr)
            log.write("warning", message=warning)
        try:
            loop = _loop(run, ranks, device, checkpoints, log, stop)
            if saved is not None:
                loop.restore(saved)
            log.write(
                "started" if saved is None else "resumed",
                epoch=loop.position.epoch,
                epochs=run.settings.training.epochs,
                steps_per_epoch=loop.training.steps_per_epoch,
                device=str(device),
                ranks=ranks.size,
            )
            loop.run()
            ending = _Ending(loop) if run.until is None else _Ending(loop, "pruned", _paused(run))
        except Diverged as error:
            ending = _Ending(loop, "diverged", str(error))
        except (MemoryError, RuntimeError) as error:
            if ranks.size > 1 or not out_of_memory(error):
                raise
            ending = _Ending(loop, "out_of_memory", first_line(error))
        log.write("finished", outcome=ending.outcome, message=ending.message)
    return ending


def _paused(run: Run) -> str:
    return f"stopped after {run.until} of {run.settings.training.epochs} epochs"


def _beyond(saved: dict[str, Any], until: int) -> bool:
    """Whether a checkpoint is of later than where the run is to pause: its record is of what was there."""
    at = saved["position"]
    return bool((at["epoch"], at["step"]) > (until, 0))


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


def _fingerprint(
    run: Run, spec: dict[str, object], data_sha256: str, user_sources: dict[str, str], device: torch.device
) -> str:
    """Everything that decides a run; how often it is saved does not, and on how many devices is looked at apart."""
    training = run.settings.training.model_dump(mode="json", exclude={"checkpoint_seconds"})
    execution = run.settings.execution.model_dump(mode="json", exclude={"devices", "nodes"})
    decisive = {
        "experiment": [run.experiment, run.arm, run.seed],
        "spec": spec | {"training": training, "execution": execution},
        "data": data_sha256,
        "code": [stage_sha256("train"), sorted(user_sources.values())],
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }
    return sha256_text(canonical_json(decisive))


def _loop(
    run: Run, ranks: Ranks, device: torch.device, checkpoints: Checkpoints, log: Log, stop: StopRequest
) -> Loop:
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
    if ranks.size > 1:
        over_all_ranks(model)

    def batches(split: str) -> Batches:
        return Batches(
            store.split(split),  # type: ignore[arg-type]
            batch_size=settings.training.batch_size,
            device=device,
            mean=manifest.mean,
            std=manifest.std,
            image_size=settings.model.image_size,
            channels_last=settings.execution.channels_last,
            rank=ranks.rank,
            ranks=ranks.size,
        )

    seed_globally(run.seed, ranks.rank)
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
        ranks=ranks,
        until=run.until,
    )


def seed_globally(seed: int, rank: int = 0) -> None:
    """Seed what a model may draw from while it trains: PyTorch's, NumPy's and Python's global generators.

    Ranks draw from streams of their own: the same mask for every rank's images would tie them together.
    """
    number = stream_int(seed, "dropout", *([rank] if rank else []))
    torch.manual_seed(number)
    np.random.seed(number % 2**32)
    random.seed(number)


def write_weights(weights: dict[str, Tensor], path: Path) -> str:
    write_atomically(path, save(weights))
    return sha256_file(path)
