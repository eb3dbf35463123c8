"""Results that Assay did not produce: a table in long form, with columns arm, seed, metric and value.

One row is one number of one run. `.csv` and `.tsv` are read as text, so that mistakes are told by line; `.parquet`
by its columns. A row without a value is a run that has none: its pair is missing, and the metric `inconclusive`.
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COLUMNS = ("arm", "seed", "metric", "value")
MOST_ROWS = 1_000_000
_MOST_PROBLEMS = 10
_MISSING = frozenset(("", "nan", "na", "n/a", "null", "none"))
_WHOLE = re.compile(r"^\d{1,15}(?:\.0*)?$")
_NUMBER = re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$")
_COMMA = re.compile(r"^[-+]?\d*,\d+$")
_LONGEST_NAME = 200


class TableError(ValueError):
    """Every mistake of a table that was found, a line each, or the first ten."""


@dataclass
class Table:
    """The numbers of a table by run and metric; null where its value is left empty."""

    path: Path
    arms: list[str] = field(default_factory=list)
    """In the order in which they first appear, as are metrics; seeds ascend."""
    metrics: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    values: dict[tuple[str, int], dict[str, float | None]] = field(default_factory=dict)
    places: dict[tuple[str, int, str], int] = field(default_factory=dict)
    """Line of each value."""
    ignored: list[str] = field(default_factory=list)
    """Columns that were not read."""

    def place(self, line: int) -> str:
        return f"{self.path}:{line}" if self.path.suffix != ".parquet" else f"{self.path}, row {line}"


def read_table(path: Path) -> Table:
    """Raises: TableError naming file, line and column, what is wrong and what to write instead."""
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix not in readers:
        raise TableError(f"{path}: the name tells no format; end it with .csv, .tsv or .parquet")
    table = Table(path)
    try:
        _fill(table, readers[path.suffix](table))
    except FileNotFoundError:
        raise TableError(f"{path}: no such file; give the path of a table") from None
    except IsADirectoryError:
        raise TableError(f"{path}: is a folder; give the path of a table") from None
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not table.values:
        raise TableError(f"{path}: has no rows; write one for each arm, seed and metric")
    table.seeds.sort()
    return table


Row = tuple[int, list[Any]]
"""Line, and its cells in the order of `COLUMNS`."""


def _fill(table: Table, rows: Iterable[Row]) -> None:
    problems: list[str] = []
    arms: dict[str, None] = {}
    metrics: dict[str, None] = {}
    seeds: set[int] = set()
    for count, (line, cells) in enumerate(rows):
        if count == MOST_ROWS:
            raise TableError(f"{table.path}: more than {MOST_ROWS:,} rows; leave only those to compare")
        try:
            arm, metric = _name(cells[0], "arm"), _name(cells[2], "metric")
            seed, value = _seed(cells[1]), _value(cells[3])
            first = table.places.setdefault((arm, seed, metric), line)
            if first != line:
                raise ValueError(
                    f"{metric} of {arm} at seed {seed} stands twice, first on line {first}; keep one, "
                    "or number repeated runs as seeds of their own"
                )
        except ValueError as error:
            problems.append(f"{table.place(line)}: {error}")
            if len(problems) == _MOST_PROBLEMS:
                break
            continue
        arms[arm] = metrics[metric] = None
        seeds.add(seed)
        table.values.setdefault((arm, seed), {})[metric] = value
    if problems:
        raise TableError("\n".join(problems))
    table.arms, table.metrics, table.seeds = list(arms), list(metrics), list(seeds)


# --- cells ----------------------------------------------------------------------------------------------


def _name(cell: Any, column: str) -> str:
    text = "" if cell is None else str(cell).strip()
    if not text:
        raise ValueError(f"column {column}: is empty; write the {column}'s name")
    if not text.isprintable() or len(text) > _LONGEST_NAME:
        raise ValueError(
            f"column {column}: {text[:40]!r} is no name; write at most {_LONGEST_NAME} printable characters"
        )
    return text


def _seed(cell: Any) -> int:
    text = "" if cell is None else str(cell).strip()
    if not _WHOLE.match(text):
        what = f"{text[:40]!r} is not a whole number" if text else "is empty"
        raise ValueError(f"column seed: {what}; number the runs by which arms are paired, e.g. 0, 1, 2")
    return int(text.split(".")[0])


def _value(cell: Any) -> float | None:
    """Null for an empty cell or NaN, which is how other tools write that there is none."""
    text = "" if cell is None else str(cell).strip()
    if text.lower() in _MISSING:
        return None
    if _NUMBER.match(text) and math.isfinite(value := float(text)):
        return value
    if _COMMA.match(text):
        instead = f"write {text.replace(',', '.')}"
    elif text.endswith("%") and _NUMBER.match(text[:-1].strip()):
        instead = f"write {float(text[:-1]) / 100:g}"
    else:
        instead = "write e.g. 0.973, and nothing where a run has no value"
    raise ValueError(f"column value: {text[:40]!r} is not a finite number; {instead}")


# --- formats --------------------------------------------------------------------------------------------


def _csv_rows(table: Table) -> Iterator[Row]:
    path = table.path
    mark = "\t" if path.suffix == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=mark, strict=True)
        try:
            header = [cell.strip() for cell in next(reader, [])]
            places = _places(table, header, mark)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    what = f"{len(cells)} cells under {len(header)} columns"
                    comma = "; a decimal comma? write points" if len(cells) > len(header) else ""
                    raise TableError(f"{path}:{reader.line_num}: {what}; write one for each{comma}")
                yield reader.line_num, [cells[place] for place in places]
        except UnicodeDecodeError as error:
            raise TableError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
        except csv.Error as error:
            raise TableError(f"{path}:{reader.line_num}: {error}; check the quotes there") from None


def _parquet_rows(table: Table) -> Iterator[Row]:
    import polars as pl

    with table.path.open("rb"):  # the words of the operating system, where there is no such file
        pass
    try:
        lazy = pl.scan_parquet(table.path)
        header = lazy.collect_schema().names()
        _places(table, header, None)
        frame = lazy.select(COLUMNS).head(MOST_ROWS + 1).collect()
    except pl.exceptions.PolarsError as error:
        raise TableError(f"{table.path}: is no Parquet file that can be read: {error}") from None
    yield from ((line, list(cells)) for line, cells in enumerate(frame.iter_rows(), start=1))


def _places(table: Table, header: list[str], mark: str | None) -> list[int]:
    """Where each of `COLUMNS` stands."""
    if not any(header):
        raise TableError(f"{table.path}: is empty; begin with the line {','.join(COLUMNS)}")
    line = "" if mark is None else ":1"
    absent = [name for name in COLUMNS if name not in header]
    if absent and mark is not None and len(header) == 1:
        for other, name in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
            if other in header[0] and other != mark:
                wanted = "commas, and points in decimals" if mark == "," else "tabs"
                raise TableError(
                    f"{table.path}:1: columns are separated by {name}; separate them by {wanted}"
                    + (", or end the file's name with .tsv" if other == "\t" else "")
                    + (", or end the file's name with .csv" if other == "," else "")
                )
    if absent:
        raise TableError(
            f"{table.path}{line}: no column {', '.join(absent)} among {', '.join(header[:8])}; write one row for each "
            f"number, with the columns {', '.join(COLUMNS)}"
        )
    if twice := [name for name in COLUMNS if header.count(name) > 1]:
        raise TableError(f"{table.path}{line}: two columns {twice[0]}; keep one")
    table.ignored = [name for name in header if name not in COLUMNS]
    return [header.index(name) for name in COLUMNS]
