"""What a profile's record says of an arm: its visits, taken together."""

from collections.abc import Iterable, Sequence
from statistics import median

from assay.config.schema import Arm, Profile
from assay.profiling.exchange import Result
from assay.records import Measurement


def metrics(
    results: Sequence[Result], arm: Arm, profile: Profile, *, completed: bool
) -> dict[str, Measurement]:
    """Medians of the visits' medians; raw samples in the order of the visits. All null unless all completed."""
    if not completed:
        results = ()
    sizes = profile.batch_sizes
    found: dict[str, Measurement] = {}
    for size in sizes:
        timings = [result.inference_ms[size] for result in results]
        medians = [one.summary.median for one in timings]
        found[f"latency_ms@{size}"] = Measurement(
            unit="ms",
            value=_median(medians),
            samples=[sample for one in timings for sample in one.samples] or None,
            count=sum(one.summary.count for one in timings) or None,
        )
        found[f"throughput@{size}"] = Measurement(
            unit="samples/s", value=_median(size / value * 1e3 for value in medians)
        )
    steps = [result.training_ms for result in results if result.training_ms is not None]
    trained = arm.training.batch_size * arm.training.accumulate
    found["training_throughput"] = Measurement(
        unit="samples/s",
        value=_median(trained / one.summary.median * 1e3 for one in steps),
        samples=[trained / sample * 1e3 for one in steps for sample in one.samples] or None,
        count=sum(one.summary.count for one in steps) or None,
    )
    first = results[0] if results else Result()
    return {
        "latency_ms": found[f"latency_ms@{sizes[0]}"],
        "throughput": found[f"throughput@{sizes[-1]}"],
        "training_throughput": found.pop("training_throughput"),
        "peak_memory_mb": _per_visit("MiB", [result.peak_memory_mb for result in results]),
        "parameters": Measurement(unit="count", value=first.parameters),
        "flops": Measurement(unit="FLOP", value=first.flops),
        "cold_start_s": _per_visit("s", [result.cold_start_s for result in results]),
        **found,
    }


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return median(known) if known else None


def _per_visit(unit: str, values: Sequence[float | None]) -> Measurement:
    known = [value for value in values if value is not None]
    return Measurement(unit=unit, value=_median(known), samples=known or None, count=len(known) or None)
