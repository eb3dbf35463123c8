"""What a block asks of a visit, and what it answers. Free of PyTorch, so that a block starts at once."""

from collections.abc import Sequence
from pathlib import Path

from assay.config.schema import Arm, Profile
from assay.profiling.summarise import Summary
from assay.records import Environment, Outcome, Typed

KEPT_SAMPLES = 1000
"""Raw samples kept per visit and measurement; of more, evenly spaced ones. Summaries are over all."""


class Request(Typed):
    """One visit."""

    arm: Arm
    profile: Profile
    data: Path
    module_roots: list[Path]
    visit: int
    attempt: int = 1
    """Of the block: it is repeated where it was not valid."""
    flops: bool
    result: Path
    telemetry: Path
    telemetry_interval: float | None = None
    launched: float
    """`time.monotonic()` just before the process was started: one clock for all processes of a machine."""


class Timings(Typed):
    """Of one measurement, in milliseconds."""

    summary: Summary
    samples: list[float]


class Result(Typed):
    """What a visit found; null where it did not get so far."""

    outcome: Outcome = "completed"
    message: str | None = None
    cold_start_s: float | None = None
    inference_ms: dict[int, Timings] = {}
    training_ms: Timings | None = None
    inference_peak_memory_mb: float | None = None
    peak_memory_mb: float | None = None
    parameters: int | None = None
    flops: int | None = None
    environment: Environment | None = None
    telemetry_notes: list[str] = []


def thinned(samples: Sequence[float]) -> list[float]:
    """At most `KEPT_SAMPLES` of the samples, evenly spaced, in order."""
    if len(samples) <= KEPT_SAMPLES:
        return list(samples)
    return [samples[index * len(samples) // KEPT_SAMPLES] for index in range(KEPT_SAMPLES)]
