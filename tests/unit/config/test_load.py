"""The experiment file: what is right is resolved, what is wrong is told, all of it at once."""

import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.config.load import ConfigError, from_mapping, load
from assay.config.metrics import DESCRIPTIVE, METRICS
from assay.config.schema import Experiment

GOOD: dict[str, Any] = {
    "name": "tiny",
    "factors": ["model"],
    "arms": {"mlp": {"model": {"source": "builtin:mlp"}}, "cnn": {"model": {"source": "builtin:cnn"}}},
    "data": {"source": "digits"},
    "seeds": 6,
    "training": {"epochs": 3, "optimizer": {"name": "sgd", "momentum": 0.8}},
}


def experiment(**changes: Any) -> Experiment:
    return from_mapping(deepcopy(GOOD) | changes, file="tiny.yaml")


def errors(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        experiment(**changes)
    return str(caught.value).splitlines()


def arm(**sections: Any) -> dict[str, Any]:
    arms = deepcopy(GOOD["arms"])
    arms["cnn"] |= sections
    return arms  # type: ignore[no-any-return]


def test_defaults_and_short_forms_are_written_out() -> None:
    resolved = experiment(metrics=["accuracy", {"name": "loss", "margin": 0.1}], factors="model")
    assert resolved.seeds == [0, 1, 2, 3, 4, 5]
    assert resolved.baseline == "mlp"
    assert [metric.name for metric in resolved.metrics] == ["accuracy", "loss"]
    assert resolved.arms["cnn"].training.optimizer.momentum == 0.8  # type: ignore[union-attr]
    assert resolved.arms["cnn"].training.epochs == 3
    assert resolved.factors == ["model"]


def test_an_arms_own_keys_replace_the_shared_ones_one_by_one() -> None:
    resolved = experiment(
        arms=arm(training={"optimizer": {"learning_rate": 0.3}}), factors=["model", "training.optimizer"]
    )
    optimizer = resolved.arms["cnn"].training.optimizer
    assert (optimizer.learning_rate, optimizer.momentum) == (0.3, 0.8)  # type: ignore[union-attr]


def test_another_kind_of_optimizer_starts_anew() -> None:
    resolved = experiment(
        arms=arm(training={"optimizer": {"name": "adamw"}}), factors=["model", "training.optimizer"]
    )
    assert resolved.arms["cnn"].training.optimizer.name == "adamw"
    assert resolved.arms["mlp"].training.optimizer.name == "sgd"


def test_another_model_takes_no_options_along() -> None:
    resolved = experiment(
        model={"source": "builtin:mlp", "options": {"hidden": [8]}, "image_size": 16},
        arms={"a": {}, "b": {"model": {"source": "builtin:cnn"}}},
    )
    assert resolved.arms["a"].model.options == {"hidden": [8]}
    assert resolved.arms["b"].model.options == {}
    assert resolved.arms["b"].model.image_size == 16, (
        "the resolution does not change with the model by itself"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sedes": 3}, ["sedes", "unknown key", "did you mean `seeds`?"]),
        ({"training": {"epoch": 3}}, ["training.epoch", "did you mean `epochs`?"]),
        (
            {"training": {"optimizer": {"name": "sgd", "momentun": 0.1}}},
            ["training.optimizer.momentun", "`momentum`"],
        ),
        ({"training": {"optimizer": {"name": "adam"}}}, ["training.optimizer", "`name: adamw`"]),
        ({"training": {"optimizer": {"learning_rate": 0.1}}}, ["training.optimizer", "`name: sgd`"]),
        ({"training": {"batch_size": 0}}, ["training.batch_size", "0", "greater than or equal to 1"]),
        ({"training": {"batch_size": "many"}}, ["training.batch_size", "'many'", "integer"]),
        (
            {"training": {"batch_size": 30}, "execution": {"devices": 4, "nodes": 2}},
            [
                "training.batch_size",
                "30 is not a multiple of 8",
                "write `batch_size: 24` or `batch_size: 32`",
            ],
        ),
        (
            {"execution": {"device": "cpu", "tf32": True}},
            ["execution.tf32", "device is cpu", "`tf32: false`"],
        ),
        (
            {"bounds": {"runs_per_gpu": 4}, "execution": {"devices": 2}, "training": {"batch_size": 64}},
            ["bounds.runs_per_gpu", "4 runs cannot share a GPU", "`runs_per_gpu: 1`, or `devices: 1`"],
        ),
        (
            {"bounds": {"runs_per_gpu": 33}},
            ["bounds.runs_per_gpu", "should be less than or equal to 32"],
        ),
        (
            {"execution": {"device": "cpu", "cuda_graphs": True}},
            ["execution.cuda_graphs", "device is cpu", "write `cuda_graphs: false`"],
        ),
        (
            {"execution": {"devices": 2, "cuda_graphs": True}, "training": {"batch_size": 64}},
            ["execution.cuda_graphs", "2 processes train one run", "`devices: 1` and `nodes: 1`"],
        ),
        (
            {"execution": {"cuda_graphs": True}, "training": {"accumulate": 4}},
            ["execution.cuda_graphs", "(4 steps)", "`training: {accumulate: 1}`"],
        ),
        ({"profile": {"min_seconds": 2, "seconds": 1}}, ["profile", "min_seconds (2) is above seconds (1)"]),
        ({"execution": {"devices": 0}}, ["execution.devices", "0", "greater than or equal to 1"]),
        ({"training": {"schedule": {"name": "cosin"}}}, ["training.schedule.name", "did you mean `cosine`?"]),
        ({"data": {"sorce": "digits"}}, ["data.sorce", "did you mean `source`?"]),
        ({"data": {"source": "digit"}}, ["data.source", "digits"]),
        ({"data": None}, ["data", "write"]),
        ({"name": "My Experiment"}, ["name", "lower-case"]),
        ({"name": True}, ["name", "quotes"]),
        ({"seeds": 0}, ["seeds", "at least 1"]),
        ({"seeds": [1, 2, 1]}, ["seeds", "1 stands twice"]),
        ({"seeds": [-1]}, ["seeds[0]", "-1"]),
        ({"arms": {"only": {}}}, ["arms", "two"]),
        ({"arms": {"a": 3, "b": {}}}, ["arms.a", "not a section"]),
        ({"arms": {"A b": {"model": {"source": "builtin:mlp"}}, "b": {}}}, ["arms.A b", "not a name"]),
        ({"factors": ["modell"]}, ["factors[0]", "did you mean `model`?"]),
        ({"factors": []}, ["factors"]),
        ({"baseline": "mpl"}, ["baseline", "did you mean `mlp`?"]),
        ({"metrics": ["acuracy"]}, ["metrics[0]", "did you mean `accuracy`?"]),
        ({"metrics": ["loss", "loss"]}, ["metrics[1]", "stands twice"]),
        (
            {"metrics": ["latency_ms"], "profile": {"enabled": False}},
            ["metrics[0]", "profile", "enabled: true"],
        ),
        ({"profile": {"batch_sizes": [16, 1]}}, ["profile", "[1, 16]"]),
        ({"execution": 3}, ["execution", "not a section"]),
        (
            {"augmentation": {"crop_padding": 4, "resized_crop": [0.1, 1]}},
            ["augmentation", "exclude each other"],
        ),
        ({"training": {"epochs": 2, "schedule": {"warmup_epochs": 2}}}, ["training", "warmup_epochs"]),
        (
            {"training": {"optimizer": {"name": "sgd", "momentum": 0}}},
            ["training.optimizer", "nesterov: false"],
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_its_mending(changes: dict[str, Any], words: list[str]) -> None:
    lines = errors(**changes)
    assert any(all(word in line for word in words) for line in lines), lines
    assert all(line.startswith("tiny.yaml") for line in lines)


def test_all_mistakes_at_once() -> None:
    lines = errors(
        sedes=1, training={"epoch": 3}, data={"sorce": "digits"}, metrics=["acuracy", {"nam": "loss"}]
    )
    text = "\n".join(lines)
    for word in ("sedes", "training.epoch", "data.sorce", "metrics[1].nam"):
        assert word in text


def test_a_mistake_for_all_arms_is_told_once() -> None:
    lines = errors(training={"batch_size": -1})
    assert len(lines) == 1 and "arms" not in lines[0]


def test_a_mistake_of_one_arm_is_told_there() -> None:
    lines = errors(arms=arm(training={"batch_size": -1}))
    assert len(lines) == 1 and "arms.cnn.training.batch_size" in lines[0]


def test_an_undeclared_difference_stops_with_both_values() -> None:
    lines = errors(arms=arm(training={"batch_size": 32}))
    assert len(lines) == 1
    for word in ("arms.cnn.training.batch_size", "mlp has 128", "cnn has 32", "training.batch_size]"):
        assert word in lines[0]


def test_an_undeclared_option_is_a_difference_too() -> None:
    lines = errors(
        model={"source": "builtin:cnn"},
        arms={"a": {}, "b": {"model": {"options": {"width": 8}}}},
        factors=["training.batch_size"],
    )
    assert any("model.options.width" in line for line in lines)


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("name: tiny\n\nfactors: [model]\ntraining:\n  epochs: 3\n  batch: 5\n")
    with pytest.raises(ConfigError, match=r"e\.yaml:6: training\.batch"):
        load(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("- a\n- b\n", "holds a list"),
        ("just words\n", "holds a str"),
        ("name: a\n\tb: 1\n", "not YAML"),
        ("name: [a\n", "not YAML"),
        ("name: a\nname: b\n", "stands twice"),
        ("data:\n  source: digits\n  source: mnist\n", "data.source: stands twice"),
        ("a: &x\n  b: *x\n", "contains itself"),
        ("? [a]\n: 1\n", "not a word"),
        ("name: !!python/object/apply:os.system [echo]\n", "not YAML"),
    ],
)
def test_files_that_are_no_experiment(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        load(file)


def test_missing_folder_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "bytes.yaml")


def test_numbers_that_yaml_reads_as_words(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    text = yaml.safe_dump(GOOD).replace("momentum: 0.8", "learning_rate: 1e-3")
    file.write_text(text)
    assert load(file).arms["mlp"].training.optimizer.learning_rate == 1e-3


def test_values_from_the_command_line_replace_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(yaml.safe_dump(GOOD))
    changed = load(file, overrides={"seeds": 2, "training": {"epochs": 9}})
    assert changed.seeds == [0, 1]
    assert changed.arms["mlp"].training.epochs == 9
    assert changed.arms["mlp"].training.optimizer.momentum == 0.8  # type: ignore[union-attr]


def test_a_sweep_of_many_seeds_is_read_at_once() -> None:
    began = time.process_time()
    assert len(experiment(seeds=5000).seeds) == 5000
    assert time.process_time() - began < 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
PLACES = [
    ("name",),
    ("factors",),
    ("arms",),
    ("arms", "cnn"),
    ("arms", "cnn", "model"),
    ("arms", "cnn", "model", "source"),
    ("arms", "cnn", "training"),
    ("data",),
    ("data", "source"),
    ("seeds",),
    ("training",),
    ("training", "epochs"),
    ("training", "optimizer"),
    ("training", "optimizer", "name"),
    ("training", "schedule"),
    ("execution",),
    ("augmentation",),
    ("augmentation", "resized_crop"),
    ("metrics",),
    ("profile",),
    ("profile", "batch_sizes"),
    ("comparison",),
    ("baseline",),
    ("question",),
    ("unknown",),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.sampled_from(PLACES), value=VALUES)
def test_whatever_stands_in_a_file_gives_an_experiment_or_its_mistakes(
    place: tuple[str, ...], value: Any
) -> None:
    content = deepcopy(GOOD)
    section: dict[str, Any] = content
    for key in place[:-1]:
        section = section.setdefault(key, {})
    section[place[-1]] = value
    try:
        resolved = from_mapping(content, file="e.yaml")
    except ConfigError as error:
        assert str(error)
    else:
        assert Experiment.model_validate(resolved.model_dump(mode="json")) == resolved


@pytest.mark.parametrize("name", list(DESCRIPTIVE))
def test_what_only_describes_is_never_judged(name: str) -> None:
    """Each judged metric shares the level of its family with the others."""
    assert name not in METRICS
    assert any("unknown metric" in line for line in errors(metrics=["accuracy", name]))


@pytest.mark.parametrize("name", ["loaded_training_throughput", "largest_batch_throughput", "cold_start_s"])
def test_other_costs_are_judged_where_the_file_says_so(name: str) -> None:
    assert [metric.name for metric in experiment(metrics=["accuracy", name]).metrics] == ["accuracy", name]
    assert name not in [metric.name for metric in experiment().metrics]
