"""Mistakes told in the user's words: each promise of an error's text, broken on purpose."""

import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.config.document import ROOT
from assay.config.load import ConfigError, from_mapping, load
from assay.config.schema import Experiment
from assay.records import canonical_json

DEFAULT = (ROOT / "config" / "config.yaml").read_text()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.yaml"


def mistakes(file: Path, *changes: tuple[str, str], **overrides: Any) -> list[str]:
    """What is told of the default experiment with text replaced, without the file's name."""
    text = DEFAULT
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, overrides=overrides)
    return [line.removeprefix(f"{file}") for line in str(caught.value).splitlines()]


def line_of(text: str) -> int:
    return DEFAULT[: DEFAULT.index(text)].count("\n") + 1


def test_mistakes_of_every_kind_are_told_at_once(file: Path) -> None:
    found = mistakes(
        file,
        ("factors: [model]", "factors: [modle]"),
        ("epochs: 15", "epochs: 0"),
        ("seeds: 6", "seeds: [1, 1]"),
        ("  - macro_f1", "  - macrof1"),
        ("      source: builtin:cnn", "      sourc: builtin:cnn"),
        ("name: cosine", "name: cosin"),
    )
    for words in (
        ":11: factors[0]: 'modle' names no setting of an arm; did you mean `model`?",
        ": training.epochs: 0 should be greater than or equal to 1; write e.g. `epochs: 20`",
        "seeds: 1 stands twice",
        "did you mean `macro_f1`?",
        "arms.cnn.model.sourc: unknown key; did you mean `source`?",
        "training.schedule.name: 'cosin'",
    ):
        assert any(words in line for line in found), (words, found)


def test_lines_come_in_the_order_of_the_file(file: Path) -> None:
    found = mistakes(file, ("batch_size: 64", "batch_size: 0"), ("question: Does", "queston: Does"))
    numbers = [int(line.split(":")[1]) for line in found]
    assert numbers == [line_of("question: Does"), line_of("batch_size: 64")]


def test_a_key_of_another_optimizer_is_told_as_such(file: Path) -> None:
    (line,) = mistakes(file, ("    momentum: 0.9", "    betas: [0.9, 0.99]"))
    assert "training.optimizer.betas: belongs to `name: adamw`, and this is sgd" in line


def test_an_arms_unknown_section_offers_the_sections_of_an_arm(file: Path) -> None:
    (line,) = mistakes(file, ("      source: builtin:mlp", "      source: builtin:mlp\n    zzzz: 1"))
    assert "arms.mlp.zzzz: unknown key; write one of: model, augmentation, training, execution" in line


@pytest.mark.parametrize("word", ["sgd", "adamw"])
def test_an_optimizers_name_is_an_unknown_key_elsewhere(file: Path, word: str) -> None:
    (line,) = mistakes(file, ("      source: builtin:mlp", f"      source: builtin:mlp\n    {word}: 1"))
    assert f"arms.mlp.{word}: unknown key; write one of: model" in line


@pytest.mark.parametrize("word", ["yes", "true", "off"])
def test_yes_and_no_are_not_numbers(file: Path, word: str) -> None:
    (line,) = mistakes(file, ("epochs: 15", f"epochs: {word}"))
    assert f":{line_of('epochs: 15')}: training.epochs: " in line
    assert "is not a number" in line and "`epochs: 20`" in line


def test_yes_is_not_a_seed_either(file: Path) -> None:
    (line,) = mistakes(file, ("seeds: 6", "seeds: [yes, 7]"))
    assert "seeds: true is not a number" in line


def test_a_misread_number_is_no_undeclared_difference(file: Path) -> None:
    arm = "      source: builtin:mlp\n    training: {epochs: yes}"
    (line,) = mistakes(file, ("      source: builtin:mlp", arm))
    assert "arms.mlp.training.epochs: true is not a number" in line


def test_the_norway_problem_is_named(file: Path) -> None:
    (line,) = mistakes(file, ("name: digits", "name: no"))
    assert "put quotes around it" in line


