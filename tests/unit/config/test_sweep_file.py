"""`sweep:` of the experiment file: its mistakes, its trials, and what it costs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from assay.config.arm import Arm, spec_of
from assay.config.check import check
from assay.config.chosen import given_settings
from assay.config.estimate import estimate
from assay.config.load import ConfigError, from_mapping, load
from assay.config.schema import Experiment
from assay.config.sweep import Range
from assay.config.trials import (
    as_swept,
    changes_cost,
    costly,
    points,
    settings_at,
    swept_arms,
    swept_paths,
    trial_count,
    value_at,
)
from assay.records import RecordError, canonical_json

RATE = "training.optimizer.learning_rate"
BASE: dict[str, Any] = {
    "name": "e",
    "factors": ["model"],
    "arms": {"mlp": {"model": {"source": "builtin:mlp"}}, "cnn": {"model": {"source": "builtin:cnn"}}},
    "data": {"source": "digits"},
    "seeds": 6,
}


def read(**sweep: Any) -> Experiment:
    return from_mapping(BASE | {"sweep": sweep}, file="e.yaml")


def mistakes(**sweep: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(**sweep)
    return str(caught.value)


GRID = {RATE: [0.01, 0.1]}


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({}, "sweep.space: nothing to tune; write settings with values"),
        ({"space": {RATE: []}, "method": "grid"}, f"sweep.space.{RATE}: has no values"),
        (
            {"space": {"training.learning_rate": [0.1]}, "method": "grid"},
            "names no setting of an arm; did you mean `training.optimizer.learning_rate`?",
        ),
        ({"space": {"training.epochs": [1, 2]}, "method": "grid"}, "epochs are the budget of a trial"),
        ({"space": {"model.source": ["builtin:mlp"]}, "method": "grid"}, "another network is another arm"),
        ({"space": {"execution.threads": [1, 2]}, "method": "grid"}, "known before it runs"),
        ({"space": {RATE: [0.1, 0.1]}, "method": "grid"}, "0.1 stands twice"),
        (
            {"space": {RATE: [0.1, -1]}, "method": "grid"},
            f"sweep.space.{RATE}: learning_rate: -1 should be greater than 0 (a trial of mlp with learning_rate -1)",
        ),
        (
            {"space": {"training.optimizer.momentum": [0.9, 0.0]}, "method": "grid"},
            "nesterov needs momentum",
        ),
        (
            {"space": {"training.optimizer.name": ["adamw"], "training.optimizer.momentum": [0.5]}, "method": "grid"},
            "sweep.space.training.optimizer.momentum: momentum: unknown key",
        ),
        ({"space": {RATE: {"uniform": [0.1, 1]}}, "method": "grid"}, "a grid takes lists of values"),
        ({"space": {RATE: {"uniform": [1, 0.1]}}, "trials": 3}, "1 is not below 0.1; write the lower end first"),
        ({"space": {RATE: {"log_uniform": [0, 0.1]}}, "trials": 3}, "0 has no logarithm"),
        ({"space": {RATE: {}}, "trials": 3}, "has no kind of range"),
        (
            {"space": {RATE: {"uniform": [0, 1], "log_uniform": [0.1, 1]}}, "trials": 3},
            "has uniform and log_uniform; write one",
        ),
        ({"space": {RATE: {"uniform": [-1, 1]}}, "trials": 3}, "-1.0 should be greater than 0"),
        ({"space": {RATE: {"between": [0, 1]}}, "trials": 3}, "between"),
        ({"space": GRID}, "sweep.trials: missing; a random search needs a number, e.g. `trials: 12`"),
        ({"space": GRID, "method": "bayesian"}, "a bayesian search needs a number"),
        ({"space": GRID, "trials": 3}, "3 trials of mlp, whose settings have 2 combinations; write at most 2"),
        ({"space": GRID, "method": "grid", "trials": 2}, "a grid runs all its combinations"),
        ({"space": GRID, "method": "grid", "seeds": [5]}, "sweep.seeds: 5: seeds of the comparison; write others"),
        ({"space": GRID, "method": "grid", "seeds": [8, 8]}, "8 stands twice"),
        ({"space": GRID, "method": "grid", "arms": {"cn": {}}}, "sweep.arms.cn: 'cn' is not an arm; did you mean `cnn`?"),
        (
            {"space": GRID, "method": "grid", "arms": {"cnn": {RATE: [0.1, 0.2, 0.3]}}},
            "sweep: unequal budgets: trials of mlp 2, cnn 3",
        ),
        (
            {"space": GRID, "method": "grid", "arms": {"cnn": {RATE: None}}},
            "unequal budgets: trials of mlp 2, cnn 0",
        ),
        (
            {"method": "random", "trials": 2, "arms": {"cnn": {RATE: [0.1, 0.2]}, "mlp": {"training.batch_size": [8, 16]}}},
            f"sweep.arms.cnn.{RATE}: is tuned for cnn and not for mlp, and no factor declares it; "
            f"tune it for all arms, or declare it: `factors: [model, {RATE}]`",
        ),
        ({"space": {"execution.precision": ["fp8"]}, "method": "grid"}, "precision: 'fp8'"),
        ({"space": GRID, "method": "gird"}, "sweep.method: 'gird'"),
        ({"space": GRID, "method": "grid", "metric": "accuracy"}, "sweep.metric: 'accuracy'"),
        ({"space": GRID, "method": "bayesian", "trials": 2, "prune": {"after": [1]}}, "sweep.prune: a Bayesian search learns"),
        ({"space": GRID, "method": "grid", "prune": {"after": [3, 1]}}, "3, 1: does not rise; write `after: [1, 3]`"),
        ({"space": GRID, "method": "grid", "prune": {"after": [999]}}, "nothing is left to save; write fewer"),
        ({"space": GRID, "method": "grid", "prune": {"after": [0]}}, "sweep.prune.after"),
        ({"space": GRID, "method": "grid", "prune": {"after": []}}, "sweep.prune.after"),
        ({"space": GRID, "method": "grid", "prune": {"after": [1], "reduction_factor": 1}}, "sweep.prune.reduction_factor"),
        ({"space": GRID, "method": "grid", "prune": {"at": [1]}}, "sweep.prune.at: unknown key"),
        ({"space": GRID, "method": "grid", "trails": 3}, "sweep.trails: unknown key; did you mean `trials`?"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_the_words_of_the_file(sweep: dict[str, Any], words: str) -> None:
    assert words in mistakes(**sweep)


def test_each_mistake_is_told_once() -> None:
    told = mistakes(space={RATE: [-1, 0.1], "training.batch_size": [1, 2, 3, 0]}, method="grid").splitlines()
    assert len(told) == 2


def test_a_line_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(BASE) + "sweep:\n  method: grid\n  space:\n    training.epochs: [1, 2]\n")
    lines = path.read_text().splitlines()
    with pytest.raises(ConfigError, match=rf"e.yaml:{len(lines)}: sweep.space.training.epochs"):
        load(path)


def test_what_a_factor_declares_may_be_tuned_for_one_arm() -> None:
    arms = {"cnn": {RATE: None, "model.options.width": [4, 8]}}
    content = {"factors": ["model", RATE], "sweep": {"method": "grid", "space": GRID, "arms": arms}}
    found = from_mapping(BASE | content, file="e.yaml")
    sweep = found.sweep
    assert sweep is not None and swept_arms(found) == ["mlp", "cnn"]
    assert points(sweep, "mlp") == [{RATE: 0.01}, {RATE: 0.1}]
    assert points(sweep, "cnn") == [{"model.options.width": 4}, {"model.options.width": 8}]
    assert swept_paths(found) == ["model.options.width", RATE]


def test_without_a_sweep_nothing_is_tuned() -> None:
    found = from_mapping(BASE, file="e.yaml")
    assert found.sweep is None and swept_arms(found) == [] and swept_paths(found) == []
    assert from_mapping(BASE | {"sweep": None}, file="e.yaml") == found


def test_a_grid_is_every_combination_in_an_order_that_the_file_does_not_decide() -> None:
    one = read(method="grid", space={RATE: [0.1, 0.01], "training.batch_size": [32, 64]}).sweep
    other = read(method="grid", space={"training.batch_size": [32, 64], RATE: [0.1, 0.01]}).sweep
    assert one is not None and other is not None
    assert points(one, "mlp") == points(other, "mlp")
    assert [tuple(point.values()) for point in points(one, "mlp")] == [
        (32, 0.1),
        (32, 0.01),
        (64, 0.1),
        (64, 0.01),
    ]
    assert trial_count(one, "mlp") == 4


def test_random_trials_are_paired_and_more_of_them_leave_the_first_as_they_are() -> None:
    space = {RATE: {"log_uniform": [1e-4, 1]}, "training.batch_size": {"log_integer": [8, 256]}}
    few, many = (read(trials=count, space=space).sweep for count in (5, 50))
    assert few is not None and many is not None
    assert points(few, "mlp") == points(few, "cnn") == points(many, "mlp")[:5]
    found = points(many, "cnn")
    assert len({canonical_json(point) for point in found}) == 50
    assert all(1e-4 <= point[RATE] <= 1 and 8 <= point["training.batch_size"] <= 256 for point in found)
    below = sum(point[RATE] < 1e-2 for point in found)
    assert 15 < below < 35, "half of a log scale"
    reseeded = read(trials=5, space=space, seed=1).sweep
    assert reseeded is not None and points(reseeded, "mlp") != points(few, "mlp")


def test_random_trials_of_a_finite_space_differ() -> None:
    sweep = read(trials=6, space={RATE: [0.1, 0.2, 0.3], "training.batch_size": [32, 64]}).sweep
    assert sweep is not None
    assert len({canonical_json(point) for point in points(sweep, "mlp")}) == 6


@pytest.mark.parametrize("share", [0.0, 0.3, 1 - 2**-48])
def test_a_value_lies_in_its_domain(share: float) -> None:
    assert 2 <= value_at(Range(integer=(2, 4)), share) <= 4
    assert 1 <= value_at(Range(log_integer=(1, 1000)), share) <= 1000
    assert 0.1 <= value_at(Range(uniform=(0.1, 0.3)), share) <= 0.3
    assert value_at(["a", "b"], share) in "ab"


def test_whole_numbers_reach_both_ends() -> None:
    found = {value_at(Range(integer=(2, 4)), share / 100) for share in range(100)}
    assert found == {2, 3, 4}


def test_a_point_changes_the_kind_of_a_section_as_an_arm_does() -> None:
    arm = Arm.model_validate(
        {"model": {"source": "builtin:mlp"}, "training": {"optimizer": {"name": "sgd", "momentum": 0.5}}}
    )
    changed = settings_at(arm, {RATE: 0.2, "training.optimizer.name": "adamw"})
    assert spec_of(changed)["training"]["optimizer"] == {
        "name": "adamw", "learning_rate": 0.2, "betas": [0.9, 0.999], "epsilon": 1e-8,
        "weight_decay": 0.01, "decay_norms_and_biases": False,
    }  # fmt: skip
    whole = settings_at(arm, {"training.optimizer": {"name": "sgd", "learning_rate": 0.3}, RATE: 0.2})
    assert spec_of(whole)["training"]["optimizer"]["learning_rate"] == 0.2, "the narrower one counts"
    assert spec_of(whole)["training"]["optimizer"]["momentum"] == 0.5
    assert settings_at(arm, {"model.options.width": 7}).model.options == {"width": 7}


def test_what_the_file_gives_for_a_tuned_setting_is_of_no_account() -> None:
    one, other = (
        Arm.model_validate(
            {
                "model": {"source": "builtin:mlp"},
                "training": {"optimizer": {"name": "sgd", "learning_rate": rate}},
            }
        )
        for rate in (0.1, 0.2)
    )
    space = {RATE: [0.3, 0.4], "training.batch_size": Range(integer=(8, 16))}
    assert as_swept(one, space) == as_swept(other, space)
    for point in ({RATE: 0.4, "training.batch_size": 9}, {RATE: 0.3, "training.batch_size": 16}):
        assert settings_at(as_swept(one, space), point) == settings_at(one, point)
    kinds = {"training.optimizer.name": ["adamw", "sgd"]}
    assert as_swept(other, kinds) == other, "its rate counts for sgd"


def test_seeds_may_be_a_number() -> None:
    sweep = read(method="grid", space=GRID, seeds=3).sweep
    assert sweep is not None and sweep.seeds == [1000, 1001, 1002]


def test_what_changes_no_cost() -> None:
    assert not changes_cost([RATE, "training.schedule.warmup_epochs", "training.label_smoothing"])
    assert changes_cost([RATE, "training.batch_size"])
    assert changes_cost(["training.optimizer"]), "its kind is among what it may change"
    kept = costly(spec_of(Arm.model_validate({"model": {"source": "builtin:mlp"}})))
    assert "epochs" not in kept["training"] and "learning_rate" not in kept["training"]["optimizer"]
    assert "momentum" in kept["training"]["optimizer"] and costly(kept) == kept


def test_the_check_says_what_it_costs(tmp_path: Path) -> None:
    content = BASE | {"sweep": {"trials": 5, "seeds": 2, "space": {RATE: {"uniform": [0.1, 0.2]}}}}
    path = tmp_path / "e.yaml"
    path.write_text(yaml.safe_dump(content))
    told = check(path, results=tmp_path / "results")
    assert "sweep     random: 5 trials an arm at 2 seeds, 20 trainings (400 epochs in all)" in told
    assert f"tunes {RATE} by validation_accuracy" in told
    assert "sgd at 0.1" not in told, "it is tuned"
    jobs = estimate(load(path), tmp_path).jobs
    assert (jobs["train_trial"], jobs["select_settings"], jobs["train"]) == (20, 2, 12)
    content["sweep"] |= {"method": "bayesian", "per_round": 2}
    assert estimate(from_mapping(content, file="e"), tmp_path).jobs["propose_trials"] == 6


def test_settings_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "selected.json"
    with pytest.raises(RecordError, match="no such file"):
        given_settings(f"@{path}")
    for text in ("", "[]", '{"settings": 3}', '{"trials": []}'):
        path.write_text(text)
        with pytest.raises(RecordError, match=r"selected\.json"):
            given_settings(f"@{path}")
    path.write_text('{"settings": {"a": 1}, "trials": [{"number": 4, "settings": {"b": 2}}]}')
    assert given_settings(f"@{path}") == {"a": 1} and given_settings(f"@{path}#4") == {"b": 2}
    with pytest.raises(RecordError, match="has no settings"):
        given_settings(f"@{path}#5")
    assert given_settings('{"c": 3}') == {"c": 3}
