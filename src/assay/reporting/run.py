"""The report: tables, figures and one page, from the comparison and the records."""

import shutil
from pathlib import Path

from assay.records import write_atomically
from assay.reporting import latex, methods
from assay.reporting.html import Image, page
from assay.reporting.read import Results, load
from assay.reporting.table import Table
from assay.reporting.tables import tables


def report(*, results: Path, output: Path) -> None:
    """Write `index.html`, `tables/*.{csv,md,tex}`, `figures/*.{svg,pdf,png}`, `methods.{md,tex}`, `report.tex` into `output`.

    A function of the comparison and the records alone: the same records give the same bytes.

    Raises: RecordError, ReportError naming the file and what is wrong with it.
    """
    found = load(results)
    how, limits = methods.methods(found), methods.limitations(found)
    made = tables(found)
    write_tables(made, _emptied(output / "tables"))
    images = _write_figures(found, _emptied(output / "figures"))
    _write(output / "methods.md", methods.markdown(how, limits))
    _write(output / "methods.tex", methods.latex(how, limits))
    drawn = [(image.name, image.title, image.caption) for image in images]
    whole = latex.document(
        found.comparison.question or found.comparison.experiment, found.comparison.headline, made, drawn
    )
    _write(output / "report.tex", whole)
    _write(output / "index.html", page(found, made, images))


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode())


def _emptied(folder: Path) -> Path:
    """Files of an earlier report, which had other arms, must not stay among those of this one."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def write_tables(made: list[Table], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for table in made:
        (folder / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8")
        (folder / f"{table.name}.md").write_text(table.markdown(), encoding="utf-8")
        (folder / f"{table.name}.tex").write_text(latex.tabular(table), encoding="utf-8")


def _write_figures(results: Results, folder: Path) -> list[Image]:
    from assay.reporting.figures import plots
    from assay.reporting.html import inline_svg
    from assay.reporting.style import drawing
    from assay.reporting.sweep import plots as tuning
    from assay.reporting.timelines import plots as timelines

    images = []
    for plot in (*plots(), *tuning(results), *timelines(results)):
        with drawing(salt=plot.name):
            drawn = plot.draw(results)
            if drawn is None:
                continue
            figure, caption = drawn
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
            svg = folder / f"{plot.name}.svg"
            figure.savefig(svg, metadata={"Date": None, "Title": plot.title})
            figure.savefig(svg.with_suffix(".pdf"), metadata={"CreationDate": None, "Title": plot.title})
            figure.savefig(svg.with_suffix(".png"), metadata={"Title": plot.title})
        text = inline_svg(svg.read_text(encoding="utf-8"), name=plot.name, title=plot.title)
        images.append(Image(plot.name, plot.title, caption, text))
    return images
