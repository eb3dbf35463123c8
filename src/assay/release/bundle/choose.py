"""Which seed's run is released: a typical one, not the luckiest."""

from collections.abc import Mapping
from pathlib import Path

from assay.config.schema import Experiment
from assay.records import Record, RecordError
from assay.release.bundle.manifest import Chosen

RULE = "median validation accuracy of the arm's completed runs (of two in the middle the lower; ties: the lower seed)"
ASKED = "asked for by --seed"


def choose(experiment: Experiment, results: Path, arm: str, seed: int | None) -> tuple[int, Chosen, Record]:
    """The seed, why it is that one, and its training's record.

    The best of several runs is best by luck too: what it reached on the validation split it does not reach again.
    The median run is what the comparison, which is over all seeds, promises.

    Raises: ValueError for an arm or seed that is not there, or has no completed run.
    """
    if arm not in experiment.arms:
        raise ValueError(
            f"--arm: {experiment.name} has no arm '{arm}'; write one of {', '.join(experiment.arms)}"
        )
    if seed is not None and seed not in experiment.seeds:
        known = ", ".join(map(str, experiment.seeds))
        raise ValueError(f"--seed: {experiment.name} has no seed {seed}; write one of {known}")
    records, problems = {}, []
    for number in experiment.seeds:
        try:
            record = Record.read(results / "runs" / arm / f"seed-{number}" / "train" / "record.json")
        except RecordError as error:
            problems.append(str(error))
            continue
        if record.outcome == "completed":
            records[number] = record
        else:
            problems.append(f"seed {number}: {record.outcome}")
    scores = {number: _score(record) for number, record in records.items()}
    known_scores = {number: score for number, score in scores.items() if score is not None}
    if seed is None:
        if not known_scores:
            raise ValueError(
                f"{results}: {arm}: no run completed ({'; '.join(problems)}); nothing can be released"
            )
        chosen = median_seed(known_scores)
    elif seed not in records:
        raise ValueError(f"{results}: {arm}: seed {seed} did not complete; choose one of {sorted(records)}")
    else:
        chosen = seed
    told = {str(number): score for number, score in known_scores.items()}
    return chosen, Chosen(rule=RULE if seed is None else ASKED, scores=told), records[chosen]


def median_seed(scores: Mapping[int, float]) -> int:
    """The seed in the middle, by score and then by number; of two the lower score's."""
    ordered = sorted(scores, key=lambda number: (scores[number], number))
    middle = scores[ordered[(len(ordered) - 1) // 2]]
    return min(number for number, score in scores.items() if score == middle)


def _score(record: Record) -> float | None:
    measurement = record.metrics.get("validation_accuracy")
    return None if measurement is None else measurement.value
