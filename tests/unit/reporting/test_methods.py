"""Methods and limitations: every number and name in them stands in the records, and what they leave unsaid is not so."""

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_results import ARMS, Made

from assay.records import Record
from assay.reporting import latex, methods
from assay.reporting.read import load
from assay.reporting.statements import Number, Quote, recomputed, stands, statements, text_of


def hostile(record: Record) -> None:
    record.environment.image = {"base_digest": "sha256:" + "a" * 64, "sif_sha256": "b" * 64}
    if record.stage == "train" and record.seed == 2:
        record.resumed = True
    if record.stage == "train" and record.seed in (3, 4):
        record.details["shared"] = {"runs": 2}
    if record.stage == "profile" and record.block == 1:
        record.outcome = "invalid"
    record.warnings = ["warm"]


MADE = {
    "plain": {},
    "noise": {"noise": True},
    "one seed": {"seeds": 1, "blocks": 0},
    "many seeds": {"seeds": 24, "blocks": 1, "steps": 1, "logs": False},
    "troubled": {"change": hostile, "blocks": 2, "outcomes": {("cnn", 1): "diverged"}},
    "energy": {"arms": {name: arm | {"energy": 5.0} for name, arm in ARMS.items()}, "blocks": 1},
    "looks": {"seeds": 8, "blocks": 1, "comparison": {"looks": [8, 12], "spending": "pocock"}},
    "many arms": {"arms": {f"cnn-{place}": ARMS["cnn"] for place in range(7)}, "seeds": 2, "blocks": 1},
}


