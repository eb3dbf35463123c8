"""Columns that keep their numbers whole: where a terminal is narrow, texts give way."""

from collections.abc import Sequence

from rich.text import Text

LEAST_TEXT = 8
"""Columns that a text keeps."""


def table(
    titles: Sequence[str], rows: Sequence[Sequence[str | Text]], *, texts: Sequence[int], width: int
) -> list[Text]:
    """Titles and rows as lines. texts: the columns that hold words: to the left, and cut where there is no room."""
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    heads = [Text(title, style="bold") for title in titles]
    widths = [max(cell.cell_len for cell in column) for column in zip(heads, *cells, strict=True)]
    room = width - (len(widths) - 1) - sum(size for index, size in enumerate(widths) if index not in texts)
    for index, size in zip(texts, shared(room, [widths[index] for index in texts], LEAST_TEXT), strict=True):
        widths[index] = size
    return [_line(row, widths, texts) for row in (heads, *cells)]


def shared(room: int, wanted: Sequence[int], least: int) -> list[int]:
    """What each of several gets of `room`: what it wants, and where that is too much, the largest gives way first.

    least: what each gets in any case, if it wants so much.
    """
    given = [min(least, one) for one in wanted]
    while sum(given) < room and any(has < one for has, one in zip(given, wanted, strict=True)):
        short = [index for index, one in enumerate(wanted) if given[index] < one]
        given[min(short, key=given.__getitem__)] += 1
    return given


def _line(row: Sequence[Text], widths: Sequence[int], texts: Sequence[int]) -> Text:
    line = Text(no_wrap=True, overflow="crop")
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        fitted = cell.copy()
        if index in texts:
            fitted.truncate(width, overflow="ellipsis", pad=True)
        else:
            fitted.pad_left(width - cell.cell_len)
        line.append_text(fitted)
        if index < len(widths) - 1:
            line.append(" ")
    line.rstrip()
    return line
