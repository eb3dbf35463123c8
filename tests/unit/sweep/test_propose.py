"""Bayesian search: the same proposals from the same records, whatever happened in between."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuned_experiment import RATE, finished, swept

from assay.config.schema import Experiment
from assay.records import RecordError
from assay.sweep.model import Trial
from assay.sweep.propose import ask, propose, startup_trials
from assay.sweep.read import record_path, round_path

SPACE = {
    RATE: {"log_uniform": [1e-4, 1]},
    "training.optimizer": [{"name": "sgd"}, {"name": "adamw", "weight_decay": 0.1}],
    "training.schedule.step_epochs": {"integer": [1, 9]},
}
Point = dict[str, Any]


def bayesian(**changes: Any) -> Experiment:
    return swept(
        **({"method": "bayesian", "trials": 6, "per_round": 2, "seeds": [1000], "space": SPACE} | changes)
    )


def searched(score: Callable[[Point], float | None], **changes: Any) -> list[Point]:
    """The points of a search, in the order of trials, without files."""
    sweep = bayesian(**changes).sweep
    assert sweep is not None and sweep.trials is not None
    trials: list[Trial] = []
    for number in range(sweep.trials // sweep.per_round):
        for point in ask(sweep, sweep.space_of("mlp"), trials, sweep.per_round, number):
            trials.append(Trial(number=len(trials), point=point, runs=[], score=score(point), loss=0))
    return [trial.point for trial in trials]


def near(rate: float) -> Callable[[Point], float]:
    return lambda point: -abs(math.log10(point[RATE] / rate))


def test_a_search_that_is_cut_off_goes_on_with_the_same_proposals(tmp_path: Path) -> None:
    found = finished(tmp_path, bayesian())
    sweep, folder = found.experiment.sweep, found.arm_folder("mlp")
    assert sweep is not None and len(found.trials("mlp").trials) == 6
    first = [path.read_bytes() for path in (round_path(folder, 1), round_path(folder, 2))]
    for number in (1, 2):
        round_path(folder, number).unlink()
    for trial in (4, 5):
        shutil.rmtree(folder / f"trial-{trial}")
    for number in (1, 2):
        propose("e", "mlp", sweep, found.experiment.arms["mlp"], folder, number)
    assert [path.read_bytes() for path in (round_path(folder, 1), round_path(folder, 2))] == first
    record_path(folder, 2, 1000).unlink()
    with pytest.raises(RecordError, match="trial-2"):
        propose("e", "mlp", sweep, found.experiment.arms["mlp"], folder, 2)


def test_the_first_round_is_paired(tmp_path: Path) -> None:
    found = finished(tmp_path, bayesian(trials=3))
    points = [[trial.point for trial in found.trials(arm).trials] for arm in ("mlp", "cnn")]
    assert points[0][:2] == points[1][:2], "nothing tells the arms apart yet"
    assert len(points[0]) == 3 and not round_path(found.arm_folder("cnn"), 2).exists(), (
        "the last round is short"
    )


def test_it_learns_from_scores() -> None:
    points = searched(near(0.03), trials=32, per_round=4)
    misses = [-near(0.03)(point) for point in points]
    assert sum(misses[16:]) / 16 < sum(misses[:8]) / 8


def test_other_scores_and_another_seed_give_other_proposals() -> None:
    first, other = (searched(near(rate), trials=12, per_round=4) for rate in (0.03, 0.0003))
    assert first == searched(near(0.03), trials=12, per_round=4)
    assert other[:4] == first[:4] and other[4:] != first[4:]
    assert searched(near(0.03), trials=4, per_round=4, seed=1) != first[:4]


def test_failed_trials_count_as_the_worst() -> None:
    """All rates above 0.01 diverge: later proposals keep away from there."""
    points = searched(
        lambda point: None if point[RATE] > 0.01 else near(0.001)(point), trials=32, per_round=4
    )
    early, late = ([point[RATE] > 0.01 for point in some] for some in (points[:10], points[20:]))
    assert sum(late) / len(late) < sum(early) / len(early)


@pytest.mark.parametrize(("trials", "startup"), [(1, 1), (3, 1), (12, 4), (100, 10)])
def test_a_third_is_drawn_at_random_first(trials: int, startup: int) -> None:
    assert startup_trials(trials) == startup
