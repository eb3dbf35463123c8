"""The metrics that Assay knows: what each means, its unit, which way is better, how it is paired."""

import re
from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower"]
Pairing = Literal["seed", "block", "exact"]
Scale = Literal["difference", "ratio"]


@dataclass(frozen=True)
class Metric:
    """One measurable quantity.

    `pairing` names the replicate by which arms are paired: the seed of a run, the block of a profile,
    or `exact` for a quantity without random error (a count). `scale` says whether arms are compared by
    difference or by ratio (then margins are relative: 0.05 means 5%). `censored`: a run may never get there, so that
    a mean over those that did says nothing.
    """

    name: str
    title: str
    unit: str
    direction: Direction
    pairing: Pairing
    scale: Scale
    censored: bool = False


TO_TARGET = ("target_reached", "train_seconds_to_target", "train_energy_to_target")
"""What needs `comparison.target_accuracy`."""

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "top-1 accuracy", "fraction", "higher", "seed", "difference"),
        Metric("top5_accuracy", "top-5 accuracy", "fraction", "higher", "seed", "difference"),
        Metric("loss", "cross-entropy", "nats", "lower", "seed", "difference"),
        Metric("macro_f1", "macro F1", "fraction", "higher", "seed", "difference"),
        Metric("calibration_error", "expected calibration error", "fraction", "lower", "seed", "difference"),
        Metric("target_reached", "runs that reach the target", "fraction", "higher", "seed", "difference"),
        Metric("train_seconds_to_target", "time to the target", "s", "lower", "seed", "ratio", censored=True),
        Metric(
            "train_energy_to_target", "energy to the target", "J", "lower", "seed", "ratio", censored=True
        ),
        Metric("latency_ms", "latency, smallest batch", "ms", "lower", "block", "ratio"),
        Metric("throughput", "inference throughput, largest batch", "samples/s", "higher", "block", "ratio"),
        Metric("training_throughput", "training throughput", "samples/s", "higher", "block", "ratio"),
        Metric(
            "loaded_training_throughput",
            "training throughput, with data loading",
            "samples/s",
            "higher",
            "block",
            "ratio",
        ),
        Metric(
            "largest_batch_throughput",
            "inference throughput, largest batch tried that fits",
            "samples/s",
            "higher",
            "block",
            "ratio",
        ),
        Metric("cold_start_s", "cold start", "s", "lower", "block", "ratio"),
        Metric("peak_memory_mb", "peak memory", "MiB", "lower", "block", "ratio"),
        Metric("model_size_mb", "model size", "MiB", "lower", "exact", "ratio"),
        Metric("parameters", "parameters", "count", "lower", "exact", "ratio"),
        Metric("flops", "FLOPs per sample, forward", "FLOP", "lower", "exact", "ratio"),
    )
}

DESCRIPTIVE: dict[str, tuple[str, str]] = {
    "largest_batch": ("largest batch tried that fits", "count"),
    "training_step_ms": ("training step, with data loading", "ms"),
    "training_wait_ms": ("waiting for data", "ms"),
    "training_transfer_ms": ("transfer to the device", "ms"),
    "training_augment_ms": ("augmentation", "ms"),
    "training_forward_ms": ("forward", "ms"),
    "training_backward_ms": ("backward", "ms"),
    "training_optimizer_ms": ("optimiser", "ms"),
    "reserved_memory_mb": ("GPU memory reserved by PyTorch", "MiB"),
    "gpu_memory_mb": ("GPU memory of the process, as the driver tells it", "MiB"),
    "flops_utilization": ("FLOPs utilisation, inference", "fraction"),
    "training_flops_utilization": ("FLOPs utilisation, training", "fraction"),
    "start_s": ("of the cold start: model on the device", "s"),
    "first_call_s": ("of the cold start: first prediction", "s"),
    "compile_s": ("compilation", "s"),
}
"""Quantities of a profile that are shown and never judged: title and unit. They belong to no family of tests."""


def holds_every_difference(metric: Metric, margin: float | None) -> bool:
    """Whether no two values lie a margin apart: points of a percentage written where a fraction is meant."""
    return metric.unit == "fraction" and metric.scale == "difference" and margin is not None and margin >= 1


_OF_A_TRAINING = {
    "train_seconds": "training time per run",
    "train_samples_per_second": "training throughput of the run itself",
    "train_energy": "training energy per run",
    "train_energy_per_epoch": "training energy per epoch",
    "train_energy_per_sample": "training energy per training sample",
    "train_energy_to_chosen_epoch": "energy to the chosen epoch",
    "train_seconds_to_chosen_epoch": "time to the chosen epoch",
    "validation_loss": "validation cross-entropy",
}


def title_of(name: str) -> str:
    """How a recorded number is called; its unit stands beside it."""
    if name in METRICS:
        return METRICS[name].title
    if name in DESCRIPTIVE:
        return DESCRIPTIVE[name][0]
    quantity, _, size = name.partition("@")
    found = re.fullmatch("(latency|throughput)(?:_p([0-9]+))?(?:_ms)?", quantity)
    if size and found:
        percentile = f", {found[2]}th percentile" if found[2] else ""
        return f"{found[1]}, batch {size}{percentile}"
    return _OF_A_TRAINING.get(name, name.replace("_", " "))
