"""The record of a training: what is known before its first step, and what became of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from assay.config.arm import spec_of
from assay.data.store import MANIFEST
from assay.environment import capture, code, gpu_uuids, shared_gpu
from assay.isolation.places import current as current_place
from assay.models.sources import source_files
from assay.records import Code, Environment, Outcome, Record, canonical_json, now, sha256_file, sha256_text
from assay.sources import stage_sha256
from assay.telemetry.run import energy_by_epoch, epoch_ends, without_energy
from assay.telemetry.window import Window
from assay.training.checkpoint import Checkpoints
from assay.training.execution import apply, keep_memory
from assay.training.folder import LOG, TELEMETRY, Run, earlier_failures, write_weights
from assay.training.loop import Loop
from assay.training.measured import details_of, metrics
from assay.training.ranks import Ranks


@dataclass(frozen=True)
class Beginning:
    """What is known of a run before its first step, and on which machine."""

    started: str
    clock: float
    """`time.monotonic()` then."""
    device: torch.device
    spec: dict[str, Any]
    data_sha256: str
    code: Code
    checkpoints: Checkpoints
    environment: Environment
    places: list[dict[str, Any]]
    """Host and device of each rank."""
    gpus: list[str]
    """UUIDs of this node's."""

    def about(self) -> dict[str, Any]:
        """For whoever has to write the record in place of this process."""
        environment = self.environment.model_dump(mode="json")
        return {"attempts": self.checkpoints.attempt, "environment": environment, "ranks": self.places}


@dataclass(frozen=True)
class LoopEnding:
    """How the loop ended; without a loop where not even the model could be built."""

    loop: Loop | None
    outcome: Outcome = "completed"
    message: str | None = None

    @property
    def measured(self) -> Loop | None:
        """A loop with numbers that stand: of a whole training, or of one that paused."""
        return self.loop if self.outcome in ("completed", "pruned") else None


def begin(run: Run, ranks: Ranks) -> Beginning:
    """Set this process up for the run; every rank does so together."""
    started, clock = now(), time.monotonic()
    execution = run.settings.execution
    device = apply(execution)
    keep_memory(device)
    spec = spec_of(run.settings)
    data_sha256 = sha256_file(run.data / MANIFEST)
    origin = code("train", source_files(run.settings.model.source, run.module_roots))
    fingerprint = _fingerprint(run, spec, data_sha256, origin.user_sources, device)
    environment = capture(threads=execution.threads, device=device)
    own = environment.model_dump(mode="json", include={"host", "device"})
    places = ranks.gather({"rank": ranks.rank, **own})
    return Beginning(
        started=started,
        clock=clock,
        device=device,
        spec=spec,
        data_sha256=data_sha256,
        code=origin,
        checkpoints=Checkpoints(run.checkpoint, fingerprint, (execution.devices, execution.nodes)),
        environment=environment,
        places=places,
        gpus=[uuid for one in ranks.gather(gpu_uuids(device))[: execution.devices] for uuid in one],
    )


def record(run: Run, beginning: Beginning, ending: LoopEnding, notes: Sequence[str]) -> Record:
    """Written by rank 0, with the weights. notes: the sampler's. Times and energy of a run that was resumed or shared its GPU are left out."""
    checkpoints = beginning.checkpoints
    resumed = checkpoints.attempt > 1
    shared = shared_gpu(beginning.device.type)
    timed = not resumed and shared is None
    seconds = time.monotonic() - beginning.clock if timed else None
    window = Window(run.output / TELEMETRY, {"attempt": checkpoints.attempt})
    telemetry = window.summary()
    if shared is not None and telemetry is not None:
        telemetry = without_energy(telemetry)
    # The sampler sees one node: what the GPUs of several took is not known.
    ends = [] if resumed else epoch_ends(run.output / LOG, checkpoints.attempt)
    energy = energy_by_epoch(window, telemetry, ends) if run.settings.execution.nodes == 1 and timed else None
    weights = {} if ending.measured is None or ending.outcome == "pruned" else ending.measured.best_weights
    several = {"ranks": beginning.places} if len(beginning.places) > 1 else {}
    return Record(
        stage="train",
        experiment=run.experiment,
        arm=run.arm,
        seed=run.seed,
        outcome=ending.outcome,
        message=ending.message,
        started=beginning.started,
        finished=now(),
        spec=beginning.spec,
        spec_sha256=sha256_text(canonical_json(beginning.spec)),
        data_sha256=beginning.data_sha256,
        batches_sha256=None if ending.loop is None else ending.loop.position.digest or None,
        weights_sha256=write_weights(weights, run.output / "model.safetensors"),
        code=beginning.code,
        environment=beginning.environment,
        metrics=metrics(ending.measured, seconds, energy, ends if timed else [], timed=timed),
        telemetry=telemetry,
        details=details_of(ending.loop, energy, ends) | {"shared": shared} | several,
        resumed=resumed,
        attempts=checkpoints.attempt,
        warnings=[
            *(*checkpoints.warnings, *earlier_failures(run), *current_place().warnings),
            *(*notes, *(telemetry.warnings if telemetry else [])),
        ],
    )


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
