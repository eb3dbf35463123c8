"""What a profile's record says of an arm: its visits, taken together."""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from assay.config.arm import Arm
from assay.config.schema import Profile
from assay.profiling.exchange import Result, Timings
from assay.profiling.summarise import PERCENTILES
from assay.profiling.training_parts import PARTS
from assay.records import Measurement

TRAINING_FLOPS = 3
"""Of a training step over those of its forward pass: the backward pass takes twice as many, once by the weights and once
by the activations (Chowdhery et al. 2022, "PaLM", appendix B)."""


def metrics(
    results: Sequence[Result],
    arm: Arm,
    profile: Profile,
    *,
    completed: bool,
    gpu_memory_mb: Sequence[float | None] = (),
) -> dict[str, Measurement]:
    """Medians of the visits' medians; raw samples in the order of the visits. All null unless all completed.

    gpu_memory_mb: of each visit, what the driver told of its process at most.
    """
    if not completed:
        results, gpu_memory_mb = (), ()
    sizes = profile.batch_sizes
    found: dict[str, Measurement] = {}
    for size in sizes:
        found |= _inference(f"@{size}", size, [result.inference_ms[size] for result in results])
    first = results[0] if results else Result()
    largest = [result.largest for result in results if result.largest is not None]
    if len(largest) < len(results):
        largest = []
    found |= _training(results, arm)
    training = found.pop("training_throughput")
    at_largest = _per_visit("samples/s", [one.size / one.timings.summary.median * 1e3 for one in largest])
    return {
        "latency_ms": found[f"latency_ms@{sizes[0]}"],
        "throughput": found[f"throughput@{sizes[-1]}"],
        "training_throughput": training,
        "peak_memory_mb": _per_visit("MiB", [result.peak_memory_mb for result in results]),
        "reserved_memory_mb": _per_visit("MiB", [result.reserved_memory_mb for result in results]),
        "gpu_memory_mb": _per_visit("MiB", gpu_memory_mb),
        "model_size_mb": Measurement(unit="MiB", value=first.model_size_mb),
        "parameters": Measurement(unit="count", value=first.parameters),
        "flops": Measurement(unit="FLOP", value=first.flops),
        "flops_utilization": _utilization(first, found[f"throughput@{sizes[-1]}"], 1),
        "training_flops_utilization": _utilization(first, training, TRAINING_FLOPS),
        "cold_start_s": _per_visit("s", [result.cold_start_s for result in results]),
        "start_s": _per_visit("s", [result.start_s for result in results]),
        "first_call_s": _per_visit("s", [result.first_call_s for result in results]),
        "compile_s": _per_visit("s", [result.compile_s for result in results]),
        "largest_batch": Measurement(unit="count", value=largest[0].size if largest else None),
        "largest_batch_throughput": at_largest,
        **found,
    }


def _inference(suffix: str, size: int, timings: Sequence[Timings]) -> dict[str, Measurement]:
    """At one batch size; a percentile only where every visit's samples support it."""
    found = {f"latency_ms{suffix}": _timed(timings)}
    for percentile in PERCENTILES[1:]:
        told = [one.summary.percentiles.get(f"p{percentile}") for one in timings]
        value = _median(one for one in told if one is not None) if None not in told else None
        count = sum(one.summary.count for one in timings) if value is not None else None
        found[f"latency_p{percentile}_ms{suffix}"] = Measurement(unit="ms", value=value, count=count)
    found[f"throughput{suffix}"] = Measurement(
        unit="samples/s", value=_median(size / one.summary.median * 1e3 for one in timings)
    )
    return found


def _training(results: Sequence[Result], arm: Arm) -> dict[str, Measurement]:
    """Throughput without and with loading, and the parts of a step with it."""
    steps = [result.training_ms for result in results if result.training_ms is not None]
    loaded = [result.loaded_training for result in results if result.loaded_training is not None]
    images = arm.training.batch_size * arm.training.accumulate
    return {
        "training_throughput": _rate(steps, images),
        "loaded_training_throughput": _rate([one.whole for one in loaded], loaded[0].images if loaded else 0),
        "training_step_ms": _timed([one.whole for one in loaded]),
        **{
            f"training_{name}_ms": _timed([one.parts[name] for one in loaded if name in one.parts])
            for name in PARTS
        },
    }


def _timed(timings: Sequence[Timings], change: Callable[[float], float] = lambda ms: ms) -> Measurement:
    return Measurement(
        unit="ms",
        value=_median(change(one.summary.median) for one in timings),
        samples=[change(sample) for one in timings for sample in one.samples] or None,
        count=sum(one.summary.count for one in timings) or None,
    )


def _rate(steps: Sequence[Timings], images: int) -> Measurement:
    """Of steps of so many images."""
    return _timed(steps, lambda ms: images / ms * 1e3).model_copy(update={"unit": "samples/s"})


def _utilization(result: Result, throughput: Measurement, passes: int) -> Measurement:
    """FLOPs that the model needs, per second, over what the device reaches at most; null where either is not known."""
    value = None
    if result.flops is not None and result.peak_flops and throughput.value is not None:
        value = passes * result.flops * throughput.value / result.peak_flops
    return Measurement(unit="fraction", value=value)


def wide(result: Result, profile: Profile) -> list[str]:
    """Measurements of a visit whose median is not known as well as the profile asks."""
    if profile.width is None:
        return []
    return [
        name
        for name, one in result.timings().items()
        if one.summary.width is None or one.summary.width > profile.width
    ]


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return median(known) if known else None


def _per_visit(unit: str, values: Sequence[float | None]) -> Measurement:
    known = [value for value in values if value is not None]
    return Measurement(unit=unit, value=_median(known), samples=known or None, count=len(known) or None)
