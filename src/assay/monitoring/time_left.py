"""How long an experiment takes yet, by what was measured in it; None where nothing was."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median

from assay.monitoring.state import Block, Run

_UNFINISHED = ("waiting", "running", "stalled", "interrupted", "killed")


def with_time_left(runs: Sequence[Run]) -> list[Run]:
    """Runs that wait get the time that runs of their arm took; where none has finished, that which they take."""
    took: dict[str, list[float]] = {}
    takes: dict[str, list[float]] = {}
    for run in runs:
        if run.seconds is not None:
            took.setdefault(run.arm, []).append(run.seconds)
        elif run.seconds_left is not None and run.steps and run.step and run.step < run.steps:
            takes.setdefault(run.arm, []).append(run.seconds_left / (1 - run.step / run.steps))
    found = []
    for run in runs:
        times = took.get(run.arm) or takes.get(run.arm)
        if run.stage == "train" and run.state in ("waiting", "interrupted", "killed") and times:
            left = 1 - run.step / run.steps if run.step and run.steps else 1.0
            run = replace(run, seconds_left=median(times) * left)
        found.append(run)
    return found


def training_left(runs: Iterable[Run]) -> float | None:
    """Seconds until all trainings are over, with as many at a time as now."""
    unfinished = [run for run in runs if run.stage == "train" and run.state in _UNFINISHED]
    if not unfinished:
        return 0.0
    going = [run.seconds_left for run in unfinished if run.state == "running"]
    known = [run.seconds_left for run in unfinished if run.seconds_left is not None]
    if not going or len(known) < len(unfinished):
        return None
    return max(sum(known) / len(going), *(seconds for seconds in going if seconds is not None))


def profile_left(blocks: Iterable[Block]) -> float | None:
    """Seconds until all blocks are over, one after another."""
    every = list(blocks)
    done = [block.seconds for block in every if block.seconds is not None]
    left = 0.0
    for block in every:
        if block.arms:
            continue
        if block.state == "running" and block.seconds_left is not None:
            left += block.seconds_left
        elif done:
            left += median(done)
        else:
            return None
    return left
