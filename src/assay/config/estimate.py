"""What an experiment will take: jobs by rule, and time where finished runs tell it."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from assay.config.schema import Experiment, Profile
from assay.records import Record, RecordError

VISIT_START_SECONDS = 4.0
"""Start of a fresh process with PyTorch on a busy machine; what a visit costs beside its measurements."""


@dataclass(frozen=True)
class Estimate:
    """jobs: by rule, in the order of the workflow. Seconds are null where nothing tells them."""

    jobs: dict[str, int]
    trainings: int
    epochs: int
    training_seconds: float | None
    profile_seconds: float


def estimate(experiment: Experiment, results: Path) -> Estimate:
    """`training_seconds` is the work of all trainings, one after another, from runs that finished before."""
    trainings = len(experiment.arms) * len(experiment.seeds)
    blocks = experiment.profile.blocks if experiment.profile.enabled else 0
    jobs = {"resolve_experiment": 1, "prepare_data": 1, "train": trainings, "evaluate": trainings}
    jobs |= {"profile": blocks} if blocks else {}
    jobs |= {"compare": 1, "report": 1}
    each = {arm: _seconds_of(results / experiment.name / "runs" / arm) for arm in experiment.arms}
    known = [seconds for seconds in each.values() if seconds is not None]
    return Estimate(
        jobs=jobs,
        trainings=trainings,
        epochs=sum(arm.training.epochs for arm in experiment.arms.values()) * len(experiment.seeds),
        training_seconds=sum(known) * len(experiment.seeds) if len(known) == len(each) else None,
        profile_seconds=blocks * 2 * len(experiment.arms) * _visit_seconds(experiment.profile),
    )


def _visit_seconds(profile: Profile) -> float:
    measured = len(profile.batch_sizes) * (profile.seconds + profile.warmup_seconds)
    return VISIT_START_SECONDS + measured + (profile.seconds if profile.training_steps else 0)


def _seconds_of(folder: Path) -> float | None:
    """Median duration of an arm's finished trainings."""
    found = []
    for path in sorted(folder.glob("seed-*/train/record.json")):
        try:
            seconds = Record.read(path).metrics["train_seconds"].value
        except (RecordError, KeyError):
            continue
        if seconds is not None:
            found.append(seconds)
    return median(found) if found else None
