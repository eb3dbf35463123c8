"""What a training took to reach a target: read from its record, so that another target trains nothing anew."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from assay.records import Measurement, Record
from assay.telemetry.energy import LEAST_SECONDS

NOT_REACHED = "target not reached"
RESUMED = "resumed, so that its time and energy are not those of one training"
SHARED = "other runs shared its GPU, so that its time and energy are not those of one training alone"


def epoch_reaching(record: Record, accuracy: float) -> int | None:
    """The first epoch after which the validation accuracy is at least that; None: it never was."""
    history = record.details.get("history") or []
    return next((i for i, entry in enumerate(history) if entry["validation_accuracy"] >= accuracy), None)


def to_target(record: Record, accuracy: float) -> tuple[dict[str, Measurement], dict[str, str]]:
    """Metrics of a training's record, and for each that has no value the reason, where there is one to tell.

    Seconds from the start of the training to the end of the validation that reached the target, and joules of its GPUs
    until then. Null for a run that was resumed or shared its GPU, and energy for one that reached the target in under
    2 s, which is too little for the counter.
    """
    epoch = epoch_reaching(record, accuracy) if record.outcome == "completed" else None
    shared = record.details.get("shared") is not None
    seconds = None if shared else _until(record.details.get("epoch_ends_s"), epoch)
    energies = None if shared else record.details.get("epoch_energy_j")
    joules = _until(None if energies is None else list(accumulate(energies)), epoch)
    short = seconds is not None and seconds < LEAST_SECONDS
    reached = None if record.outcome != "completed" else float(epoch is not None)
    found = {
        "target_reached": Measurement(unit="fraction", value=reached),
        "train_seconds_to_target": Measurement(unit="s", value=seconds),
        "train_energy_to_target": Measurement(unit="J", value=None if short else joules),
    }
    names = ("train_seconds_to_target", "train_energy_to_target")
    if record.outcome != "completed":
        return found, {}
    if epoch is None:
        return found, dict.fromkeys(names, NOT_REACHED)
    if record.resumed or shared:
        return found, dict.fromkeys(names, RESUMED if record.resumed else SHARED)
    why = f"reached in under {LEAST_SECONDS:g} s, too little for the energy counter"
    return found, {"train_energy_to_target": why} if short and joules is not None else {}


def _until(totals: Sequence[Any] | None, epoch: int | None) -> float | None:
    if totals is None or epoch is None or epoch >= len(totals):
        return None
    return float(totals[epoch])
