"""A table, and its files: CSV with full precision, Markdown as a person reads it; LaTeX is in `latex`."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from assay.reporting.numbers import NOTHING

Kind = Literal["text", "number", "badge", "code"]
Raw = str | int | float | bool | None


@dataclass(frozen=True)
class Column:
    title: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """`rows` are texts for people, one per column; `data` are the numbers behind them, for programs."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    data: Sequence[dict[str, Raw]] = field(default=())

    def without_empty_columns(self) -> "Table":
        """Columns in which nothing was measured say nothing: they go."""
        kept = [i for i in range(len(self.columns)) if any(row[i] not in {"", NOTHING} for row in self.rows)]
        names = [
            name for name in self._names() if any(line.get(name) not in {None, ""} for line in self.data)
        ]
        return Table(
            self.name,
            self.title,
            [self.columns[i] for i in kept],
            [[row[i] for i in kept] for row in self.rows],
            [{name: line.get(name) for name in names} for line in self.data],
        )

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for line in self.data for name in line))

    def csv(self) -> str:
        """RFC 4180 with LF; numbers at full precision, empty where there is none."""
        text = io.StringIO()
        lines: Iterable[dict[str, Raw]] = self.data
        names = self._names()
        if not self.data:
            names = [column.title for column in self.columns]
            lines = [dict(zip(names, row, strict=True)) for row in self.rows]
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return text.getvalue()

    def markdown(self) -> str:
        alignment = ["---:" if column.kind == "number" else "---" for column in self.columns]
        lines = [[column.title for column in self.columns], alignment, *self.rows]
        cells = [[_markdown(cell) if i != 1 else cell for cell in line] for i, line in enumerate(lines)]
        return "".join(f"| {' | '.join(line)} |\n" for line in cells)


_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\|`*_<>[]#"} | {"\n": " ", "\r": " "})


def _markdown(text: str) -> str:
    return text.translate(_MARKDOWN)
