"""Trials that are stopped early: which, at what budget, and what notices it where records say otherwise."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot
from tuned_experiment import Tuned, peak, record, swept

from assay.config.schema import Experiment
from assay.config.trials import points, settings_at, sweep_epochs, trials_by_rung
from assay.records import RecordError
from assay.reporting import sweep as sweep_table
from assay.sweep.model import Rung
from assay.sweep.read import record_path
from assay.sweep.rungs import prune, rung_path
from assay.sweep.select import select

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
AFTER = [1, 2]


def pruned(**changes: Any) -> Experiment:
    """Six trials, three, two; of three epochs."""
    given = {"trials": 6, "prune": {"after": AFTER, "reduction_factor": 2}}
    return swept(**(given | changes))


class Searched(Tuned):
    """As the rules do it: all trials to each rung, what goes on, and the rest as it was."""

    def search(self) -> None:
        sweep = self.experiment.sweep
        assert sweep is not None and sweep.prune is not None
        for arm, settings in self.experiment.arms.items():
            folder, found = self.arm_folder(arm), points(sweep, arm)
            going = list(range(len(found)))
            for rung, after in enumerate([*sweep.prune.after, 3]):
                last = rung == len(sweep.prune.after)
                for number, point in enumerate(found):
                    for seed in sweep.seeds:
                        path = record_path(folder, number, seed, None if last else rung)
                        if number not in going:
                            path.parent.mkdir(parents=True)
                            shutil.copy(record_path(folder, number, seed, rung - 1), path)
                            continue
                        score = self.score(arm, point, seed)
                        one = record(arm, seed, settings_at(settings, point), score)
                        if score is not None and not last:
                            one.outcome, one.message = "pruned", f"stopped after {after} of 3 epochs"
                        one.details = {"epochs": after if score is not None else 1}
                        one.write(path)
                if not last:
                    prune("e", arm, sweep, settings, folder, rung)
                    going = Rung.parse(rung_path(folder, rung), "", "").goes_on
            select("e", arm, sweep, settings, folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    found = Searched(tmp_path_factory.mktemp("pruned"), pruned())
    found.search()
    found.compared()
    return found


@pytest.fixture
def copy(made: Searched, tmp_path: Path) -> Searched:
    shutil.copytree(made.folder, tmp_path / "copy")
    return Searched(tmp_path / "copy", made.experiment)


def test_bad_trials_are_stopped_and_good_ones_are_not(made: Searched) -> None:
    sweep = made.experiment.sweep
    assert sweep is not None
    assert trials_by_rung(sweep, "mlp") == [6, 3, 2]
    best_first = sorted(range(6), key=lambda number: -peak("mlp", points(sweep, "mlp")[number], 1000))
    told = made.trials("mlp")
    ends = {trial.number: trial.stopped_after for trial in told.trials}
    assert [ends[number] for number in best_first] == [None, None, 2, 1, 1, 1]
    assert [len(told.trials[number].rungs) for number in best_first] == [2, 2, 2, 1, 1, 1]
    assert told.selected == best_first[0] and told.trials[best_first[2]].score is None
    # Two seeds: six trials of one epoch, three of one more, two of the last.
    assert told.epochs_spent == sweep_epochs(sweep, "mlp", 3) == 2 * (6 + 3 + 2)
    assert [(point.trials, point.epochs) for point in told.curve] == [(6, 12), (3, 18), (2, 22)]
    assert told.confidence is None and told.curve[-1].best == told.trials[told.selected].score


def test_what_goes_on_depends_on_records_alone(made: Searched, tmp_path: Path) -> None:
    """Found again in another order, from the same records: the same bytes."""
    sweep, arm = made.experiment.sweep, made.experiment.arms["mlp"]
    assert sweep is not None
    shutil.copytree(made.arm_folder("mlp"), tmp_path / "mlp")
    before = [rung_path(tmp_path / "mlp", rung).read_bytes() for rung in (0, 1)]
    for rung in (1, 0):
        rung_path(tmp_path / "mlp", rung).unlink()
        prune("e", "mlp", sweep, arm, tmp_path / "mlp", rung)
    assert [rung_path(tmp_path / "mlp", rung).read_bytes() for rung in (0, 1)] == before


def test_failed_trials_never_go_on(tmp_path: Path) -> None:
    """Five of six diverge: one goes on, and what diverged is told as that. All diverge: a result too, of a trial that ran."""

    def most(arm: str, point: dict[str, Any], seed: int) -> float | None:
        sweep = pruned().sweep
        assert sweep is not None
        return 0.5 if arm == "mlp" and point == points(sweep, arm)[4] else None

    found = Searched(tmp_path, pruned(), most)
    found.search()
    assert Rung.parse(rung_path(found.arm_folder("mlp"), 0), "", "").goes_on == [4]
    assert found.selected("mlp").trial == 4
    assert [run.outcome for run in found.trials("mlp").trials[0].runs] == ["diverged", "diverged"]
    assert Rung.parse(rung_path(found.arm_folder("cnn"), 0), "", "").goes_on == []
    assert found.selected("cnn").trial == 0 and found.selected("cnn").score is None
    _, contract = found.compared()
    line = next(line for line in contract.variables if line.name == "sweep.compute")
    assert line.status == "equal" and line.evidence["cnn"] == ["12 of 22 epochs, 12 trainings failed"]


def test_a_stopped_trial_is_not_selected_where_all_that_went_on_failed(tmp_path: Path) -> None:
    found = Searched(tmp_path, pruned(seeds=[1000]))
    found.search()
    sweep = found.experiment.sweep
    assert sweep is not None
    whole = [trial.number for trial in found.trials("mlp").trials if trial.stopped_after is None]
    for number in whole:
        path = record_path(found.arm_folder("mlp"), number, 1000)
        found.edit(path, lambda content: content.update(outcome="diverged", message="nan"))
    select("e", "mlp", sweep, found.experiment.arms["mlp"], found.arm_folder("mlp"))
    assert found.selected("mlp").trial == whole[0]


def test_equal_budgets_are_a_line_of_the_contract(made: Searched) -> None:
    comparison, contract = made.compare()
    line = next(line for line in contract.variables if line.name == "sweep.compute")
    assert comparison.valid and line.status == "equal"
    assert line.evidence == {"mlp": ["22 of 22 epochs"], "cnn": ["22 of 22 epochs"]}


def stopped(tuned: Tuned) -> int:
    return next(trial.number for trial in tuned.trials("cnn").trials if trial.stopped_after == 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outcome": "completed"}, "seed 1000 completed after 1 epochs"),
        ({"details": {"epochs": 2}}, "went on, and its score does not let it"),
        ({"details": {"epochs": 3}}, "stopped after 3 epochs, where no trials are compared"),
        ({"outcome": "completed", "details": {"epochs": 3}}, "went on, and its score does not let it"),
    ],
)
def test_a_trial_that_spent_more_than_its_share_is_found_out(
    copy: Searched, changes: dict[str, Any], words: str
) -> None:
    path = record_path(copy.arm_folder("cnn"), stopped(copy), 1000)
    copy.edit(path, lambda content: content.update(changes))
    comparison, contract = copy.compare()
    assert not comparison.valid and any(words in text for text in contract.violations), contract.violations


def test_a_trial_that_was_stopped_against_its_score_is_found_out(copy: Searched) -> None:
    """Its score at the comparison is raised: it should have gone on."""
    for seed in (1000, 1001):
        path = record_path(copy.arm_folder("cnn"), stopped(copy), seed, 0)
        copy.edit(path, lambda content: content["metrics"]["validation_accuracy"].update(value=0.999))
    comparison, contract = copy.compare()
    assert not comparison.valid
    assert any("rung-1" in text or "its score lets it go on" in text for text in contract.violations)


def test_a_record_of_a_comparison_that_is_lost_is_noticed(copy: Searched) -> None:
    path = record_path(copy.arm_folder("cnn"), 0, 1001, 0)
    path.unlink()
    sweep = copy.experiment.sweep
    assert sweep is not None
    with pytest.raises(RecordError, match="rung-0"):
        prune("e", "cnn", sweep, copy.experiment.arms["cnn"], copy.arm_folder("cnn"), 0)
    assert not copy.compare()[0].valid


def test_the_report_shows_stopped_trials_and_what_was_spent(made: Searched, tmp_path: Path) -> None:
    results = SimpleNamespace(sweeps=[made.trials(arm) for arm in ("mlp", "cnn")], arms=["mlp", "cnn"])
    table = sweep_table.sweep(results)  # type: ignore[arg-type]
    assert [(row["stopped"], row["failed"], row["epochs_spent"]) for row in table.data] == [
        (4, 0, 22),
        (4, 0, 22),
    ]
    rows = [row for row in sweep_table.trials(results).data if row["arm"] == "mlp"]  # type: ignore[arg-type]
    assert [row["outcome"] for row in rows] == ["completed"] * 2 + ["pruned"] * 4
    assert [row["stopped_after"] for row in rows] == [None, None, 2, 1, 1, 1]
    assert [row["selected"] for row in rows] == [True] + [False] * 5
    note = sweep_table.sweep_note(results)  # type: ignore[arg-type]
    assert "6 → 3 → 2 trials" in note and "never selected" in note and "Of half" not in note
    drawn = sweep_table.budget(results)  # type: ignore[arg-type]
    assert drawn is not None
    line = drawn[0].axes[0].get_lines()[0]
    assert list(line.get_xdata()) == [12, 18, 22] and len(drawn[0].axes[0].collections) == 2
    pyplot.close(drawn[0])


def test_the_simulation_of_what_is_lost_agrees_with_what_is_known() -> None:
    """A comparison that knows nothing of the end keeps the best trial as often as any other; one that knows it all, always."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import prune_simulation as simulation
    finally:
        sys.path.remove(str(BENCHMARKS))
    sweep = simulation.sweep_of(9, (9,), 3)
    generator = np.random.default_rng(0)
    blind = simulation.simulate(sweep, [0.0], 400, generator)
    assert blind.lost == pytest.approx(1 - 3 / 9, abs=0.09), "four standard errors"
    assert simulation.simulate(sweep, [1.0], 50, generator).lost == 0
    near, far = (simulation.simulate(sweep, [one], 200, generator) for one in (0.95, 0.5))
    assert near.lost < far.lost < blind.lost and near.short < near.fewer
