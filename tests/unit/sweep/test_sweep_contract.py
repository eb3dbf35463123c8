"""The contract of a tuned experiment: each of its promises broken on purpose."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tuned_experiment import EXPERIMENT, RATE, Tuned, experiment, finished, swept

from assay.sweep.read import record_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    found = finished(tmp_path_factory.mktemp("tuned"))
    found.compared()
    return found


@pytest.fixture
def copy(made: Tuned, tmp_path: Path) -> Tuned:
    shutil.copytree(made.folder, tmp_path / "copy")
    return Tuned(tmp_path / "copy", made.experiment)


def test_tuned_settings_are_a_declared_difference(tmp_path: Path) -> None:
    """The arms' best rates differ, and no factor names the rate."""
    grid = swept(method="grid", trials=None, space={RATE: [0.001, 0.03, 0.5]})

    def score(arm: str, point: dict[str, float], seed: int) -> float:
        return 0.9 if (arm == "mlp") == (point[RATE] == 0.5) else 0.5

    found = finished(tmp_path, grid, score)
    comparison, contract = found.compared()
    assert comparison.valid, contract.violations
    lines = {line.name: line for line in contract.variables}
    rate = lines[f"spec.{RATE}"]
    assert (rate.status, rate.declared_by) == ("declared", "sweep")
    assert rate.evidence == {"mlp": ["0.5"], "cnn": ["0.001"]}
    assert all(
        lines[f"sweep.{name}"].status == "equal" for name in ("trials", "epochs", "seeds", "data", "batches")
    )
    assert lines["sweep.selection"].status == "declared"
    assert comparison.metrics[0].contrasts[0].verdict != "inconclusive"


def trial(number: int, seed: int = 1000, arm: str = "cnn") -> Callable[[Tuned], Path]:
    return lambda tuned: record_path(tuned.arm_folder(arm), number, seed)


@pytest.mark.parametrize(
    ("name", "path", "change", "words"),
    [
        ("sweep.data", trial(1), lambda c: c.update(data_sha256="e" * 64), "tuned on other data"),
        ("sweep.batches", trial(1), lambda c: c.update(batches_sha256="f" * 64), "saw different batches"),
        (
            "sweep.circumstances",
            trial(2),
            lambda c: c["environment"].update(packages={"torch": "3"}),
            "the set of packages differs between arms",
        ),
        (
            "sweep.circumstances",
            trial(2),
            lambda c: c["code"].update(sources_sha256="other"),
            "Assay's code differs between arms",
        ),
        (
            "sweep.epochs",
            trial(0),
            lambda c: c["spec"]["training"].update(epochs=30),
            "trials had different epochs: mlp: 3; cnn: 3 or 30",
        ),
        (
            "sweep.selection",
            trial(1),
            lambda c: c["metrics"]["validation_accuracy"].update(value=0.999),
            "selected.json: is not what the trials' records give",
        ),
        (
            "sweep.selection",
            lambda tuned: tuned.arm_folder("mlp") / "trials.json",
            lambda c: c["trials"][0].update(score=0.4),
            "trials.json: is not what its records give",
        ),
        (
            "sweep.selection",
            lambda tuned: tuned.arm_folder("mlp") / "selected.json",
            lambda c: c["settings"]["training"]["optimizer"].update(learning_rate=0.5),
            "selected.json: is not what the trials' records give",
        ),
    ],
)
def test_each_promise_is_broken(
    copy: Tuned,
    name: str,
    path: Callable[[Tuned], Path],
    change: Callable[[dict], object],  # type: ignore[type-arg]
    words: str,
) -> None:
    copy.edit(path(copy), change)
    comparison, contract = copy.compare()
    line = next(line for line in contract.variables if line.name == name)
    assert line.status == "violated" and line.message is not None and words in line.message, line
    assert not comparison.valid and "No verdict" in comparison.headline
    assert all(c.verdict == "inconclusive" for metric in comparison.metrics for c in metric.contrasts)


def test_a_missing_trial_is_an_unequal_budget(copy: Tuned) -> None:
    trial(3, 1001)(copy).unlink()
    comparison, contract = copy.compare()
    line = next(line for line in contract.variables if line.name == "sweep.trials")
    assert line.status == "violated" and not comparison.valid
    assert line.message == "the sweep's budgets are not equal: cnn has no record of trial 3 at seed 1001"
    assert line.evidence["cnn"] == ["7 trainings (4 trials, seeds: 2)"]


def test_a_lost_selection_is_noticed(copy: Tuned) -> None:
    (copy.arm_folder("mlp") / "selected.json").unlink()
    _, contract = copy.compare()
    assert not contract.valid
    assert any("selected.json: no such file" in line for line in contract.violations)


def test_budgets_that_are_declared_unequal_are_told_and_stand(tmp_path: Path) -> None:
    sweep = {
        "method": "grid",
        "space": {RATE: [0.01, 0.03]},
        "arms": {"cnn": {RATE: [0.01, 0.03, 0.1]}},
        "equal_budgets": False,
    }
    found = finished(tmp_path, experiment(sweep=sweep))
    comparison, contract = found.compared()
    line = next(line for line in contract.variables if line.name == "sweep.trials")
    assert (line.status, line.declared_by) == ("declared", "sweep.equal_budgets")
    assert comparison.valid
    assert any("budgets are not equal: trainings of mlp 2, cnn 3" in text for text in comparison.warnings)


def test_seeds_of_trials_that_are_seeds_of_the_comparison_are_noticed(copy: Tuned) -> None:
    """The file refuses them; results may have been put together by hand."""
    sweep = copy.experiment.sweep
    assert sweep is not None
    shared = sweep.model_copy(update={"seeds": [0, 1]})
    for arm in ("mlp", "cnn"):
        for number in range(4):
            for seed, other in ((1000, 0), (1001, 1)):
                folder = trial(number, seed, arm)(copy).parents[1]
                folder.rename(folder.with_name(f"seed-{other}"))
                copy.edit(
                    trial(number, other, arm)(copy), lambda content, other=other: content.update(seed=other)
                )
    made = Tuned(copy.folder, copy.experiment.model_copy(update={"sweep": shared}))
    _, contract = made.compared()
    assert "settings were tuned at seeds of the comparison: 0, 1" in contract.violations


def test_an_experiment_without_a_sweep_has_no_such_lines(tmp_path: Path) -> None:
    content = {key: value for key, value in EXPERIMENT.items() if key != "sweep"}
    from assay.config.load import from_mapping

    _, contract = Tuned(tmp_path, from_mapping(content, file="e.yaml")).compared()
    assert contract.valid and not any(line.name.startswith("sweep") for line in contract.variables)
