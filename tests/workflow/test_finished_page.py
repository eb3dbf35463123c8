"""What a finished experiment shows: the page, and Snakemake's own report."""

import json

import pytest
from project import Project

pytestmark = pytest.mark.xdist_group("finished")


def test_snakemakes_own_report_has_the_page_and_its_captions(finished: Project) -> None:
    finished.run("--report", "workflow.html")
    page = (finished.folder / "workflow.html").read_text()
    assert "The whole report in one page" in page, "the caption of the page"
    assert "Figures of the comparison" in page


def test_the_page_shows_the_numbers_of_the_comparison(finished: Project) -> None:
    comparison = json.loads((finished.results / "comparison/comparison.json").read_text())
    page = (finished.results / "report/index.html").read_text()
    assert comparison["valid"]
    of_the_machine = (
        "other guests of the host",
        "held CPU time back",
        "cores: ",
        "wait for a CPU",
        "profile.width",
    )
    assert [text for text in comparison["warnings"] if not any(word in text for word in of_the_machine)] == []
    assert "inconclusive" in page, "two seeds cannot decide"
    assert "Ran on the host, not in a pinned image" in page
    for kind in ("svg", "pdf", "png"):
        assert list((finished.results / "report/figures").glob(f"*.{kind}"))
    for kind in ("csv", "md", "tex"):
        assert list((finished.results / "report/tables").glob(f"*.{kind}"))
