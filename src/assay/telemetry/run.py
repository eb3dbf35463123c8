"""Energy of one training: its telemetry laid over its log, both on one clock."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from assay.records import Measurement, Telemetry
from assay.telemetry.energy import DISAGREEMENT, LEAST_SECONDS, Cumulative
from assay.telemetry.window import Window, lines


def epoch_ends(log: Path, attempt: int) -> list[float]:
    """When the training began and when each epoch's validation ended, in seconds since 1970, in order."""
    told = lines(log, {"attempt": attempt})
    return [_seconds(line["timestamp"]) for line in told if line["event"] in ("started", "epoch")]


def without_energy(summary: Telemetry) -> Telemetry:
    """Of a run that shared its GPUs: their counters and sensors tell of the whole card, whoever computed there."""
    reason = "the energy of {} is not told: other runs shared it, and its counter does not tell whose it was"
    gpus = [gpu.model_copy(update={"energy": None}) for gpu in summary.gpus]
    notes = [*summary.notes, *(reason.format(gpu.uuid) for gpu in summary.gpus)]
    return summary.model_copy(update={"gpus": gpus, "notes": notes})


def training_energy(
    steps: Sequence[float] | None, ends: Sequence[float], *, samples: int | None, chosen: int | None
) -> dict[str, Measurement]:
    """Energy of the GPUs from the first step to the end of the last epoch, validation included.

    Args:
        steps: of `energy_by_epoch`.
        ends: of `epoch_ends`.
        samples: training samples in all; None where the training did not complete.
        chosen: the epoch whose weights were kept, from 0.
    """
    steps = steps if samples else None
    total = sum(steps) if steps else None
    long_enough = all(b - a >= LEAST_SECONDS for a, b in pairwise(ends))
    to_chosen = sum(steps[: chosen + 1]) if steps and chosen is not None else None
    per_sample = total / samples if total is not None and samples else None
    per_epoch = total / len(steps) if steps and total is not None else None
    return {
        "train_energy": Measurement(unit="J", value=total),
        "train_energy_per_epoch": Measurement(
            unit="J",
            value=per_epoch,
            samples=list(steps) if steps and long_enough else None,
            count=len(steps) if steps else None,
        ),
        "train_energy_per_sample": Measurement(unit="J", value=per_sample, count=samples if total else None),
        "train_energy_to_chosen_epoch": Measurement(unit="J", value=to_chosen),
        "train_seconds_to_chosen_epoch": Measurement(unit="s", value=_seconds_to(ends, samples, chosen)),
    }


def _seconds_to(ends: Sequence[float], samples: int | None, chosen: int | None) -> float | None:
    if not samples or chosen is None or chosen + 1 >= len(ends):
        return None
    return ends[chosen + 1] - ends[0]


def energy_by_epoch(
    window: Window | None, summary: Telemetry | None, ends: Sequence[float]
) -> list[float] | None:
    """Joules of each epoch over all GPUs; None unless every GPU's counter can be believed and is this job's alone.

    Args:
        window, summary: telemetry of all GPUs that computed; None where some were not watched.
        ends: of `epoch_ends`.

    So None on a CPU (its counters tell of whole packages, which other runs share), where a counter failed or was
    contradicted, where somebody else computed on a GPU, on a part of one (the counter is the whole card's), and for a
    training under 2 s.
    """
    if (
        window is None
        or summary is None
        or not summary.gpus
        or len(ends) < 2
        or ends[-1] - ends[0] < LEAST_SECONDS
    ):
        return None
    trusted = [
        gpu.energy is not None
        and gpu.energy.source == "counter"
        and (gpu.energy.disagreement or 0.0) <= DISAGREEMENT
        and not gpu.other_processes
        and gpu.lost is None
        and not gpu.uuid.startswith("MIG-")
        for gpu in summary.gpus
    ]
    if not all(trusted):
        return None
    counters = window.counters()
    found = [0.0] * (len(ends) - 1)
    for gpu in summary.gpus:
        steps = _differences(counters[gpu.uuid], [window.monotonic(end) for end in ends])
        if steps is None:
            return None
        found = [before + step for before, step in zip(found, steps, strict=True)]
    return found


def _differences(counter: Cumulative, times: Sequence[float]) -> list[float] | None:
    at = [counter.at(time) for time in times]
    known = [value for value in at if value is not None]
    return [b - a for a, b in pairwise(known)] if len(known) == len(at) else None


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