def test_arms_may_be_called_on_and_1(file: Path) -> None:
    file.write_text(DEFAULT.replace("  mlp:\n", "  on:\n").replace("  cnn:\n", "  1:\n"))
    assert list(load(file).arms) == ["on", "1"]


def test_sections_left_empty_take_their_defaults(file: Path) -> None:
    file.write_text(DEFAULT + "\ncomparison:\naugmentation:\nbaseline:\n")
    assert load(file).comparison.confidence == 0.95


@pytest.mark.parametrize("value", ['"6"', "6.0", "010", "{a: 1}"])
def test_what_is_neither_a_number_of_seeds_nor_a_list_is_told_as_that(file: Path, value: str) -> None:
    (line,) = mistakes(file, ("seeds: 6", f"seeds: {value}"))
    assert f":{line_of('seeds: 6')}: seeds: " in line
    assert "is neither a whole number nor a list; write e.g. `seeds: 6`" in line


@pytest.mark.parametrize("value", [".nan", "[1, .inf]", "{a: 1}"])
def test_a_wrong_option_is_told_once(file: Path, value: str) -> None:
    (line,) = mistakes(file, ("{width: 16}", f"{{width: {value}}}"))
    assert f":{line_of('{width: 16}')}: arms.cnn.model.options.width: " in line
    assert "is no value of an option; write a finite number, text" in line


def test_a_wrong_option_of_the_data_is_told_once(file: Path) -> None:
    (line,) = mistakes(file, ("source: digits ", "source: my.data:make\n  options: {size: .nan}\n  #"))
    assert "data.options.size: nan is no value of an option" in line


@pytest.mark.parametrize(("margin", "meant"), [("1", "0.01"), ("2.5", "0.025")])
def test_points_are_no_margin_of_a_fraction(file: Path, margin: str, meant: str) -> None:
    """With them every difference would be `equivalent`."""
    (line,) = mistakes(file, ("{name: accuracy, margin: 0.01}", f"{{name: accuracy, margin: {margin}}}"))
    assert f":{line_of('{name: accuracy')}: metrics[0].margin: {margin} holds every difference" in line
    assert f"`margin: {meant}`" in line


def test_a_cost_may_have_a_margin_of_twice_as_much(file: Path) -> None:
    file.write_text(DEFAULT.replace("{name: latency_ms, margin: 0.05}", "{name: latency_ms, margin: 1}"))
    assert load(file).metrics[4].margin == 1


def test_a_number_is_a_name_in_quotes(file: Path) -> None:
    (line,) = mistakes(file, ("name: digits", "name: 2024"))
    assert 'put quotes around it: `name: "2024"`' in line
    file.write_text(DEFAULT.replace("name: digits", 'name: "2024"'))
    assert load(file).name == "2024"


def test_an_empty_list_is_told_as_empty(file: Path) -> None:
    found = mistakes(file, ("batch_sizes: [1, 16, 64]", "batch_sizes: []"))
    assert [line.partition(": ")[2] for line in found] == [
        "profile.batch_sizes: is empty; write e.g. `batch_sizes: [1, 16, 64]`"
    ]


def test_seeds_beyond_all_measure_are_refused_at_once(file: Path) -> None:
    began = time.process_time()
    (line,) = mistakes(file, ("seeds: 6", "seeds: 1000000000000"))
    assert "seeds: 1000000000000 seeds" in line
    assert time.process_time() - began < 2


def test_another_optimizer_is_one_difference_and_not_one_per_setting(file: Path) -> None:
    arm = "      source: builtin:mlp\n    training: {epochs: 3, optimizer: {name: adamw}}"
    found = mistakes(file, ("      source: builtin:mlp", arm))
    assert len(found) == 2
    assert "arms.mlp.training.epochs: undeclared difference: mlp has 3, cnn has 15" in found[0]
    assert "arms.mlp.training.optimizer: undeclared difference: mlp has 'adamw', cnn has 'sgd'" in found[1]
    assert all("`factors: [model, training.optimizer, training.epochs]`" in line for line in found)


