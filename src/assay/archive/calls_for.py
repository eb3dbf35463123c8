"""Which files an experiment calls for: what has to be in its results, and what has no place in them."""

from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath

from assay.config.repeated import repeated, second_self
from assay.config.schema import Experiment
from assay.config.sweep import FOLDER, SELECTED, TRIALS
from assay.config.trials import swept_arms, trial_count

COMPARISON = ("comparison/comparison.json", "comparison/contract.json", "comparison/metrics.csv")


def called_for(experiment: Experiment) -> list[str]:
    """Files of a finished experiment, relative to its folder of results; tables and figures are the report's to tell."""
    return [
        *("experiment.yaml", "data/manifest.json", "report/index.html", *COMPARISON),
        *(file for arm in experiment.arms for seed in experiment.seeds for file in _run("runs", arm, seed)),
        *_blocks("profile", experiment),
        *_traces(experiment),
        *(_noise(experiment) if experiment.noise.enabled else ()),
        *_sweep(experiment),
    ]


def _run(folder: str, arm: str, seed: int) -> Iterator[str]:
    for file in (
        "train/record.json",
        "train/log.jsonl",
        "evaluate/record.json",
        "evaluate/predictions.parquet",
    ):
        yield f"{folder}/{arm}/seed-{seed}/{file}"


def _blocks(folder: str, experiment: Experiment) -> Iterator[str]:
    for block in range(experiment.profile.blocks if experiment.profile.enabled else 0):
        yield from (f"{folder}/block-{block}/{arm}/record.json" for arm in experiment.arms)


def _traces(experiment: Experiment) -> Iterator[str]:
    if experiment.profile.enabled and experiment.profile.traces:
        yield from (f"trace/{arm}/record.json" for arm in experiment.arms)


def _noise(experiment: Experiment) -> Iterator[str]:
    twice, (_, again) = repeated(experiment), second_self(experiment)
    yield "noise/floor.json"
    for seed in twice.seeds:
        yield from _run("noise/runs", again, seed)
    yield from _blocks("noise/profile", twice)


def _sweep(experiment: Experiment) -> Iterator[str]:
    sweep = experiment.sweep
    if sweep is None:
        return
    for arm in swept_arms(experiment):
        yield from (f"{FOLDER}/{arm}/{file}" for file in (SELECTED, TRIALS))
        for trial in range(trial_count(sweep, arm)):
            stages = [
                "train",
                *(f"rung-{rung}" for rung in range(len(sweep.prune.after) if sweep.prune else 0)),
            ]
            for stage in stages:
                folder = f"{FOLDER}/{arm}/trial-{trial}"
                yield from (f"{folder}/seed-{seed}/{stage}/record.json" for seed in sweep.seeds)


class Belonging:
    """Which files of the results are of an arm, a seed and a block that the experiment has.

    What an earlier form of the experiment left (a seed, an arm that is no more) is not.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._noise = experiment.noise.enabled
        parents = [PurePosixPath(file).parent for file in called_for(experiment)]
        self._folders = {str(folder) for parent in parents for folder in (parent, *parent.parents)}

    def __contains__(self, file: PurePath) -> bool:
        """file: relative to the folder of results."""
        parts = file.parts[1:] if file.parts[0] == "noise" else file.parts
        if file.parts[0] == "noise" and not self._noise:
            return False
        if parts[0] not in ("runs", "profile", "trace"):
            return True
        # A file beside the stages of a run, or beside the arms of a block, lies in a folder on the way to what is called for.
        return file.parent.as_posix() in self._folders


def missing(experiment: Experiment, results: Path) -> list[str]:
    """What a finished experiment has and this folder has not."""
    return [file for file in called_for(experiment) if not (results / file).is_file()]
