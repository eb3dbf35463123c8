"""Sentences whose every number says where it stands in the records, so that anyone can look it up or compute it again."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.reporting.table import Column, Table


@dataclass(frozen=True)
class Number:
    """A number as shown. `file` is a pattern below the results' folder, `field` dotted, `*` for every key or item."""

    text: str
    file: str
    field: str
    how: str = "value"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Quote:
    """A name, version or digest that stands in the records as shown, or begins so."""

    text: str
    file: str
    field: str

    def __str__(self) -> str:
        return self.text


Part = str | Number | Quote
Sentences = Sequence[Part]


def text_of(parts: Sentences) -> str:
    return "".join(map(str, parts))


def listed(items: Sequence[Sentences]) -> list[Part]:
    """`a, b and c`."""
    found: list[Part] = []
    for place, item in enumerate(items):
        if place:
            found.append(" and " if place == len(items) - 1 else ", ")
        found += item
    return found


def statements(paragraphs: Sequence[Sentences]) -> Table:
    """Where each number and name of the paragraphs comes from."""
    columns = [Column("In the text"), Column("File", "code"), Column("Field", "code"), Column("How")]
    parts = [part for paragraph in paragraphs for part in paragraph if not isinstance(part, str)]
    rows = [
        [one.text, one.file, one.field, one.how if isinstance(one, Number) else "as written"] for one in parts
    ]
    return Table("statements", "Numbers of methods and limitations", columns, rows)


# --- computing them again -------------------------------------------------------------------------------


def _size(value: Any) -> float:
    return len(value) if isinstance(value, list | dict) else float(value)


def _one(values: list[Any]) -> Any:
    distinct = {json.dumps(value, sort_keys=True) for value in values}
    if len(distinct) != 1:
        raise ValueError(f"{len(distinct)} different values where one was expected")
    return values[0]


HOW: dict[str, Callable[[list[Any]], float]] = {
    "value": lambda values: float(_one(values)),
    "percent": lambda values: 100 * float(_one(values)),
    "count": len,
    "items": lambda values: _size(_one(values)),
    "product": lambda values: math.prod(map(_size, values)),
    "smallest p": lambda values: 2.0 ** (1 - _size(_one(values))),
}
"""How a number follows from the values of its field. Beside these, `count of WORD` is how many of them say WORD, and `one of` is any of them."""


def recomputed(folder: Path, number: Number) -> float:
    """From the files alone. Raises: ValueError where the field has no or several values and one is needed."""
    found = values(folder, number.file, number.field)
    if number.how.startswith("count of "):
        word = number.how.removeprefix("count of ")
        return sum(str(value).lower() == word for value in found)
    if not found:
        raise ValueError(f"{number.file}: no {number.field}")
    return HOW[number.how](found)


def stands(folder: Path, part: Number | Quote) -> bool:
    """Whether the records say what is shown: a number to its last digit, a quotation from its first letter.

    A quotation of a field that holds keys is one of them.
    """
    if isinstance(part, Quote):
        found = values(folder, part.file, part.field)
        return any(
            part.text in one if isinstance(one, dict) else str(one).startswith(part.text) for one in found
        )
    shown = part.text.replace(",", "").replace("\N{MINUS SIGN}", "-")
    decimals = len(shown.partition(".")[2]) if "e" not in shown else 0
    found = values(folder, part.file, part.field) if part.how == "one of" else [recomputed(folder, part)]
    return any(
        abs(float(shown) - one) <= (1e-5 * abs(one) if "e" in shown else 0.5 * 10.0**-decimals + 1e-9)
        for one in found
    )


def values(folder: Path, file: str, field: str) -> list[Any]:
    """Of each field (several: separated by spaces) in each file that fits; null is no value."""
    found: list[Any] = []
    for path in sorted(folder.glob(file)):
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".yaml":
            import yaml

            tree = yaml.safe_load(content)
        else:
            tree = json.loads(content)
        for one in field.split(" "):
            found += [value for value in _inside(tree, one.split(".")) if value is not None]
    return found


def _inside(tree: Any, keys: Sequence[str]) -> Iterator[Any]:
    if not keys:
        yield tree
        return
    first, *rest = keys
    if first == "*":
        inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
        for value in inner:
            yield from _inside(value, rest)
    elif isinstance(tree, dict) and first in tree:
        yield from _inside(tree[first], rest)
