"""How a run on several devices ended otherwise than by completing, and what it leaves then."""

import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from assay.config.arm import spec_of
from assay.data.store import MANIFEST
from assay.environment import capture, code, select_device, shared_gpu
from assay.isolation.places import current as current_place
from assay.isolation.supervisor import Crossing
from assay.models.sources import source_files
from assay.records import Environment, Log, Outcome, Record, canonical_json, now, sha256_file, sha256_text
from assay.telemetry.run import without_energy
from assay.telemetry.window import Window
from assay.training.checkpoint import sole_writer
from assay.training.folder import (
    TELEMETRY,
    Run,
    earlier_failures,
    failure_file,
    identity,
    lock,
    tidy,
    write_weights,
)
from assay.training.measured import no_metrics
from assay.training.run import interrupted


@dataclass(frozen=True)
class Ending:
    """`about`: what rank 0 said of the run when it began it."""

    kind: Literal["stopped", "out_of_memory", "refused", "failed", "crossed"]
    host: str | None = None
    message: str = ""
    rank: int | None = None
    process: int | None = None
    signal: int | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        if self.host is None:
            return self.message
        where = "" if self.rank is None else f"rank {self.rank} (process {self.process}) "
        return f"{where}on {self.host}: {self.message}"


def conclude(run: Run, ending: Ending | None, *, started: str, first: bool) -> int:
    """Leave what the run leaves, which is the first node's to write; returns the exit status.

    Memory that ran out on any rank is the run's result. A rank that died is none: the log and `failure.json`
    name it, and the same command goes on from the last checkpoint.
    """
    if ending is None:
        return 0
    if ending.kind == "stopped":
        assert ending.signal is not None
        return interrupted(run, ending.signal) if first else 128 + ending.signal
    if ending.kind == "refused":
        print(f"train: {run.arm}, seed {run.seed}: {ending.message}", file=sys.stderr)
        return 1
    if ending.kind == "out_of_memory":
        if first:
            _leave_result(run, ending, "out_of_memory", started)
        return 0
    print(
        f"{run.output}: {ending.text}; the run ends, and the same command goes on from its last checkpoint",
        file=sys.stderr,
    )
    if first:
        _log(run, ending, "failed", host=ending.host, rank=ending.rank, process=ending.process)
        _record(run, ending, "failed", started).write(failure_file(run))
    return 1


def leave_crossing(run: Run, crossing: Crossing, *, first: bool) -> int:
    """The result of a run that crossed a bound and was ended for it: nothing that it computed is kept.

    Returns the exit status: 0, or 1 on a node that is not the first, whose run the first node ends.
    """
    if not first:
        return 1
    device = select_device(run.settings.execution.device)
    environment = capture(threads=run.settings.execution.threads, device=device)
    about = {
        "attempts": crossing.attempt if run.checkpoint.exists() else 1,
        "environment": environment.model_dump(mode="json"),
    }
    with sole_writer(lock(run)):
        ending = Ending("crossed", message=crossing.message, about=about)
        _leave_result(run, ending, crossing.outcome, crossing.started)
    return 0


def _leave_result(run: Run, ending: Ending, outcome: Outcome, started: str) -> None:
    """A record and no weights."""
    weights = write_weights({}, run.output / "model.safetensors")
    warnings = [*earlier_failures(run), *current_place().warnings]
    changes = {"weights_sha256": weights, "metrics": no_metrics(), "warnings": warnings}
    _log(run, ending, "finished", outcome=outcome)
    _record(run, ending, outcome, started).model_copy(update=changes).write(run.output / "record.json")
    tidy(run)


def _log(run: Run, ending: Ending, event: str, **fields: Any) -> None:
    attempt = ending.about.get("attempts", 1)
    with Log(run.output / "log.jsonl", identity=identity(run), attempt=attempt) as log:
        log.write(event, message=ending.text, **fields)


def _record(run: Run, ending: Ending, outcome: Outcome, started: str) -> Record:
    spec, about = spec_of(run.settings), ending.about
    environment = about.get("environment")
    device = None if environment is None else environment.get("device")
    shared = None if device is None else shared_gpu(device["type"])
    telemetry = Window(run.output / TELEMETRY, since=started).summary()
    return Record(
        stage="train",
        experiment=run.experiment,
        arm=run.arm,
        seed=run.seed,
        outcome=outcome,
        message=ending.text,
        started=started,
        finished=now(),
        spec=spec,
        spec_sha256=sha256_text(canonical_json(spec)),
        data_sha256=sha256_file(run.data / MANIFEST),
        code=code("train", source_files(run.settings.model.source, run.module_roots)),
        environment=capture(threads=run.settings.execution.threads, device=None)
        if environment is None
        else Environment.model_validate(environment),
        telemetry=telemetry if shared is None or telemetry is None else without_energy(telemetry),
        details={"shared": shared} | ({} if about.get("ranks") is None else {"ranks": about["ranks"]}),
        resumed=about.get("attempts", 1) > 1,
        attempts=about.get("attempts", 1),
    )
