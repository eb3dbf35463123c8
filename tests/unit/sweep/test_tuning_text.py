"""Methods of a tuned experiment: that it was tuned, at what cost, and the settings that were trained, not those of the file."""

from pathlib import Path

import pytest
from tuned_experiment import RATE, Tuned, finished, swept

from assay.reporting import methods
from assay.reporting.read import load
from assay.reporting.statements import Number, Quote, stands, text_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """Not to be changed."""
    found = finished(tmp_path_factory.mktemp("tuned"))
    found.compared()
    return found


def test_tuning_is_told_and_every_number_stands_in_the_records(made: Tuned) -> None:
    parts = methods.methods(load(made.folder))
    text = text_of(parts)
    assert f"differ in model and what was tuned for each ({RATE}) and in no other setting. " in text
    assert (
        f"{RATE} had been tuned by random search (trials: 4 for mlp and 4 for cnn), every trial at 2 seeds"
        in text
    )
    assert "the highest mean validation accuracy was selected" in text and "No trial" not in text
    for part in parts:
        assert isinstance(part, str) or stands(made.folder, part), part


def test_the_rate_that_is_told_is_the_selected_one(made: Tuned) -> None:
    rate = made.selected("cnn").point[RATE]
    assert rate != made.experiment.arms["cnn"].training.optimizer.learning_rate
    shown = [one for one in methods.methods(load(made.folder)) if isinstance(one, Number)]
    (found,) = {one for one in shown if one.field == f"settings.{RATE}"}
    assert float(found.text) == rate and found.file.endswith("/selected.json")
    assert not stands(made.folder, Number(f"{2 * rate:g}", found.file, found.field))
    assert not stands(made.folder, Quote("training.batch_size", "experiment.yaml", "sweep.space"))


def test_an_arm_of_which_every_trial_failed_is_told(tmp_path: Path) -> None:
    found = finished(tmp_path, score=lambda arm, point, seed: None if arm == "cnn" else 0.5)
    found.compared()
    text = text_of(methods.methods(load(found.folder)))
    assert "No trial of cnn completed: the first one's settings were taken." in text


def test_budgets_that_differ_are_told(tmp_path: Path) -> None:
    arms = {"mlp": {RATE: [0.01]}, "cnn": {RATE: [0.01, 0.1]}}
    budgets = {"space": {}, "arms": arms, "method": "grid", "trials": None, "equal_budgets": False}
    found = finished(tmp_path, swept(**budgets))
    found.compared()
    parts = methods.methods(load(found.folder))
    assert "by grid search (trials: 1 for mlp and 2 for cnn)" in text_of(parts)
    assert all(stands(found.folder, part) for part in parts if not isinstance(part, str))


def test_where_the_contract_was_broken_nothing_is_said_to_be_equal(tmp_path: Path) -> None:
    found = finished(tmp_path)
    found.compared()
    found.edit(
        found.folder / "runs/cnn/seed-0/train/record.json",
        lambda tree: tree["spec"]["training"].update(epochs=9),
    )
    assert not found.compare()[0].valid
    assert "no other setting" not in text_of(methods.methods(load(found.folder)))