def test_what_it_advises_to_declare_is_then_accepted(file: Path) -> None:
    text = DEFAULT.replace(
        "source: builtin:mlp", "source: builtin:mlp\n    training: {optimizer: {name: adamw}}"
    )
    file.write_text(text.replace("factors: [model]", "factors: [model, training.optimizer]"))
    assert load(file).arms["mlp"].training.optimizer.name == "adamw"


def test_a_factor_of_one_key_does_not_declare_its_neighbours(file: Path) -> None:
    arm = "      source: builtin:mlp\n    training: {optimizer: {momentum: 0.5, learning_rate: 0.2}}"
    factors = "factors: [model, training.optimizer.momentum]"
    (line,) = mistakes(file, ("      source: builtin:mlp", arm), ("factors: [model]", factors))
    assert "training.optimizer.learning_rate: undeclared" in line


def test_no_factor_is_the_beginning_of_anothers_name(file: Path) -> None:
    arm = "      source: builtin:mlp\n    model_x: 1"
    assert any("model_x" in line for line in mistakes(file, ("      source: builtin:mlp", arm)))
    found = mistakes(file, ("factors: [model]", "factors: [mode]"))
    assert any("undeclared difference" in line for line in found)


def test_values_from_the_command_line_are_told_as_such(file: Path) -> None:
    (line,) = mistakes(file, training={"epochs": -3})
    assert line.startswith(", --config: training.epochs: -3 should be")


def test_an_option_of_a_model_may_be_a_factor(file: Path) -> None:
    file.write_text(
        DEFAULT.replace("source: builtin:mlp", "source: builtin:cnn").replace(
            "factors: [model]", "factors: [model.options.width]"
        )
    )
    assert load(file).arms["mlp"].model.options == {}


@pytest.mark.parametrize("seeds", ["5000", str(list(range(5000)))])
def test_five_thousand_seeds_are_read_at_once(file: Path, seeds: str) -> None:
    file.write_text(DEFAULT.replace("seeds: 6", f"seeds: {seeds}"))
    times = []
    for _ in range(3):
        began = time.process_time()
        assert len(load(file).seeds) == 5000
        times.append(time.process_time() - began)
    assert min(times) < 1


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.sampled_from(["name", "source", "epochs", "model", "training", "width", "no", "1", "zzz"])
VALUES = st.recursive(
    LEAVES | st.sampled_from(["sgd", "adamw", "accuracy", "latency_ms", "mlp", "model", "builtin:mlp"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
CONTENT: dict[str, Any] = yaml.safe_load(DEFAULT)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in below for place in places(item, (*path, key)))]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(places(CONTENT)[1:]), st.sampled_from(["set", "drop", "rename"]), VALUES),
        min_size=1,
        max_size=3,
    )
)
def test_any_change_anywhere_gives_an_experiment_or_its_mistakes(
    changes: list[tuple[tuple[str | int, ...], str, Any]],
) -> None:
    content = deepcopy(CONTENT)
    for path, how, value in changes:
        parent: Any = content
        for part in path[:-1]:
            parent = parent[part] if _has(parent, part) else None
        if not _has(parent, path[-1]):
            continue
        if how == "set":
            parent[path[-1]] = value
        elif how == "drop" or not isinstance(parent, dict):
            del parent[path[-1]]
        else:
            parent[f"{path[-1]}x"] = parent.pop(path[-1])
    _holds_or_tells(content)


def _has(parent: Any, part: str | int) -> bool:
    if isinstance(parent, dict):
        return part in parent
    return isinstance(parent, list) and isinstance(part, int) and part < len(parent)


