"""What is selected, from which records, and what the curve of the budget says."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tuned_experiment import RATE, finished, peak, swept

from assay.config.trials import points, settings_at
from assay.records import RecordError
from assay.sweep.curve import curve, expected_best
from assay.sweep.read import record_path
from assay.sweep.select import select, tuned


def test_the_best_trial_on_validation_is_selected_for_each_arm(tmp_path: Path) -> None:
    found = finished(tmp_path)
    sweep = found.experiment.sweep
    assert sweep is not None and sweep.seeds == [1000, 1001]
    rates = [point[RATE] for point in points(sweep, "mlp")]
    nearest = min(rates, key=lambda rate: abs(np.log10(rate) - np.log10(0.03)))
    for arm in ("mlp", "cnn"):
        selected = found.selected(arm)
        assert selected.point == {RATE: nearest} and rates[selected.trial] == nearest
        assert tuned(found.experiment, tmp_path).arms[arm] == settings_at(
            found.experiment.arms[arm], {RATE: nearest}
        )
        told = found.trials(arm)
        assert selected.score == pytest.approx(
            np.mean([peak(arm, {RATE: nearest}, seed) for seed in (1000, 1001)])
        )
        assert told.curve[-1].best == pytest.approx(selected.score) and told.epochs == 3
    assert tuned(found.experiment, tmp_path / "elsewhere").arms == found.experiment.arms, (
        "nothing selected yet"
    )


def test_a_failed_training_makes_its_trial_the_worst(tmp_path: Path) -> None:
    """The trial that would win diverges at one of its two seeds."""
    whole = finished(tmp_path / "whole").selected("cnn")

    def diverges(arm: str, point: dict[str, Any], seed: int) -> float | None:
        return None if (arm, point, seed) == ("cnn", whole.point, 1001) else peak(arm, point, seed)

    found = finished(tmp_path / "failed", score=diverges)
    assert found.selected("cnn").trial != whole.trial
    worst = found.trials("cnn").trials[whole.trial]
    assert worst.score is None and [run.outcome for run in worst.runs] == ["completed", "diverged"]
    curve = found.trials("cnn").curve
    assert curve[0].best is None, "one trial can fail as a whole"
    assert curve[1].best is not None and curve[1].low is None, "and so can two of a resample"
    assert found.selected("mlp").trial == whole.trial


def test_an_arm_of_which_every_trial_fails_is_a_result(tmp_path: Path) -> None:
    found = finished(
        tmp_path, score=lambda arm, point, seed: None if arm == "cnn" else peak(arm, point, seed)
    )
    selected = found.selected("cnn")
    assert (selected.trial, selected.score) == (0, None)
    assert all(point.best is None for point in found.trials("cnn").curve)
    comparison, contract = found.compared()
    assert contract.valid and comparison.valid


def test_ties_go_to_the_lower_loss_and_then_to_the_earlier_trial(tmp_path: Path) -> None:
    found = finished(tmp_path, score=lambda *_: 0.5)
    assert found.selected("mlp").trial == 0
    sweep = found.experiment.sweep
    assert sweep is not None
    for seed in sweep.seeds:
        found.edit(
            record_path(found.arm_folder("mlp"), 2, seed),
            lambda content: content["metrics"]["validation_loss"].update(value=0.1),
        )
    select("e", "mlp", sweep, found.experiment.arms["mlp"], found.arm_folder("mlp"))
    assert found.selected("mlp").trial == 2


def test_the_loss_is_better_where_it_is_lower(tmp_path: Path) -> None:
    found = finished(tmp_path, swept(metric="validation_loss"))
    scores = [trial.score for trial in found.trials("mlp").trials]
    assert found.selected("mlp").score == min(score for score in scores if score is not None)
    best = [point.best for point in found.trials("mlp").curve]
    assert best == sorted(best, reverse=True), "more trials find a lower loss"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content["spec"]["training"].update(epochs=9), "has other settings than this trial"),
        (lambda content: content.update(seed=7), "has seed 7"),
        (lambda content: content.update(arm="mlp"), "has arm 'mlp'"),
        (lambda content: content.update(experiment="other"), "has experiment 'other'"),
        (lambda content: content.update(stage="evaluate"), "has stage 'evaluate'"),
    ],
)
def test_a_record_of_something_else_is_refused(change: Any, words: str, tmp_path: Path) -> None:
    found = finished(tmp_path)
    path = record_path(found.arm_folder("cnn"), 1, 1000)
    found.edit(path, change)
    sweep = found.experiment.sweep
    assert sweep is not None
    with pytest.raises(RecordError, match=words) as caught:
        select("e", "cnn", sweep, found.experiment.arms["cnn"], found.arm_folder("cnn"))
    assert str(path) in str(caught.value)


def test_a_missing_or_torn_record_is_refused(tmp_path: Path) -> None:
    found = finished(tmp_path)
    sweep = found.experiment.sweep
    assert sweep is not None
    path = record_path(found.arm_folder("cnn"), 3, 1001)
    path.write_text(path.read_text()[:40])
    arguments = ("e", "cnn", sweep, found.experiment.arms["cnn"], found.arm_folder("cnn"))
    with pytest.raises(RecordError, match="trial-3"):
        select(*arguments)
    path.unlink()
    with pytest.raises(RecordError, match="no such record"):
        select(*arguments)


# --- the curve ------------------------------------------------------------------------------------------


def test_the_expected_best_is_the_mean_over_all_subsets() -> None:
    scores = np.random.default_rng(1).normal(size=7)
    for k in range(1, 8):
        by_hand = np.mean([max(subset) for subset in combinations(scores, k)])
        assert expected_best(scores, k) == pytest.approx(by_hand)


def test_it_is_unbiased_where_the_plug_in_of_dodge_et_al_is_not() -> None:
    """Over many searches of ten trials, uniform scores: the expected best of k is k / (k + 1)."""
    searches = np.random.default_rng(2).random((20_000, 10))
    ordered = np.sort(searches, axis=1)
    for k in (2, 5, 8):
        ours = expected_best(searches, k)
        error = ours.std() / len(ours) ** 0.5
        assert abs(ours.mean() - k / (k + 1)) < 4 * error
        shares = np.arange(11) / 10
        plug_in = ordered @ (shares[1:] ** k - shares[:-1] ** k)
        assert plug_in.mean() < k / (k + 1) - 4 * error, "with replacement: too low"


def test_failures_are_worse_than_any_score() -> None:
    told = curve([0.2, None, 0.6], method="grid", maximise=True)
    assert told[0].best is None
    assert told[1].best == pytest.approx((0.2 + 0.6 + 0.6) / 3), "every pair has one that completed"
    assert told[2].best == 0.6
    assert all(point.low is None for point in told), "a grid has no interval"


def test_a_bayesian_search_is_told_as_it_went() -> None:
    told = curve([None, 0.5, 0.4, 0.7], method="bayesian", maximise=True)
    assert [point.best for point in told] == [None, 0.5, 0.5, 0.7]
    told = curve([0.5, 0.4, 0.7], method="bayesian", maximise=False)
    assert [point.best for point in told] == [0.5, 0.4, 0.4]


def test_the_interval_of_one_trial_covers(tmp_path: Path) -> None:
    """The bootstrap's interval of the mean score (k = 1), of searches of 20 trials."""
    generator = np.random.default_rng(3)
    inside = 0
    for _ in range(60):
        point = curve(generator.random(20).tolist(), method="random", maximise=True)[0]
        assert point.low is not None and point.high is not None
        inside += point.low <= 0.5 <= point.high
    assert inside >= 50, "of 60, at a level of 95%"


def test_the_same_records_select_the_same_bytes(tmp_path: Path) -> None:
    found = finished(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    sweep = found.experiment.sweep
    assert sweep is not None
    for arm, settings in found.experiment.arms.items():
        select("e", arm, sweep, settings, found.arm_folder(arm))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before
