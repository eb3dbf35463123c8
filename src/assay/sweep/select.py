"""Which trial is the best on the validation split; nothing here can see the test split.

A training that diverged or ran out of memory is a result: its trial is the worst.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from assay.config.arm import Arm, spec_of
from assay.config.schema import Experiment
from assay.config.sweep import FOLDER, SELECTED, TRIALS, Sweep
from assay.config.trials import settings_at, swept_arms
from assay.records import RecordError
from assay.sweep import curve
from assay.sweep.model import BudgetPoint, Selected, Trial, Trials
from assay.sweep.read import points_tried, rank, read_trial
from assay.sweep.rungs import told_of_rungs


def best(trials: Sequence[Trial], *, maximise: bool) -> Trial:
    """By score; ties go to the lower loss, then to the earlier trial. The first where none completed; none that was stopped."""
    whole = [trial for trial in trials if trial.stopped_after is None]
    return min(whole or trials, key=lambda trial: rank(trial, maximise=maximise))


def search(experiment: str, arm: str, sweep: Sweep, settings: Arm, folder: Path) -> tuple[Trials, Selected]:
    """All trials of an arm and the best of them: a function of their records.

    Raises: RecordError.
    """
    found = points_tried(sweep, arm, folder)
    trials = [
        read_trial(experiment, arm, sweep, settings, folder, number, point)
        for number, point in enumerate(found)
    ]
    if sweep.prune is not None:
        trials = told_of_rungs(trials, experiment, arm, sweep, settings, folder)
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
        curve=_curve(trials, sweep, settings),
        confidence=curve.CONFIDENCE if sweep.method == "random" and sweep.prune is None else None,
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


def _curve(trials: list[Trial], sweep: Sweep, settings: Arm) -> list[BudgetPoint]:
    if sweep.prune is not None:
        ends = [*sweep.prune.after, settings.training.epochs]
        return curve.by_rung(trials, ends, maximise=sweep.maximise)
    return curve.curve([trial.score for trial in trials], method=sweep.method, maximise=sweep.maximise)


def select(experiment: str, arm: str, sweep: Sweep, settings: Arm, folder: Path) -> None:
    """Write what a search came to. Raises: RecordError."""
    trials, selected = search(experiment, arm, sweep, settings, folder)
    trials.write(folder / TRIALS)
    selected.write(folder / SELECTED)
    # Snakemake removes temporary files after the last checkpoint only, and never those of a search that was killed.
    for weights in folder.glob("trial-*/seed-*/*/model.safetensors"):
        weights.unlink()
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
