"""What a training's record says of how it went: of the chosen epoch, of time, and of energy."""

from collections.abc import Sequence

from assay.records import Measurement
from assay.telemetry.run import training_energy
from assay.training.loop import Loop


def metrics(
    loop: Loop | None,
    seconds: float | None,
    energy: Sequence[float] | None,
    ends: Sequence[float],
    *,
    timed: bool,
) -> dict[str, Measurement]:
    """Timings and energy are left out unless the run is `timed`: begun and ended as one, alone on its device.

    Args:
        loop: None where the training did not complete.
        energy: of `energy_by_epoch`.
        ends: of `epoch_ends`.
    """
    chosen: dict[str, float | int] = {}
    if loop is not None:
        chosen = next(entry for entry in loop.position.history if entry["epoch"] == loop.position.best_epoch)
    whole = loop if timed else None
    samples = throughput = None
    if whole is not None:
        samples = whole.training.steps_per_epoch * whole.training.batch_size * len(whole.position.history)
        throughput = samples / whole.position.seconds if whole.position.seconds > 0 else None
    count = None if loop is None else loop.validation.count
    found = {
        "validation_accuracy": Measurement(
            unit="fraction", value=chosen.get("validation_accuracy"), count=count
        ),
        "validation_loss": Measurement(unit="nats", value=chosen.get("validation_loss"), count=count),
        "train_seconds": Measurement(unit="s", value=seconds),
        "train_samples_per_second": Measurement(unit="samples/s", value=throughput),
    }
    epoch = None if whole is None else whole.position.best_epoch
    return found | training_energy(energy, ends, samples=samples, chosen=epoch)


def no_metrics() -> dict[str, Measurement]:
    """Of a run that did not complete: nothing was measured."""
    return metrics(None, None, None, [], timed=False)


def details_of(loop: Loop | None, energy: Sequence[float] | None, ends: Sequence[float]) -> dict[str, object]:
    """`epoch_ends_s`: when each epoch's validation ended, since the training began; `epoch_energy_j`: of each epoch.

    Both null where they were not measured, as of a resumed run: what a target took is told from them.
    """
    if loop is None:
        return {}
    return {
        "epoch_ends_s": [round(end - ends[0], 6) for end in ends[1:]] or None,
        "epoch_energy_j": energy,
        "epochs": len(loop.position.history),
        "chosen_epoch": loop.position.best_epoch,
        "steps_per_epoch": loop.training.steps_per_epoch,
        "history": loop.position.history,
    }
