"""Typed records, one per stage, and the JSONL log that a run writes while it goes.

A record carries everything needed to check the claim that it makes. It is written atomically: a reader
sees the whole of it or nothing.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assay.clock import now as now

Outcome = Literal["completed", "diverged", "out_of_memory", "failed", "interrupted", "invalid", "pruned"]
"""`invalid`: measured, in circumstances in which the numbers say nothing. `pruned`: a trial that its sweep stopped early."""
Stage = Literal["health", "data", "train", "evaluate", "profile", "trace", "compare", "report", "archive"]
ASKED_TO_END = "asked to end by signal {signal}"
"""What a run that wrote a checkpoint and ended on request says in its text log."""


class RecordError(ValueError):
    """A record that is missing, damaged or of another version."""


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_text(text: str) -> str:
    return sha256_bytes(text.encode())


def sha256_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Typed(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, path: Path, missing: str, anew: str, error: type[ValueError] = RecordError) -> Self:
        """From a file that `write` left.

        missing: what to say where there is none. anew: how to get another in place of a damaged one.
        Raises: `error` naming the file and what is wrong with it.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise error(f"{path}: {missing}") from None
        except ValidationError as invalid:
            first = invalid.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise error(f"{path}: {where}: {first['msg']}; {anew}") from None

    def write(self, path: Path) -> None:
        write_atomically(path, self.model_dump_json(indent=1).encode() + b"\n")


class Measurement(Typed):
    """One number with its unit. `value` is null where it was not measured, never 0 in its place."""

    unit: str
    value: float | None
    samples: list[float] | None = Field(default=None, description="Raw samples in order, in the same unit.")
    count: int | None = Field(
        default=None, description="How many samples or examples stand behind the value."
    )
    interval: tuple[float, float] | None = Field(default=None, description="Interval of `value`, same unit.")
    confidence: float | None = Field(default=None, description="Level of `interval`.")


class Device(Typed):
    """The device that computed."""

    type: Literal["cpu", "cuda"]
    name: str
    uuid: str | None = None
    memory_mb: float | None = None
    driver: str | None = None
    cuda: str | None = None


class Environment(Typed):
    """Where a record came to be."""

    host: str
    platform: str
    python: str
    packages: dict[str, str]
    cpu: str
    cpu_count: int
    threads: int | None = None
    cores: list[int] | None = Field(
        default=None, description="Logical CPUs that the job had to itself; null: it shared, or nobody knows."
    )
    gpus: list[str] | None = Field(default=None, description="UUIDs of GPUs that the job had to itself.")
    bounds_held_by: dict[str, str] | None = Field(
        default=None, description="What held the job's bounds on processes and memory; null: it had none."
    )
    image: dict[str, str] | None = Field(default=None, description="Base digest and SIF sha256; null: host.")
    device: Device | None = None


class Code(Typed):
    """Which code ran."""

    version: str
    commit: str | None = Field(default=None, description="Git commit of the checkout; null outside one.")
    modified: bool | None = Field(default=None, description="Whether the checkout differed from the commit.")
    sources_sha256: str = Field(description="Hash of the package's source files.")
    user_sources: dict[str, str] = Field(default={}, description="SHA-256 of each of the user's own modules.")


class Range(Typed):
    """One series of telemetry over a window, in few numbers."""

    unit: str
    minimum: float
    median: float = Field(description="Of values rounded to four digits.")
    maximum: float
    count: int = Field(description="Samples in which it was told.")


class Energy(Typed):
    """What one device took over a window."""

    device: str = Field(description="UUID of a GPU, or the path of a CPU package's counter.")
    source: Literal["counter", "power"] | None = Field(
        description="Differences of the energy counter, or power integrated; null: neither was told."
    )
    joules: float | None
    seconds: float
    integrated_joules: float | None = Field(description="Power integrated over the same window.")
    disagreement: float | None = Field(description="|counter - integrated| / integrated.")
    wraps: int = Field(default=0, description="How often the counter began anew.")
    idle_watts: float | None = Field(default=None, description="Power of the idle device; null: not taken.")
    net_joules: float | None = Field(default=None, description="joules - idle_watts * seconds.")


