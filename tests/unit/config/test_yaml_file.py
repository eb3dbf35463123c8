"""Reading YAML: what an editor or a habit leaves in a file is read as meant, or refused with its line."""

import time
from pathlib import Path
from typing import Any

import pytest

from assay.config.errors import ConfigError
from assay.config.yaml_file import DEEPEST, read_yaml


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.yaml"


def refused(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_yaml(file)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5E4", 50000.0),
        (".5", 0.5),
        ("-.5e3", -500.0),
        ("1_000", 1000),
        ("0", 0),
        ("0x1F", 31),
        ("1:30", "1:30"),  # YAML 1.1: 90
        ("010", "010"),  # YAML 1.1: 8
        ("2024-01-01", "2024-01-01"),  # YAML 1.1: a date
        ("true", True),
        ("no", False),
        ("'no'", "no"),
        ("~", None),
    ],
)
def test_plain_words_are_what_they_look_like(file: Path, text: str, value: Any) -> None:
    file.write_text(f"a: {text}\n")
    content, _ = read_yaml(file)
    assert content == {"a": value}
    assert type(content["a"]) is type(value)


def test_keys_are_texts_as_they_stand(file: Path) -> None:
    file.write_text("no: 1\n1: 2\n1.0: 3\n~: 4\n")
    content, lines = read_yaml(file)
    assert list(content) == ["no", "1", "1.0", "~"]
    assert [lines[(key,)] for key in content] == [1, 2, 3, 4]


def test_every_key_and_item_has_its_line(file: Path) -> None:
    file.write_text("a:\n  b: 1\n  c: [x,\n    y]\n")
    _, lines = read_yaml(file)
    assert lines == {("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", 0): 3, ("a", "c", 1): 4}


def test_anchors_and_merge_keys_are_read(file: Path) -> None:
    file.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n")
    assert read_yaml(file)[0]["b"] == {"x": 1, "y": 3}


def test_a_key_that_stands_twice_names_both_lines(file: Path) -> None:
    file.write_text("a:\n  b: 1\n\n  b: 1\n")
    assert f"{file}:4: a.b: stands twice, first on line 2" in refused(file)


def test_a_tab_is_called_a_tab(file: Path) -> None:
    file.write_text("a:\n\tb: 1\n")
    assert f"{file}:2: a tab" in refused(file) and "indent with spaces" in refused(file)


def test_a_byte_order_mark_is_no_matter(file: Path) -> None:
    file.write_bytes("name: größer\r\nseeds: 3\r\n".encode("utf-8-sig"))
    assert read_yaml(file)[0] == {"name": "größer", "seeds": 3}


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_nesting_without_end_is_refused_and_no_crash(file: Path, opening: str) -> None:
    file.write_text(opening * 100_000)
    assert f"more than {DEEPEST}" in refused(file) or "not YAML" in refused(file)


def test_aliases_that_stand_for_billions_are_refused_at_once(file: Path) -> None:
    rows = ["a0: &a0 [1, 1]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 15)]
    file.write_text("\n".join(rows))
    began = time.process_time()
    assert "aliases included" in refused(file)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/name:os.system",
        "a: =",
        "a: *nowhere",
        "a: 1\n---\nb: 2",
        "a: \x07",
        "a: " + "9" * 5000,
        "%YAML 9.9\n---\na: 1",
    ],
)
def test_what_is_no_plain_yaml_is_refused_in_one_line(file: Path, text: str) -> None:
    file.write_text(text)
    message = refused(file)
    assert message.startswith(str(file)) and "not YAML" in message and "\n" not in message


def test_a_file_that_may_not_be_read(file: Path) -> None:
    loop = file.with_name("loop.yaml")
    loop.symlink_to(loop)
    assert "cannot be read" in refused(loop)
    assert "cannot be read" in refused(Path("a\0b"))


def test_errors_name_the_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give the path of a release file"):
        read_yaml(tmp_path / "none.yaml", kind="release", example="config/release/digits.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"`name: my-release`; see config/release/digits\.yaml"):
        read_yaml(tmp_path / "empty.yaml", kind="release", example="config/release/digits.yaml")
