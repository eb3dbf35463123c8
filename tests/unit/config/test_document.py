"""Schema and reference are generated, current, and accept what the program accepts."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from assay.config.arm import Arm, Section
from assay.config.document import ROOT, _sections, generated, main, schema
from assay.config.load import load
from assay.config.schema import Experiment

FILES = [ROOT / "config" / "config.yaml", *sorted((ROOT / "config" / "experiments").glob("*.yaml"))]


def test_generated_files_are_current() -> None:
    for path, text in generated().items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, (
            f"run `python -m assay.config.document` for {path}"
        )
    assert main(["--check"]) == 0


def test_every_section_is_in_the_reference() -> None:
    documented = {model for _, model in _sections()} | {Arm, Experiment}
    sections = {model for model in Section.__subclasses__() if model.__module__.startswith("assay.config")}
    assert sections == documented


def test_the_check_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.config.document.ROOT", tmp_path)
    (tmp_path / "config").mkdir()
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ready_made_experiments_are_right(path: Path) -> None:
    assert len(FILES) >= 6
    load(path)
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "change",
    [
        {"sedes": 1},
        {"training": {"epoch": 1}},
        {"training": {"optimizer": {"name": "adam"}}},
        {"seeds": 0},
        {"metrics": ["acuracy"]},
        {"arms": {"a": {"training": {"batch_size": 0}}, "b": {}}},
        {"name": "No Name"},
    ],
)
def test_an_editor_refuses_what_the_program_refuses(change: dict[str, object]) -> None:
    content = yaml.safe_load(FILES[0].read_text()) | change
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema()).validate(content)
