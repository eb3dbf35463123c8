"""What an experiment will take: jobs by rule, and time where finished runs tell it."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from assay.config.repeated import repeated, second_self
from assay.config.schema import Experiment, Profile
from assay.config.sweep import FOLDER
from assay.config.trials import sweep_epochs, swept_arms, trial_count
from assay.records import Record, RecordError

VISIT_START_SECONDS = 4.0
"""Start of a fresh process with PyTorch on a busy machine; what a visit costs beside its measurements."""
VISITS = 2
"""Visits of an arm in a block: there and back, so that a drift over time weighs on all arms alike."""
ENOUGH_RECORDS = 12


@dataclass(frozen=True)
class Estimate:
    """jobs: by rule, in the order of the workflow. Seconds are null where nothing tells them."""

    jobs: dict[str, int]
    trainings: int
    epochs: int
    training_seconds: float | None
    profile_seconds: float


def estimate(experiment: Experiment, results: Path) -> Estimate:
    """`training_seconds` is the work of all trainings, one after another, from runs that finished before.

    results: the folder that holds the experiments' folders. Reads at most 12 records an arm.
    """
    seeds = len(experiment.seeds)
    trainings = len(experiment.arms) * seeds
    blocks = experiment.profile.blocks if experiment.profile.enabled else 0
    jobs = {"resolve_experiment": 1, "check_health": 1, "prepare_data": 1}
    jobs |= _sweep_jobs(experiment)
    jobs |= {"train": trainings, "evaluate": trainings}
    jobs |= {"profile": blocks} if blocks else {}
    jobs |= {"trace": len(experiment.arms)} if blocks and experiment.profile.traces else {}
    jobs |= _noise_jobs(experiment) if experiment.noise.enabled else {}
    jobs |= {"compare": 1, "report": 1, "archive": 1}
    runs = results / experiment.name / "runs"
    paces = [(arm.training.epochs, _seconds_an_epoch(runs / name)) for name, arm in experiment.arms.items()]
    known = [epochs * pace for epochs, pace in paces if pace is not None]
    return Estimate(
        jobs=jobs,
        trainings=trainings,
        epochs=sum(epochs for epochs, _ in paces) * seeds,
        training_seconds=sum(known) * seeds if len(known) == len(paces) else None,
        profile_seconds=blocks * VISITS * len(experiment.arms) * _visit_seconds(experiment.profile),
    )


@dataclass(frozen=True)
class NoiseEstimate:
    """What the second self of an arm takes beside the experiment. training_seconds: null where nothing tells them."""

    arm: str
    trainings: int
    epochs: int
    training_seconds: float | None
    blocks: int
    profile_seconds: float


def estimate_noise(experiment: Experiment, results: Path) -> NoiseEstimate:
    """results: the folder that holds the experiments' folders."""
    twice, (arm, _) = repeated(experiment), second_self(experiment)
    blocks = twice.profile.blocks if twice.profile.enabled else 0
    epochs = twice.arms[arm].training.epochs * len(twice.seeds)
    pace = _seconds_an_epoch(results / experiment.name / "runs" / arm)
    return NoiseEstimate(
        arm=arm,
        trainings=len(twice.seeds),
        epochs=epochs,
        training_seconds=None if pace is None else pace * epochs,
        blocks=blocks,
        profile_seconds=blocks * VISITS * len(twice.arms) * _visit_seconds(twice.profile),
    )


def _noise_jobs(experiment: Experiment) -> dict[str, int]:
    twice = repeated(experiment)
    seeds, blocks = len(twice.seeds), twice.profile.blocks if twice.profile.enabled else 0
    jobs = {"train_again": seeds, "evaluate_again": seeds, "profile_again": blocks, "find_noise_floor": 1}
    return {rule: count for rule, count in jobs.items() if count}


@dataclass(frozen=True)
class SweepEstimate:
    """What tuning takes before the comparison. trials: by arm. training_seconds: null where nothing tells them."""

    trials: dict[str, int]
    trainings: int
    epochs: int
    training_seconds: float | None


def estimate_sweep(experiment: Experiment, results: Path) -> SweepEstimate:
    """results: the folder that holds the experiments' folders."""
    sweep = experiment.sweep
    assert sweep is not None
    trials = {arm: trial_count(sweep, arm) for arm in swept_arms(experiment)}
    epochs = {arm: sweep_epochs(sweep, arm, experiment.arms[arm].training.epochs) for arm in trials}
    folder = results / experiment.name
    paces = {
        arm: _seconds_an_epoch(folder / FOLDER / arm, "trial-*/seed-*")
        or _seconds_an_epoch(folder / "runs" / arm)
        for arm in trials
    }
    known = [pace * epochs[arm] for arm, pace in paces.items() if pace is not None]
    return SweepEstimate(
        trials=trials,
        trainings=sum(trials.values()) * len(sweep.seeds),
        epochs=sum(epochs.values()),
        training_seconds=sum(known) if len(known) == len(trials) else None,
    )


def _sweep_jobs(experiment: Experiment) -> dict[str, int]:
    sweep, arms = experiment.sweep, swept_arms(experiment)
    if sweep is None or not arms:
        return {}
    trials = [trial_count(sweep, arm) for arm in arms]
    rounds = sum(-(-count // sweep.per_round) for count in trials) if sweep.method == "bayesian" else 0
    jobs = {"propose_trials": rounds} if rounds else {}
    if sweep.prune is not None:
        rungs = len(sweep.prune.after)
        jobs["train_trial_to_rung"] = sum(trials) * len(sweep.seeds) * rungs
        jobs["prune_trials"] = len(arms) * rungs
    return jobs | {"train_trial": sum(trials) * len(sweep.seeds), "select_settings": len(arms)}


def _visit_seconds(profile: Profile) -> float:
    measured = len(profile.batch_sizes) * (profile.seconds + profile.warmup_seconds)
    training = 2 * profile.seconds if profile.training_steps else 0
    largest = 2 * profile.seconds if profile.largest_batch.enabled else 0
    return VISIT_START_SECONDS + measured + training + largest


def _seconds_an_epoch(folder: Path, runs: str = "seed-*") -> float | None:
    """Median over an arm's finished trainings; what failed or was taken up again tells nothing."""
    found = []
    for path in islice(folder.glob(f"{runs}/train/record.json"), ENOUGH_RECORDS):
        try:
            record = Record.read(path)
            seconds, epochs = record.metrics["train_seconds"].value, record.details["epochs"]
        except (RecordError, KeyError, OSError):
            continue
        if record.outcome == "completed" and seconds is not None and isinstance(epochs, int) and epochs > 0:
            found.append(seconds / epochs)
    return median(found) if found else None
