"""One page over a folder of results: verdicts, and whatever else lies there."""

import json
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_results import Made

from assay import cli
from assay.comparison.model import Comparison
from assay.records import Record
from assay.reporting.index import Entry, write_index

EVIL = '<script>alert("x")</script> & "quoted"'


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished experiment, one whose contract is broken, one that is not compared yet. Not to be changed."""

    def break_contract(record: Record) -> None:
        if record.arm == "cnn":
            record.data_sha256 = "0" * 64

    folder = tmp_path_factory.mktemp("index")
    small = {"seeds": 6, "blocks": 0, "logs": False, "metrics": ({"name": "accuracy"},)}
    whole = Made(folder, question=EVIL, **small).make()
    Made(folder, name="broken-contract", change=break_contract, **small).make()
    unfinished = shutil.copytree(whole, folder / "results" / "unfinished")
    shutil.rmtree(unfinished / "comparison")
    shutil.rmtree(unfinished / "runs" / "cnn" / "seed-5")
    text = (unfinished / "experiment.yaml").read_text().replace("name: digits", "name: unfinished")
    (unfinished / "experiment.yaml").write_text(text)
    for name in ("report/index.html", "archive/digits.crate.zip"):
        (whole / name).parent.mkdir(exist_ok=True)
        (whole / name).write_text("")
    return folder / "results"


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    return shutil.copytree(results, tmp_path / "results")


def listed(folder: Path) -> dict[str, Entry]:
    return {entry.name: entry for entry in write_index(folder)[1]}


class Page(HTMLParser):
    """Links, elements that start, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_experiment_is_listed_with_what_it_came_to(results: Path) -> None:
    found = listed(results)
    assert {name: entry.state for name, entry in found.items()} == {
        "digits": "completed",
        "broken-contract": "violated",
        "unfinished": "unfinished",
    }
    comparison = Comparison.read(results / "digits" / "comparison" / "comparison.json")
    (answer,) = found["digits"].answers
    assert (answer.arms, answer.verdict) == ("cnn against mlp", comparison.metrics[0].contrasts[0].verdict)
    assert answer.estimate.endswith(" pp") and answer.interval.startswith("[")
    assert found["digits"].told == comparison.headline
    assert (found["digits"].seeds, found["digits"].last) == ("0–5", "2025-06-01 10:00")
    assert "No verdict: the comparison is invalid" in found["broken-contract"].told
    assert [one.verdict for one in found["broken-contract"].answers] == ["no verdict"]
    assert found["unfinished"].told == "Not compared yet: 11 of 12 runs evaluated."


def test_the_page_is_self_contained_escaped_and_its_links_lead_somewhere(results: Path) -> None:
    path, _ = write_index(results)
    text = path.read_text()
    page = Page(text)
    assert page.tags.count("script") == 1 and EVIL not in text
    assert EVIL in page.text
    links = [link for link in page.links if link != "data:,"]
    assert {"digits/report/index.html", "digits/archive/digits.crate.zip"} <= set(links)
    assert all((results / link).is_file() for link in links)
    assert write_index(results)[0].read_text() == text, "not the same twice"


def test_what_is_broken_is_listed_with_the_reason(copy: Path) -> None:
    (copy / "digits" / "comparison" / "comparison.json").write_text('{"half": ')
    (copy / "broken-contract" / "experiment.yaml").write_text("name: [")
    (copy / "unfinished" / "experiment.yaml").unlink()
    found = listed(copy)
    assert {entry.state for entry in found.values()} == {"failed"}
    assert found["digits"].told.startswith("comparison/comparison.json: ")
    assert found["broken-contract"].told.startswith("experiment.yaml: is not a resolved experiment")
    assert found["unfinished"].told.startswith("experiment.yaml: no resolved experiment")


def test_records_that_cannot_be_read_do_not_stop_it(copy: Path) -> None:
    for number, content in enumerate(
        ["", "[]", '{"finished": 3}', "\x00", '{"finished": "2030-01-01T00:00:00Z"}']
    ):
        (copy / "unfinished" / "runs" / "mlp" / f"seed-{number}" / "train" / "record.json").write_text(
            content
        )
    assert listed(copy)["unfinished"].last == "2030-01-01 00:00"
    names = [entry.name for entry in write_index(copy)[1]]
    assert names == ["unfinished", "broken-contract", "digits"], "the last first"


def test_what_else_lies_there_is_left_out(copy: Path) -> None:
    (copy / "notes.txt").write_text("")
    (copy / "plots").mkdir()
    (copy / ".snakemake" / "runs").mkdir(parents=True)
    (copy / "gone").symlink_to(copy / "nowhere")
    assert set(listed(copy)) == {"digits", "broken-contract", "unfinished"}


def test_odd_names(copy: Path) -> None:
    odd = os.fsdecode(b"a <b> 100% #1 \xff")
    (copy / "digits").rename(copy / odd)
    path, entries = write_index(copy)
    assert "a <b> 100% #1 \ufffd" in {entry.name for entry in entries}
    page = Page(path.read_text())
    assert "b" not in [tag for tag in page.tags if tag == "b"][1:], "only the page's own"
    assert "a%20%3Cb%3E%20100%25%20%231%20%FF/report/index.html" in page.links


def test_an_empty_folder_has_a_page_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["index", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/index.html: no experiments\n"
    assert "No experiments here yet" in (tmp_path / "index.html").read_text()


def test_the_command_says_what_it_wrote_and_what_it_refuses(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copy.parent)
    assert cli.main(["index"]) == 0
    assert capsys.readouterr().out == "results/index.html: 1 completed, 1 unfinished, 1 violated\n"
    assert cli.main(["index", "nowhere"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert cli.main(["index", "results/digits"]) == 2
    assert (
        "results/digits: is one experiment; write the folder that holds it: assay index results"
        in capsys.readouterr().err
    )
    (copy / "index.html").unlink()
    (copy / "index.html").mkdir()
    assert cli.main(["index"]) == 2
    assert "no index was written" in capsys.readouterr().err


def test_a_comparison_without_metrics_or_of_another_version_is_no_crash(copy: Path) -> None:
    path = copy / "digits" / "comparison" / "comparison.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"metrics": []}))
    assert listed(copy)["digits"].answers == []
    path.write_text(json.dumps(content | {"schema_version": 99}))
    assert listed(copy)["digits"].state == "failed"