@pytest.fixture(scope="module")
def results_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Results by name in `MADE`, each made once; not to be changed."""

    @cache
    def make(name: str) -> Path:
        return Made(tmp_path_factory.mktemp("methods"), **MADE[name]).make()  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize("name", MADE)
def test_every_number_and_name_stands_in_the_records(results_of: Callable[[str], Path], name: str) -> None:
    folder = results_of(name)
    results = load(folder)
    for parts in (methods.methods(results), methods.limitations(results)):
        assert parts
        for part in parts:
            if isinstance(part, str):
                assert not re.search(r"\d", part.replace("SHA-256", "")), f"a number without a source: {part}"
            else:
                assert stands(folder, part), part
        assert "  " not in text_of(parts) and text_of(parts).endswith(".")


def test_arms_that_are_trained_differently_are_told_apart(tmp_path: Path) -> None:
    folder = Made(tmp_path, seeds=2, blocks=1).make()
    tree = yaml.safe_load((folder / "experiment.yaml").read_text())
    tree["arms"]["cnn"]["training"]["epochs"] = 99
    tree["arms"]["cnn"]["training"]["optimizer"] = {
        "name": "adamw",
        "learning_rate": 1e-5,
        "weight_decay": 0.01,
    }
    tree["factors"] = ["model", "training"]
    (folder / "experiment.yaml").write_text(yaml.safe_dump(tree))
    parts = methods.methods(load(folder))
    assert "99 (cnn) epochs" in text_of(parts) and "sgd (mlp) and adamw (cnn)" in text_of(parts)
    assert "1e-05 (cnn)" in text_of(parts) and "momentum" not in text_of(parts)
    assert all(stands(folder, part) for part in parts if not isinstance(part, str))


def test_limitations_say_what_was_not_measured_and_only_that(results_of: Callable[[str], Path]) -> None:
    texts = {
        name: text_of(methods.limitations(load(results_of(name))))
        for name in ("plain", "noise", "one seed", "many seeds", "troubled", "energy")
    }
    for words, names in {
        "Energy was not measured": {"plain", "noise", "one seed", "many seeds", "troubled"},
        "The noise floor was not measured": texts.keys() - {"noise"},
        "Costs were not measured": {"one seed"},
        "no test can reach the level 0.05: its smallest p is 1.00": {"one seed"},
        "smallest p that a test can reach is 0.031": {"plain", "noise", "troubled", "energy"},
        "11 of 12 runs completed": {"troubled"},
        "2 of the trainings went on after an interruption": {"troubled"},
        "4 of the trainings shared their GPU": {"troubled"},
        "2 visits were measured in circumstances": {"troubled"},
        "intervals of so few pairs are too narrow": {"plain", "noise", "many seeds", "energy"},
        "from the host's own software": texts.keys() - {"troubled"},
    }.items():
        assert {name for name, text in texts.items() if words in text} == set(names), words
    troubled = text_of(methods.methods(load(results_of("troubled"))))
    assert "base sha256:aaa" in troubled and "image with SHA-256 bbb" in troubled


@pytest.mark.parametrize(
    ("part", "file", "edit"),
    [
        (Number("6", "experiment.yaml", "seeds", "items"), "experiment.yaml", lambda tree: tree["seeds"].pop()),
        (Number("0.05", "comparison/comparison.json", "alpha"), "comparison/comparison.json", lambda tree: tree.update(alpha=0.06)),
        (Number("95", "comparison/comparison.json", "confidence", "percent"), "comparison/comparison.json", lambda tree: tree.update(confidence=0.9)),
        (Quote("mlp", "experiment.yaml", "baseline"), "experiment.yaml", lambda tree: tree.update(baseline="cnn")),
        (Number("12", "runs/*/seed-*/evaluate/record.json", "outcome", "count of completed"), "runs/cnn/seed-3/evaluate/record.json", lambda tree: tree.update(outcome="failed")),
        (Number("12", "experiment.yaml", "arms seeds", "product"), "experiment.yaml", lambda tree: tree["arms"].pop("cnn")),
        (Number("0.031", "experiment.yaml", "seeds", "smallest p"), "experiment.yaml", lambda tree: tree["seeds"].append(9)),
        (Number("16", "experiment.yaml", "profile.batch_sizes.*", "one of"), "experiment.yaml", lambda tree: tree["profile"].update(batch_sizes=[1, 17])),
    ],
)  # fmt: skip
def test_an_edited_record_is_noticed(
    made: Path, tmp_path: Path, part: Number | Quote, file: str, edit: Callable[[Any], object]
) -> None:
    folder = tmp_path / "digits"
    shutil.copytree(made, folder, ignore=shutil.ignore_patterns("report", "log.jsonl"))
    assert stands(folder, part)
    path = folder / file
    tree = yaml.safe_load(path.read_text())
    edit(tree)
    path.write_text(json.dumps(tree))
    assert not stands(folder, part)


def test_a_field_that_is_not_there_is_an_error(made: Path) -> None:
    with pytest.raises(ValueError, match="no nothing"):
        recomputed(made, Number("1", "experiment.yaml", "nothing"))
    with pytest.raises(ValueError, match="2 different values"):
        recomputed(made, Number("1", "experiment.yaml", "arms.*.model.options.width"))


def test_files_and_page_say_the_same(made: Path, reported: Path) -> None:
    results = load(made)
    how, limits = methods.methods(results), methods.limitations(results)
    text = (reported / "methods.md").read_text()
    assert text_of(how) in text and text_of(limits) in text
    assert latex.escape(text_of(how)) in (reported / "methods.tex").read_text()
    page = (reported / "index.html").read_text()
    assert text_of(limits).replace("'", "&#39;") in page
    table = statements([how, limits])
    shown = [row[0] for row in table.rows]
    assert shown == [part.text for part in (*how, *limits) if not isinstance(part, str)]
    assert (reported / "tables" / "statements.csv").read_text().count("\n") == len(shown) + 1


def test_the_document_names_every_table_and_figure(reported: Path) -> None:
    text = (reported / "report.tex").read_text()
    for kind, ending in (("tables", "tex"), ("figures", "pdf")):
        found = {path.stem for path in (reported / kind).glob(f"*.{ending}")}
        assert found and found == set(re.findall(rf"{kind}/([\w-]+)", text))


def test_looks_are_told(results_of: Callable[[str], Path]) -> None:
    results = load(results_of("looks"))
    assert "Looks after 8 and 12 seeds had been declared beforehand" in text_of(methods.methods(results))
    assert "stopped early, after 8 seeds" in text_of(methods.limitations(results))
    plain = load(results_of("plain"))
    assert "Looks" not in text_of(methods.methods(plain))
    assert "stopped early" not in text_of(methods.limitations(plain))
