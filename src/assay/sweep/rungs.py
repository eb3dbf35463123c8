"""Which trials go on: synchronous successive halving (Jamieson and Talwalkar 2016), arm by arm.

A rung is reached when every trial that was to reach it has: what goes on is a function of the records, whichever job ended
first. A trial that failed never goes on.
"""

from collections.abc import Sequence
from pathlib import Path

from assay.config.arm import Arm
from assay.config.sweep import Sweep
from assay.config.trials import trials_by_rung
from assay.records import RecordError
from assay.sweep.model import Rung, Trial
from assay.sweep.read import points_tried, rank, read_trial


def rung_path(folder: Path, number: int) -> Path:
    """Of which trials go on from a rung. folder: of the arm's sweep."""
    return folder / "rungs" / f"rung-{number}.json"


def reached(
    experiment: str, arm: str, sweep: Sweep, settings: Arm, folder: Path, most: int
) -> list[list[Trial]]:
    """The trials that were compared at each rung up to `most`, best first.

    Raises: RecordError for a record that is missing, damaged or of something else.
    """
    found = points_tried(sweep, arm, folder)
    counts = trials_by_rung(sweep, arm)
    rungs: list[list[Trial]] = []
    numbers = list(range(counts[0]))
    for rung in range(most + 1):
        trials = [
            read_trial(experiment, arm, sweep, settings, folder, number, found[number], rung)
            for number in numbers
        ]
        rungs.append(sorted(trials, key=lambda trial: rank(trial, maximise=sweep.maximise)))
        numbers = going_on(rungs[-1], counts[rung + 1])
    return rungs


def going_on(trials: Sequence[Trial], count: int) -> list[int]:
    """Numbers of the best so many, in order. trials: best first."""
    return sorted(trial.number for trial in trials[:count] if trial.score is not None)


def prune(experiment: str, arm: str, sweep: Sweep, settings: Arm, folder: Path, number: int) -> None:
    """Write which trials go on from a rung. Raises: RecordError."""
    assert sweep.prune is not None
    trials = reached(experiment, arm, sweep, settings, folder, number)[number]
    found = going_on(trials, trials_by_rung(sweep, arm)[number + 1])
    after = sweep.prune.after[number]
    Rung(experiment=experiment, arm=arm, rung=number, after=after, goes_on=found).write(
        rung_path(folder, number)
    )
    print(
        f"{arm}: of {len(trials)} trials {len(found)} go on after epoch {after}: {', '.join(map(str, found)) or 'none'}"
    )


def told_of_rungs(
    trials: Sequence[Trial], experiment: str, arm: str, sweep: Sweep, settings: Arm, folder: Path
) -> list[Trial]:
    """Trials with what they were at the rungs.

    Raises: RecordError for a trial that was stopped where its score lets it go on, or went on where it does not.
    """
    assert sweep.prune is not None
    rungs = reached(experiment, arm, sweep, settings, folder, len(sweep.prune.after) - 1)
    counts = trials_by_rung(sweep, arm)
    scores: dict[int, list[float | None]] = {trial.number: [] for trial in trials}
    ends: dict[int, int | None] = dict.fromkeys(scores)
    for rung, (compared, after) in enumerate(zip(rungs, sweep.prune.after, strict=True)):
        further = going_on(compared, counts[rung + 1])
        for trial in compared:
            scores[trial.number].append(trial.score)
            if trial.number not in further:
                ends[trial.number] = after
    return [_told(trial, scores[trial.number], ends[trial.number], folder) for trial in trials]


def _told(trial: Trial, scores: list[float | None], end: int | None, folder: Path) -> Trial:
    """end: epochs after which it did not go on."""
    stopped = any(run.outcome == "pruned" for run in trial.runs)
    further = any((run.epochs or 0) > end for run in trial.runs) if end is not None else False
    if further or (end is None and stopped):
        what = (
            "went on, and its score does not let it"
            if further
            else "was stopped, and its score lets it go on"
        )
        raise RecordError(f"{folder}/trial-{trial.number}: {what}; remove it and run the experiment again")
    return trial.model_copy(update={"rungs": scores, "stopped_after": end if stopped else None})
