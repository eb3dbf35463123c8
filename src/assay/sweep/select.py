"""Which trial is the best on the validation split; nothing here can see the test split.

A training that diverged or ran out of memory is a result: its trial is the worst.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from assay.config.arm import Arm, spec_of
from assay.config.schema import Experiment
from assay.config.sweep import FOLDER, SELECTED, TRIALS, Sweep
from assay.config.trials import Point, points, settings_at, swept_arms, trial_count
from assay.records import Record, RecordError
from assay.sweep import curve
from assay.sweep.model import Proposed, Selected, Trial, TrialRun, Trials


def record_path(folder: Path, trial: int, seed: int) -> Path:
    """folder: of the arm's sweep."""
    return folder / f"trial-{trial}" / f"seed-{seed}" / "train" / "record.json"


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
    experiment: str, arm: str, sweep: Sweep, settings: Arm, folder: Path, number: int, point: Point
) -> Trial:
    """What one trial came to.

    settings: of the arm as in the file. Raises: RecordError for a record that is missing, damaged or of something else.
    """
    spec = spec_of(settings_at(settings, point))
    runs = []
    for seed in sweep.seeds:
        path = record_path(folder, number, seed)
        record = Record.read(path)
        expected = {"experiment": experiment, "stage": "train", "arm": arm, "seed": seed, "spec": spec}
        for key, value in expected.items():
            if getattr(record, key) != value:
                what = (
                    "other settings than this trial" if key == "spec" else f"{key} {getattr(record, key)!r}"
                )
                raise RecordError(f"{path}: has {what}; remove it and run the experiment again")
        runs.append(_run(record, seed, sweep.metric))
    scores = [run.score for run in runs if run.score is not None]
    losses = [run.loss for run in runs if run.loss is not None]
    whole = len(scores) == len(losses) == len(runs)
    return Trial(
        number=number,
        point=point,
        runs=runs,
        score=fmean(scores) if whole else None,
        loss=fmean(losses) if whole else None,
    )


def _run(record: Record, seed: int, metric: str) -> TrialRun:
    values = {
        name: record.metrics[name].value if record.outcome == "completed" and name in record.metrics else None
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


def best(trials: Sequence[Trial], *, maximise: bool) -> Trial:
    """By score; ties go to the lower loss, then to the earlier trial. The first where none completed."""

    def rank(trial: Trial) -> tuple[float, float, int]:
        if trial.score is None or trial.loss is None:
            return math.inf, math.inf, trial.number
        return -trial.score if maximise else trial.score, trial.loss, trial.number

    return min(trials, key=rank)


def search(experiment: str, arm: str, sweep: Sweep, settings: Arm, folder: Path) -> tuple[Trials, Selected]:
    """All trials of an arm and the best of them: a function of their records.

    Raises: RecordError.
    """
    found = points_tried(sweep, arm, folder)
    trials = [
        read_trial(experiment, arm, sweep, settings, folder, number, point)
        for number, point in enumerate(found)
    ]
    chosen = best(trials, maximise=sweep.maximise)
    told = Trials(
        experiment=experiment,
        arm=arm,
        method=sweep.method,
        metric=sweep.metric,
        seeds=sweep.seeds,
        epochs=settings.training.epochs,
        selected=chosen.number,
        trials=trials,
        curve=curve.curve([trial.score for trial in trials], method=sweep.method, maximise=sweep.maximise),
        confidence=curve.CONFIDENCE if sweep.method == "random" else None,
    )
    selected = Selected(
        experiment=experiment,
        arm=arm,
        trial=chosen.number,
        score=chosen.score,
        point=chosen.point,
        settings=spec_of(settings_at(settings, chosen.point)),
    )
    return told, selected


def select(experiment: str, arm: str, sweep: Sweep, settings: Arm, folder: Path) -> None:
    """Write what a search came to. Raises: RecordError."""
    trials, selected = search(experiment, arm, sweep, settings, folder)
    trials.write(folder / TRIALS)
    selected.write(folder / SELECTED)
    score = "no trial completed" if selected.score is None else f"{sweep.metric} {selected.score:.4g}"
    print(f"{arm}: trial {selected.trial} of {len(trials.trials)} ({score}): {json.dumps(selected.point)}")


def tuned(experiment: Experiment, results: Path) -> Experiment:
    """The experiment with the settings that were selected; an arm without a selection keeps those of the file.

    Raises: RecordError for a selection that is damaged.
    """
    arms = dict(experiment.arms)
    for name in swept_arms(experiment):
        path = results / FOLDER / name / SELECTED
        if path.exists():
            try:
                arms[name] = Arm.model_validate(Selected.read(path).settings)
            except ValueError as error:
                raise RecordError(f"{path}: {error}; remove it and run the experiment again") from None
    return experiment.model_copy(update={"arms": arms}) if experiment.sweep else experiment
