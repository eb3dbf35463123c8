"""Arms compared at parse time."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from assay.config.estimate import estimate
from assay.config.load import from_mapping
from assay.config.resolve import differences, spec_sha256, warnings
from assay.config.schema import Experiment

GOOD: dict[str, Any] = {
    "name": "tiny",
    "factors": ["model", "training.optimizer.learning_rate"],
    "arms": {
        "a": {"model": {"source": "builtin:mlp"}},
        "b": {"model": {"source": "builtin:cnn"}, "training": {"optimizer": {"learning_rate": 0.5}}},
        "c": {"model": {"source": "builtin:mlp"}},
    },
    "data": {"source": "digits"},
    "seeds": 6,
    "training": {"optimizer": {"name": "sgd"}},
}


def experiment(**changes: Any) -> Experiment:
    return from_mapping(deepcopy(GOOD) | changes, file="tiny.yaml")


def test_differences_name_setting_and_both_values() -> None:
    found = {(d.arm, d.path): (d.before, d.after) for d in differences(experiment())}
    assert found == {
        ("b", "model.source"): ("builtin:mlp", "builtin:cnn"),
        ("b", "training.optimizer.learning_rate"): (0.1, 0.5),
    }


def test_hash_of_an_arm_follows_its_settings_alone() -> None:
    arms = experiment().arms
    assert spec_sha256(arms["a"]) == spec_sha256(arms["c"]) != spec_sha256(arms["b"])


def test_a_factor_in_which_nothing_differs_is_a_warning() -> None:
    assert warnings(experiment(seeds=7)) == []
    (warning,) = warnings(experiment(seeds=7, factors=[*GOOD["factors"], "training.batch_size"]))
    assert "training.batch_size" in warning


def test_too_few_seeds_are_a_warning_with_the_least_p() -> None:
    (warning,) = warnings(experiment(seeds=5))
    assert "0.0625" in warning and "6" in warning


def test_estimate_counts_what_the_workflow_runs(tmp_path: Path) -> None:
    plan = estimate(experiment(profile={"blocks": 4}), tmp_path)
    assert plan.jobs["train"] == plan.jobs["evaluate"] == 18
    assert plan.jobs["profile"] == 4
    assert plan.training_seconds is None, "nothing has finished, so nothing tells"
    assert "profile" not in estimate(experiment(profile={"enabled": False}), tmp_path).jobs


def test_several_comparisons_need_more_seeds_and_it_is_said() -> None:
    """The least p of six seeds is 2/64 = 0.031: enough for one comparison at 0.05, and not for the first of three by Holm."""
    arms = {name: {"model": {"source": "builtin:mlp", "options": {"hidden": [size]}}} for name, size in SIZES}
    several = {"arms": arms, "factors": ["model"], "baseline": "a"}
    every = several | {"comparison": {"contrasts": "all"}}
    (warning,) = warnings(experiment(**every, seeds=6))
    assert "with 6 no two-sided sign-flip test can reach p < 0.0167 (least p: 0.0312)" in warning
    assert "which the least of 3 comparisons needs" in warning and "write at least 7" in warning
    assert warnings(experiment(**every, seeds=7)) == []
    (warning,) = warnings(experiment(**several, seeds=6))
    assert "p < 0.025 (least p: 0.0312), which the least of 2 comparisons needs" in warning


SIZES = (("a", 8), ("b", 16), ("c", 32))
