"""The report's LaTeX in real pdfLaTeX: every table, every figure and the paragraphs, in one document, whatever users wrote."""

import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "reporting"))

from made_results import ARMS, Made

from assay.records import Record
from assay.reporting import latex
from assay.reporting.run import report
from assay.reporting.table import Column, Table

PDFLATEX = shutil.which("pdflatex")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        PDFLATEX is None, reason="pdflatex is not installed: apt-get install texlive-latex-recommended"
    ),
]

NASTY = r"""50% & more_than {that} #1 ~ ^ \ $5 <a> |b| "c" `d' [e] *f --- µ × ≤ ≥ ° ± – — … é ü ß ł ą đ ő ç ñ Å ﬁ ½ € 中 😀 Ω π −3"""


def compiled(folder: Path) -> str:
    """The log of the second of two runs. Raises where pdfLaTeX does not accept the document."""
    assert PDFLATEX is not None
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    for _ in range(2):
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300
        )
        assert done.returncode == 0, done.stdout[-3000:]
    return (folder / "report.log").read_text(errors="replace")


def complaints(log: str) -> list[str]:
    """What a reader of the PDF would see: text beyond its margin by more than a point, and what is undefined."""
    wide = re.findall(r"Overfull \\[hv]box \(([\d.]+)pt", log)
    found = [f"{points} pt too wide" for points in wide if float(points) > 1]
    return found + [line for line in log.splitlines() if "undefined" in line or "Missing character" in line]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("latex")

    def hostile(record: Record) -> None:
        record.environment.host = NASTY
        record.warnings = [NASTY]
        record.environment.packages = {f"package-{index}_{index}": "1.2.3+cu128" for index in range(120)}

    names = [*ARMS, *(f"a_long-name-of-an-arm__that-goes-on-and-on-until-sixty-chars-{i}" for i in range(6))]
    made = {
        "plain": Made(folder / "plain", noise=True),
        "hostile": Made(
            folder / "hostile",
            question=NASTY,
            arms={name: ARMS["cnn" if "-" in name else name] for name in names},
            outcomes={("cnn", 1): "diverged"},
            blocks=2,
            change=hostile,
            names=[NASTY[at : at + 12] for at in range(0, 120, 12)],
        ),
    }
    for one in made.values():
        report(results=one.make(), output=one.results / "report")
    return {name: one.results / "report" for name, one in made.items()}


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_all_of_it_compiles_at_once_and_nothing_is_wider_than_the_page(
    reports: dict[str, Path], name: str
) -> None:
    folder = reports[name]
    log = compiled(folder)
    assert complaints(log) == []
    text = (folder / "report.tex").read_text()
    for kind, files in (("tables", "*.tex"), ("figures", "*.pdf")):
        for path in (folder / kind).glob(files):
            assert f"{kind}/{path.stem}" in text, path
            assert f"{kind}/{path.stem}" in log.replace("\n", ""), path


def test_a_table_that_is_too_wide_would_be_seen(reports: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "report"
    shutil.copytree(reports["plain"], folder)
    wide = "\\begin{tabular}{l}" + "word " * 60 + "\\end{tabular}"
    (folder / "tables" / "metrics.tex").write_text(wide)
    assert complaints(compiled(folder)) != []


def test_every_character_is_accepted_or_told_by_its_number(tmp_path: Path) -> None:
    """All of Latin, Greek and punctuation, and some of everything else; NFD as macOS writes names."""
    characters = [
        chr(code)
        for code in (
            *range(1, 0x250),
            *range(0x300, 0x530),
            *range(0x1E00, 0x2100),
            *range(0x2100, 0x2300),
            0x4E2D,
            0x1F600,
        )
    ]
    cells = ["".join(characters[at : at + 6]) for at in range(0, len(characters), 6)]
    table = Table(
        "all", "All", [Column("A"), Column("B", "code")], [[f"x{cell}y", "a\u0308o\u030a"] for cell in cells]
    )
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "all.tex").write_text(latex.tabular(table))
    (tmp_path / "methods.tex").write_text(latex.escape("µ × ≤ °"))
    (tmp_path / "report.tex").write_text(latex.document("t", "h", [table], []))
    assert "Missing character" not in compiled(tmp_path)


@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_figures_are_as_wide_as_a_column_with_embedded_truetype(reports: dict[str, Path], name: str) -> None:
    figures = sorted((reports[name] / "figures").glob("*.pdf"))
    assert len(figures) >= 8
    for path in figures:
        content = path.read_bytes()
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", content)
        assert box is not None, path
        assert float(box.group(1)) == pytest.approx(3.3 * 72, abs=0.5), path
        assert float(box.group(2)) < 9.5 * 72, path
        assert (
            b"/Type3" not in content and b"/Subtype /CIDFontType2" in content and b"/FontFile2" in content
        ), path


def test_no_font_of_the_document_is_a_bitmap(reports: dict[str, Path]) -> None:
    compiled(reports["plain"])
    content = (reports["plain"] / "report.pdf").read_bytes()
    parts = [content]
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, flags=re.DOTALL):
        try:
            parts.append(zlib.decompress(stream))
        except zlib.error:
            continue
    kinds = {
        kind
        for part in parts
        for kind in re.findall(rb"/Subtype\s*/(Type\d\w*|TrueType|CIDFontType\d)", part)
    }
    assert kinds and b"Type3" not in kinds, kinds
