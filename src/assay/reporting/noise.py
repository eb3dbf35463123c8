"""The table of the noise floor."""

from assay.comparison.floor import Quantity
from assay.comparison.floor_wording import quantity_note, quantity_texts
from assay.comparison.wording import floor_text
from assay.reporting.numbers import NOTHING, counted, p_value
from assay.reporting.read import Results
from assay.reporting.table import Column, Kind, Raw, Table

_TITLES: list[tuple[str, Kind]] = [
    ("Number", "text"),
    ("Pairs", "number"),
    ("Differs by", "number"),
    ("p", "number"),
    ("Pairs that differ", "number"),
    ("Noise floor", "number"),
    ("Between other seeds", "number"),
    ("Note", "text"),
]


def noise(results: Results) -> Table:
    """What an arm shows against itself, of every recorded number; no rows where the experiment does not ask."""
    found = [] if results.noise is None else results.noise.quantities
    columns = [Column(*title) for title in _TITLES]
    return Table("noise", "Noise floor", columns, [*map(_row, found)], [*map(_data, found)])


def floor_cell(scale: str, unit: str, value: float | None) -> str:
    return "none" if value is None else _short(floor_text(scale, unit, value))


def _short(text: str) -> str:
    return text.replace("percentage points", "pp")


def _row(one: Quantity) -> list[str]:
    change, floor = map(_short, quantity_texts(one))
    other = one.other_seeds
    return [
        one.title[:1].upper() + one.title[1:],
        counted(one.pairs, one.kind),
        change or NOTHING,
        NOTHING if one.p is None else p_value(one.p),
        NOTHING if one.p is None else str(one.differing),
        floor,
        NOTHING if other is None else floor_cell(one.scale, one.unit, other),
        quantity_note(one),
    ]


def _data(one: Quantity) -> dict[str, Raw]:
    ends = one.interval
    return {
        "quantity": one.name,
        "kind": one.kind,
        "scale": one.scale,
        "unit": "" if one.scale == "ratio" else one.unit,
        "floor": one.floor,
        "reason": one.reason,
        "pairs": one.pairs,
        "differing": one.differing,
        "estimate": one.estimate,
        "low": None if ends is None else ends.low,
        "high": None if ends is None else ends.high,
        "p": one.p,
        "told_apart": one.told_apart,
        "other_seeds": one.other_seeds,
    }