class GpuTelemetry(Typed):
    """One GPU of the job."""

    uuid: str
    name: str | None = None
    driver: str | None = None
    series: dict[str, Range] = {}
    clock_reasons: dict[str, float] = Field(
        default={}, description="Reasons to lower the clocks that were seen, with the share of samples."
    )
    other_processes: int | None = Field(
        default=None, description="Most processes of others at one time; null: not told."
    )
    lost: str | None = Field(default=None, description="When it stopped to answer.")
    energy: Energy | None = None


class Telemetry(Typed):
    """Summary of `telemetry.jsonl`. What was not measured is absent or null."""

    interval_s: float
    seconds: float = Field(description="From the first sample to the last.")
    samples: int
    late: int = Field(description="Samples that came more than half an interval late.")
    cpu: dict[str, Range] = {}
    cpu_energy: list[Energy] = Field(default=[], description="Of whole packages, whoever used them.")
    gpus: list[GpuTelemetry] = []
    notes: list[str] = Field(default=[], description="What could not be measured, and why.")
    warnings: list[str] = []


class Record(Typed):
    """What a stage leaves behind."""

    schema_version: Literal[1] = 1
    stage: Stage
    experiment: str
    arm: str | None = None
    seed: int | None = None
    block: int | None = None
    outcome: Outcome
    message: str | None = Field(default=None, description="Why the outcome is not `completed`.")
    started: str
    finished: str
    spec: dict[str, Any] = Field(default={}, description="The resolved settings of this stage.")
    spec_sha256: str | None = None
    data_sha256: str | None = Field(default=None, description="SHA-256 of the data manifest.")
    batches_sha256: str | None = Field(
        default=None, description="Hash over all training batches in order: equal for arms paired by seed."
    )
    weights_sha256: str | None = None
    predictions_sha256: str | None = Field(
        default=None, description="SHA-256 of the predictions that an evaluation left beside its record."
    )
    code: Code
    environment: Environment
    metrics: dict[str, Measurement] = {}
    telemetry: Telemetry | None = Field(default=None, description="What the machine did meanwhile.")
    details: dict[str, Any] = Field(default={}, description="What is particular to the stage.")
    resumed: bool = False
    attempts: int = 1
    warnings: list[str] = []

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises: RecordError naming the file and what is wrong with it."""
        return cls.parse(
            path, "no such record; run the experiment again", "remove it and run the experiment again"
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or absent, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Log:
    """Append-only JSONL: one object a line, at most half a second behind.

    Every line carries the identity of the run, `attempt`, `event`, `timestamp` and the fields of `FIELDS`;
    what was not measured is null. A resumed run appends under a higher `attempt`: of two lines for the
    same event and step, the later attempt's counts.
    """

    FIELDS = ("step", "epoch", "loss", "accuracy", "gpu_memory_mb", "throughput_samples_per_sec")
    FLUSH_SECONDS = 0.5

    def __init__(self, path: Path, *, identity: Mapping[str, str | int], attempt: int = 1) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        end_torn_line(path)
        self._file = path.open("a", encoding="utf-8", buffering=1 << 16)
        self._identity = dict(identity) | {"attempt": attempt}
        self._flushed = time.monotonic()

    def write(self, event: str, **fields: Any) -> None:
        line = {
            "timestamp": now(),
            **self._identity,
            "event": event,
            **dict.fromkeys(self.FIELDS),
            **fields,
        }
        self._file.write(json.dumps({key: _finite(value) for key, value in line.items()}) + "\n")
        if time.monotonic() - self._flushed > self.FLUSH_SECONDS:
            self.flush()

    def flush(self, *, sync: bool = False) -> None:
        """sync: also past a crash of the machine."""
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _finite(value: Any) -> Any:
    """NaN and infinities are not JSON: they are written as text, so that they are seen and not lost."""
    if isinstance(value, float) and not (-float("inf") < value < float("inf")):
        return str(value)
    return value


def end_torn_line(path: Path) -> None:
    """Drop the half line that a killed writer may have left at the end."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        content_end = file.seek(0, os.SEEK_END)
        position = content_end
        while position > 0:
            start = max(0, position - 4096)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            position = start
        file.truncate(0)
