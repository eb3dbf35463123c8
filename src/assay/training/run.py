"""One run, from settings to record: set up, train or go on, write weights and record."""

import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.data.batches import Batches
from assay.data.store import open_store
from assay.data.streams import stream_int
from assay.models.build import build
from assay.records import ASKED_TO_END, Log
from assay.telemetry.beside import Sampler
from assay.training.batch_norm import over_all_ranks
from assay.training.checkpoint import Checkpoints, sole_writer
from assay.training.execution import place
from assay.training.folder import LOG, TELEMETRY, Run, identity, lock, tidy
from assay.training.loop import Interrupted, Loop
from assay.training.outcomes import Diverged, first_line, out_of_memory
from assay.training.ranks import ALONE, Ranks
from assay.training.recording import LoopEnding, begin, record

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


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


def train_as(
    run: Run, ranks: Ranks, stop: StopRequest, begun: Callable[[dict[str, Any]], None] = lambda _: None
) -> None:
    """Train as the only process or as one of several: rank 0 writes, and memory that runs out is raised for all to end.

    begun: is told by rank 0 what a record needs to know if another process has to write it.
    Raises: Interrupted.
    """
    beginning = begin(run, ranks)
    checkpoints = beginning.checkpoints
    saved, checkpoints.attempt = ranks.from_first(
        (checkpoints.load() if ranks.first else None, checkpoints.attempt)
    )
    if saved is not None and run.until is not None and _beyond(saved, run.until):
        saved = None
    if ranks.first:
        begun(beginning.about())
    with _sampler(run, ranks, beginning.gpus, checkpoints.attempt, fresh=saved is None) as sampler:
        ending = _run_loop(run, ranks, beginning.device, checkpoints, saved, stop)
    if not ranks.first:
        return
    record(run, beginning, ending, sampler.notes).write(run.output / "record.json")
    if ending.outcome != "pruned":
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
) -> LoopEnding:
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
            ending = LoopEnding(loop) if run.until is None else LoopEnding(loop, "pruned", _paused(run))
        except Diverged as error:
            ending = LoopEnding(loop, "diverged", str(error))
        except (MemoryError, RuntimeError) as error:
            if ranks.size > 1 or not out_of_memory(error):
                raise
            ending = LoopEnding(loop, "out_of_memory", first_line(error))
        log.write("finished", outcome=ending.outcome, message=ending.message)
    return ending


def _paused(run: Run) -> str:
    return f"stopped after {run.until} of {run.settings.training.epochs} epochs"


def _beyond(saved: dict[str, Any], until: int) -> bool:
    """Whether a checkpoint is of later than where the run is to pause: its record is of what was there."""
    at = saved["position"]
    return bool((at["epoch"], at["step"]) > (until, 0))


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
