"""Every number of every table and figure, computed again from the records and compared."""

import importlib.metadata
import re
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from math import isclose
from pathlib import Path

from assay.archive.calls_for import COMPARISON
from assay.archive.zipped import Problem
from assay.comparison.floor import FILE, FOLDER, measure
from assay.comparison.run import compare
from assay.config.schema import Experiment
from assay.reporting.run import report

ROUNDING = 1e-9
"""Relative difference of numbers that counts as rounding."""
TOLERANCE = 0.02
"""Points (1/72 inch) by which drawn places may differ where another matplotlib drew them."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_DRAWN = re.compile(r'\b(?:d|x|y|points|transform)="([^"]*)"')
_PICTURES = re.compile(rb'<ul class="examples">\n.*?</ul>\n', re.DOTALL)
_SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)


@dataclass
class Recomputed:
    """What was found when it was computed again."""

    problems: list[Problem] = field(default_factory=list)
    compared: int = 0
    """Files that came out again byte for byte."""
    close: int = 0
    """Files in which numbers differ by rounding alone: another processor or library adds in another order."""
    by_places: int = 0
    """Figures that another matplotlib drew, compared by what is drawn where."""
    uncompared: list[str] = field(default_factory=list)
    """Files of figures in formats that only their own matplotlib writes again."""


def recompute(experiment: Experiment, results: Path, name: str, drawn_with: str | None) -> Recomputed:
    """The comparison and the report anew, in another folder, from the records.

    name: of the folder of results, as problems tell it. drawn_with: what drew the archived figures; null: not known.
    """
    found = Recomputed()
    with tempfile.TemporaryDirectory(prefix="assay-verify-") as folder:
        again = Path(folder) / "results"
        again.mkdir()
        for one in sorted(results.iterdir()):
            if one.name not in ("comparison", "report", "archive"):
                (again / one.name).symlink_to(one.resolve())
        if not _floor(experiment, results, again, name, found):
            return found
        try:
            compare(experiment_file=results / "experiment.yaml", results=results, output=again / "comparison")
        except Exception as error:  # whatever a stranger put into the files
            found.problems.append(
                Problem(f"{name}/comparison", f"cannot be computed again: {_told(error, results)}")
            )
            return found
        for file in COMPARISON:
            _compare(results / file, again / file, f"{name}/{file}", found)
        try:
            with redirect_stderr(StringIO()):
                report(results=again, output=again / "report")
        except Exception as error:  # whatever a stranger put into the files
            found.problems.append(
                Problem(f"{name}/report", f"cannot be written again: {_told(error, results, again)}")
            )
            return found
        _report(
            results / "report", again / "report", f"{name}/report", drawn_with in (None, drawing()), found
        )
    return found


def drawing() -> str:
    """What draws figures: another one draws the same numbers in other bytes."""
    names = ("matplotlib", "numpy", "pillow")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _told(error: Exception, *folders: Path) -> str:
    text = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
    for folder in folders:
        text = text.replace(f"{folder}/", "")
    return re.split("; (?:remove it|put back)", text)[0]


def _floor(experiment: Experiment, results: Path, again: Path, name: str, found: Recomputed) -> bool:
    """The noise floor, where the experiment has one. Returns whether the comparison can be computed."""
    archived = results / FOLDER / FILE
    if not experiment.noise.enabled or not archived.is_file():
        return True
    try:
        measure(experiment, results).floor.write(again / "floor-again.json")
    except Exception as error:  # whatever a stranger put into the files
        found.problems.append(
            Problem(f"{name}/{FOLDER}", f"cannot be computed again: {_told(error, results)}")
        )
        return False
    _compare(archived, again / "floor-again.json", f"{name}/{FOLDER}/{FILE}", found)
    (again / "floor-again.json").unlink()
    return True


def _compare(archived: Path, again: Path, name: str, found: Recomputed) -> None:
    if not archived.is_file():
        return  # what is missing is told by name
    before, after = _without_pictures(archived.read_bytes()), _without_pictures(again.read_bytes())
    if before == after:
        found.compared += 1
    elif _close(before, after):
        found.close += 1
    else:
        found.problems.append(
            Problem(name, f"is not what comes out of the records: {_first_difference(before, after)}")
        )


def _without_pictures(content: bytes) -> bytes:
    """A page without its pictures of test examples: the data that they are drawn from are in no archive. Which examples they
    are, and what they were taken for, is in a table too."""
    return _PICTURES.sub(b"", content)


def _close(before: bytes, after: bytes) -> bool:
    """The same text but for numbers that differ by rounding."""
    try:
        one, other = before.decode(), after.decode()
    except UnicodeDecodeError:
        return False
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(a == b or isclose(float(a), float(b), rel_tol=ROUNDING, abs_tol=1e-12) for a, b in pairs)


def _first_difference(before: bytes, after: bytes) -> str:
    """The first line that differs, short."""
    one, other = (content.decode("utf-8", "replace").splitlines() for content in (before, after))
    for number, (a, b) in enumerate(zip(one, other, strict=False), 1):
        if a != b:
            start = max(
                0, next(i for i, (x, y) in enumerate(zip(a + "\0", b + "\1", strict=False)) if x != y) - 20
            )
            shown, computed = (line[start : start + 60].strip() for line in (a, b))
            return f"line {number} has {shown!r}, computed {computed!r}"
    return f"it has {len(one)} lines, computed {len(other)}"


def _report(archived: Path, again: Path, name: str, same_drawing: bool, found: Recomputed) -> None:
    files = {path.relative_to(folder).as_posix() for folder in (archived, again) for path in _files(folder)}
    for file in sorted(files):
        before, after, place = archived / file, again / file, f"{name}/{file}"
        if not before.is_file():
            found.problems.append(Problem(place, "is missing: it comes out of the records"))
        elif not after.is_file():
            found.problems.append(Problem(place, "does not come out of the records"))
        elif before.suffix in (".png", ".pdf") and (found.close or not same_drawing):
            _picture(before, after, place, found)
        elif same_drawing or before.suffix in (".csv", ".md", ".tex"):
            _compare(before, after, place, found)
        elif before.suffix == ".svg":
            found.by_places += 1
            _drawn(before.read_text("utf-8", "replace"), after.read_text("utf-8"), place, found)
        elif before.suffix == ".html":
            one, other = (
                _without_pictures(path.read_bytes()).decode("utf-8", "replace") for path in (before, after)
            )
            _page(one, other, place, found)
        else:
            found.problems.append(Problem(place, "is no file of a report"))


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _picture(before: Path, after: Path, place: str, found: Recomputed) -> None:
    if before.read_bytes() == after.read_bytes():
        found.compared += 1
    else:
        found.uncompared.append(place)


def _page(before: str, after: str, place: str, found: Recomputed) -> None:
    """All but the figures to the letter, and those by what is drawn where."""
    if _SVG.sub("", before) != _SVG.sub("", after):
        difference = _first_difference(_SVG.sub("", before).encode(), _SVG.sub("", after).encode())
        found.problems.append(Problem(place, f"is not what comes out of the records: {difference}"))
        return
    for one, other in zip(_SVG.findall(before), _SVG.findall(after), strict=False):
        _drawn(one, other, place, found)


def _drawn(before: str, after: str, place: str, found: Recomputed) -> None:
    """Two drawings by two versions of a library: the same shapes at the same places."""
    one, other = _places(before), _places(after)
    if len(one) != len(other):
        found.problems.append(
            Problem(
                place, f"shows other data than the records: {len(one)} drawn numbers, computed {len(other)}"
            )
        )
    elif any(abs(a - b) > TOLERANCE for a, b in zip(one, other, strict=True)):
        found.problems.append(
            Problem(place, "shows other data than the records: something is drawn at another place")
        )


def _places(svg: str) -> list[float]:
    """Numbers of all shapes, without those of letters, which are defined once under names of their own."""
    svg = re.sub(r'<defs>.*?</defs>|<g id="text_\d+">.*?</g>\s*</g>', "", svg, flags=re.DOTALL)
    return [float(number) for text in _DRAWN.findall(svg) for number in _NUMBER.findall(text)]