def _holds_or_tells(content: dict[str, Any]) -> None:
    try:
        resolved = from_mapping(content, file="e.yaml")
    except ConfigError as error:
        assert error.problems and all(problem.what for problem in error.problems)
    else:
        dumped = resolved.model_dump(mode="json")
        canonical_json(dumped)
        assert Experiment.model_validate(dumped) == resolved
        assert yaml.safe_load(yaml.safe_dump(dumped)) == dumped


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(DEFAULT)), drop=st.integers(0, 40), text=st.text(max_size=8) | st.just("\t"))
def test_any_slip_of_the_keyboard_gives_an_experiment_or_its_mistakes(
    file: Path, at: int, drop: int, text: str
) -> None:
    file.write_text(DEFAULT[:at] + text + DEFAULT[at + drop :], encoding="utf-8", errors="surrogatepass")
    try:
        load(file)
    except ConfigError as error:
        assert str(error).startswith(str(file))


def test_a_metric_to_a_target_needs_one(file: Path) -> None:
    change = ("  - macro_f1\n", "  - train_energy_to_target\n")
    (line,) = [one for one in mistakes(file, change) if "target" in one][:1]
    assert "train_energy_to_target needs a target" in line
    assert "comparison: {target_accuracy: 0.9}" in "".join(mistakes(file, change))
    file.write_text(DEFAULT.replace(*change) + "comparison: {target_accuracy: 0.9}\n")
    assert load(file).comparison.target_accuracy == 0.9
    for wrong in ("0", "1.5", ".nan", "yes"):
        file.write_text(DEFAULT + f"comparison: {{target_accuracy: {wrong}}}\n")
        with pytest.raises(ConfigError, match="target_accuracy"):
            load(file)


@pytest.mark.parametrize(
    ("section", "wrong", "words"),
    [
        ("comparison", "target_accuracy: 95", "write e.g. `target_accuracy: 0.9`"),
        ("comparison", "looks: never", "write e.g. `looks: [6, 9, 12]`"),
        ("profile", "min_seconds: -1", "write e.g. `min_seconds: 0.25`"),
        ("noise", "arm: [cnn]", "write e.g. the name of an arm"),
        ("noise", "seeds: -1", "write e.g. `seeds: 3`"),
        ("noise", "blocks: many", "write e.g. `blocks: 3`"),
        ("bounds", "memory_mb: 4 GB", "write e.g. `memory_mb: 4096`"),
        ("bounds", "processes: 1", "write e.g. `processes: 512`"),
        ("sweep", "trials: few", "write e.g. `trials: 16`"),
    ],
)
def test_a_key_that_may_be_null_says_what_to_write(file: Path, section: str, wrong: str, words: str) -> None:
    text = DEFAULT if f"\n{section}:\n" in DEFAULT else f"{DEFAULT}{section}:\n"
    file.write_text(text.replace(f"\n{section}:\n", f"\n{section}:\n  {wrong}\n"))
    with pytest.raises(ConfigError) as caught:
        load(file)
    key = wrong.partition(":")[0]
    told = [line for line in str(caught.value).splitlines() if f" {section}.{key}: " in line]
    assert len(told) == 1 and words in told[0], caught.value


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        ({"arm": "cn"}, "noise.arm: 'cn' is not an arm; did you mean `cnn`?"),
        ({"seeds": 2}, "noise.seeds: 2 pairs tell no spread; write at least 3, or 0 for none"),
        ({"blocks": 1}, "noise.blocks: 1 pair tells no spread; write at least 3, or 0 for none"),
        ({"seeds": 7}, "noise.seeds: 7 of 6 seeds; write at most 6, or null for all"),
        ({"seeds": True}, "noise.seeds: true is not a number"),
        ({"blocks": -1}, "noise.blocks: -1 should be greater than or equal to 0"),
        ({"enabled": True, "seeds": 0, "blocks": 0}, "noise: measures nothing"),
        ({"enable": True}, "noise.enable: unknown key; did you mean `enabled`?"),
        ({"arm": "CNN!"}, "noise.arm: 'CNN!' is not a"),
    ],
)
def test_a_noise_floor_that_cannot_be(file: Path, noise: dict[str, Any], words: str) -> None:
    assert any(words in line for line in mistakes(file, noise=noise)), mistakes(file, noise=noise)
