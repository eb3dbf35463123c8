"""The learning rate as a pure function of the update, so that a resumed run needs no state for it."""

from math import cos, pi

from assay.config.arm import Schedule

ONE_CYCLE_START = 1 / 25
"""Share of the peak at which one-cycle begins."""


def factor(schedule: Schedule, update: int, *, updates_per_epoch: int, updates: int) -> float:
    """Learning rate of update `update` (from 0) as a share of the peak.

    updates: of the whole training. Cosine: Loshchilov and Hutter 2017. One-cycle: Smith and Topin 2019, both
    phases cosine-shaped; its rise is its warm-up, so `warmup_epochs` does not apply to it.
    """
    if schedule.name == "one_cycle":
        return _one_cycle(schedule, update, updates)
    warmup = round(schedule.warmup_epochs * updates_per_epoch)
    if update < warmup:
        return (update + 1) / warmup
    if schedule.name == "cosine":
        return _cosine((update - warmup) / max(1, updates - warmup), 1.0, schedule.final_fraction)
    if schedule.name == "step":
        return float(schedule.step_factor ** (update // updates_per_epoch // schedule.step_epochs))
    return 1.0


def _one_cycle(schedule: Schedule, update: int, updates: int) -> float:
    peak = schedule.peak_fraction * updates
    if update < peak:
        return _cosine(update / peak, ONE_CYCLE_START, 1.0)
    return _cosine((update - peak) / max(1.0, updates - peak), 1.0, schedule.final_fraction)


def _cosine(progress: float, start: float, end: float) -> float:
    """From `start` at progress 0 to `end` at progress 1."""
    return end + (start - end) * 0.5 * (1 + cos(pi * min(1.0, progress)))
