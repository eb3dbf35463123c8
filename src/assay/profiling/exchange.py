"""What a block asks of a visit, and what it answers. Free of PyTorch, so that a block starts at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from assay.config.arm import Arm
from assay.config.schema import Profile
from assay.profiling.largest import Found
from assay.profiling.summarise import Summary, summarise
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
    memory_mb: float | None = None
    """What the visit may hold; None: as much as it likes."""
    largest: int | None = None
    """The largest batch that fits, as an earlier visit found it."""
    launched: float
    """`time.monotonic()` just before the process was started: one clock for all processes of a machine."""


class Timings(Typed):
    """Of one measurement, in milliseconds."""

    summary: Summary
    samples: list[float]

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        milliseconds = [_milliseconds(value) for value in seconds]
        return cls(summary=summarise(milliseconds), samples=thinned(milliseconds))

    def told(self) -> dict[str, Any]:
        """The summary, with the interval's width relative to the median."""
        return {**self.summary.model_dump(), "width": self.summary.width}


class Steps(Typed):
    """Training steps with their data loaded. The same samples stand behind each part and the whole, in order."""

    images: int
    """Of one step."""
    whole: Timings
    parts: dict[str, Timings]
    """By name, in the order of a step; one that does not come up (no transfer on a CPU) is absent."""

    @classmethod
    def of(cls, steps: Sequence[Mapping[str, float]], names: Sequence[str], images: int) -> Self:
        """steps: seconds by part."""
        present = [name for name in names if any(name in step for step in steps)]
        return cls(
            images=images,
            whole=Timings.of([sum(step.values()) for step in steps]),
            parts={name: Timings.of([step.get(name, 0.0) for step in steps]) for name in present},
        )


class Largest(Typed):
    """Inference at the largest batch that fits."""

    size: int
    timings: Timings
    search: Found | None
    """How it was found; null: by an earlier visit."""


class Result(Typed):
    """What a visit found; null where it did not get so far."""

    outcome: Outcome = "completed"
    message: str | None = None
    start_s: float | None = None
    """From the start of the process to the model on its device."""
    first_call_s: float | None = None
    """The first prediction."""
    cold_start_s: float | None = None
    """From the start of the process to the end of the first prediction."""
    compile_s: float | None = None
    """By how much the first calls took longer than the median one, summed; null: nothing is compiled or captured."""
    inference_ms: dict[int, Timings] = {}
    training_ms: Timings | None = None
    loaded_training: Steps | None = None
    largest: Largest | None = None
    inference_peak_memory_mb: float | None = None
    peak_memory_mb: float | None = None
    reserved_memory_mb: float | None = None
    """What PyTorch's allocator took from the GPU; null on a CPU."""
    model_size_mb: float | None = None
    parameters: int | None = None
    flops: int | None = None
    peak_flops: float | None = None
    """FLOP/s that the device reaches at most; null: not known."""
    peak_source: str | None = None
    environment: Environment | None = None
    telemetry_notes: list[str] = []
    notes: list[str] = []
    unfinished: str | None = None
    """What the visit went on to after this was written."""

    def told(self) -> dict[str, Any]:
        """As evidence in the record: summaries, without the samples."""
        alone = {"outcome", "message", "environment", "telemetry_notes", "notes"}
        timed = {"inference_ms", "training_ms", "loaded_training", "largest"}
        loaded, largest = self.loaded_training, self.largest
        return {
            **self.model_dump(exclude=alone | timed),
            "inference_ms": {str(size): one.told() for size, one in self.inference_ms.items()},
            "training_ms": None if self.training_ms is None else self.training_ms.told(),
            "loaded_training": None
            if loaded is None
            else {
                "images": loaded.images,
                "whole": loaded.whole.told(),
                "parts": {name: one.told() for name, one in loaded.parts.items()},
            },
            "largest": None
            if largest is None
            else {
                "size": largest.size,
                "timings": largest.timings.told(),
                "search": None if largest.search is None else largest.search.model_dump(),
            },
        }

    def timings(self) -> dict[str, Timings]:
        """Every measurement by name."""
        found = {f"inference@{size}": one for size, one in self.inference_ms.items()}
        if self.training_ms is not None:
            found["training"] = self.training_ms
        if self.loaded_training is not None:
            found["training with loading"] = self.loaded_training.whole
        return found


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 6)


def thinned(samples: Sequence[float]) -> list[float]:
    """At most `KEPT_SAMPLES` of the samples, evenly spaced, in order."""
    if len(samples) <= KEPT_SAMPLES:
        return list(samples)
    return [samples[index * len(samples) // KEPT_SAMPLES] for index in range(KEPT_SAMPLES)]
