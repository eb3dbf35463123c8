"""What the trials of an arm came to, from their records."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from assay.config.arm import Arm, spec_of
from assay.config.sweep import Sweep
from assay.config.trials import Point, points, settings_at, trial_count
from assay.records import Record, RecordError
from assay.sweep.model import Proposed, Trial, TrialRun


def record_path(folder: Path, trial: int, seed: int, rung: int | None = None) -> Path:
    """folder: of the arm's sweep. rung: of the trial as it was when trials were compared; None: in the end."""
    stage = "train" if rung is None else f"rung-{rung}"
    return folder / f"trial-{trial}" / f"seed-{seed}" / stage / "record.json"


def round_path(folder: Path, number: int) -> Path:
    """Of the proposals of one round of a Bayesian search."""
    return folder / "proposed" / f"round-{number}.json"


def points_tried(sweep: Sweep, arm: str, folder: Path, count: int | None = None) -> list[Point]:
    """The settings of the first `count` trials of an arm, by number; None: of all. Raises: RecordError."""
    if sweep.method != "bayesian":
        return points(sweep, arm)[:count]
    count = trial_count(sweep, arm) if count is None else count
    rounds = range(math.ceil(count / sweep.per_round))
    proposed = [
        Proposed.parse(
            round_path(folder, number),
            "no such file; run the experiment",
            "remove it and run the experiment again",
        )
        for number in rounds
    ]
    return [one.point for found in proposed for one in found.trials][:count]


def read_trial(
    experiment: str,
    arm: str,
    sweep: Sweep,
    settings: Arm,
    folder: Path,
    number: int,
    point: Point,
    rung: int | None = None,
) -> Trial:
    """What one trial came to: in the end, or when trials were compared for the time `rung`.

    settings: of the arm as in the file. Raises: RecordError for a record that is missing, damaged or of something else.
    """
    spec = spec_of(settings_at(settings, point))
    runs = []
    for seed in sweep.seeds:
        path = record_path(folder, number, seed, rung)
        record = Record.read(path)
        expected = {"experiment": experiment, "stage": "train", "arm": arm, "seed": seed, "spec": spec}
        for key, value in expected.items():
            if getattr(record, key) != value:
                what = (
                    "other settings than this trial" if key == "spec" else f"{key} {getattr(record, key)!r}"
                )
                raise RecordError(f"{path}: has {what}; remove it and run the experiment again")
        runs.append(_run(record, seed, sweep.metric))
    _check_ends(runs, sweep, settings, rung, folder / f"trial-{number}")
    scored = [run for run in runs if run.outcome == ("completed" if rung is None else "pruned")]
    scores = [run.score for run in scored if run.score is not None]
    losses = [run.loss for run in scored if run.loss is not None]
    whole = len(scores) == len(losses) == len(runs)
    return Trial(
        number=number,
        point=point,
        runs=runs,
        score=fmean(scores) if whole else None,
        loss=fmean(losses) if whole else None,
    )


def _check_ends(
    runs: Sequence[TrialRun], sweep: Sweep, settings: Arm, rung: int | None, folder: Path
) -> None:
    """A training that did not fail has the epochs of its place in the search. Raises: RecordError."""
    after = sweep.prune.after if sweep.prune else []
    for run in runs:
        if run.outcome == "pruned" and rung is not None and run.epochs != after[rung]:
            what = f"was stopped after {run.epochs} epochs, and its score lets it go on"
        elif run.outcome == "pruned" and run.epochs not in after:
            what = f"was stopped after {run.epochs} epochs, where no trials are compared"
        elif run.outcome == "completed" and (
            rung is not None or run.epochs not in (None, settings.training.epochs)
        ):
            what = f"completed after {run.epochs} epochs"
        else:
            continue
        raise RecordError(f"{folder}: seed {run.seed} {what}; remove it and run the experiment again")


def _run(record: Record, seed: int, metric: str) -> TrialRun:
    values = {
        name: record.metrics[name].value
        if record.outcome in ("completed", "pruned") and name in record.metrics
        else None
        for name in (metric, "validation_loss")
    }
    epochs = record.details.get("epochs")
    return TrialRun(
        seed=seed,
        outcome=record.outcome,
        message=record.message,
        score=values[metric],
        loss=values["validation_loss"],
        epochs=epochs if isinstance(epochs, int) else None,
    )


def rank(trial: Trial, *, maximise: bool) -> tuple[float, float, int]:
    """Of the lowest the best: by score; ties go to the lower loss, then to the earlier trial. What has no score is the worst."""
    if trial.score is None or trial.loss is None:
        return math.inf, math.inf, trial.number
    return -trial.score if maximise else trial.score, trial.loss, trial.number
