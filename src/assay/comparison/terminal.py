"""The verdict in the terminal: plain text when piped, colours where a terminal reads it."""

from pathlib import Path
from typing import TYPE_CHECKING

from assay.comparison.floor import FILE, FOLDER, NoiseFloor
from assay.comparison.floor_wording import measured_text, quantity_note, quantity_texts
from assay.comparison.model import ArmSummary, Comparison, Contrast, MetricResult
from assay.comparison.wording import (
    change_texts,
    decimals_for,
    floor_text,
    p_text,
    posterior_sentence,
    ranking_sentence,
    unit_of_change,
    value_text,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {"better": "bold green", "worse": "bold red", "equivalent": "bold cyan", "inconclusive": "yellow"}
_ROWS = 12
_LINES = 6
_WIDE = 100
"""Columns from which on the table has room for intervals."""


def show(folder: Path, *, width: int | None = None) -> None:
    """Print the verdict of an experiment's folder. Raises: RecordError where there is none."""
    from rich.console import Console

    comparison = Comparison.read(folder / "comparison" / "comparison.json")
    render(comparison, _place(folder), Console(width=width, highlight=False, soft_wrap=False))


def text(folder: Path, *, width: int = 100) -> str:
    """The same as plain text."""
    import io

    from rich.console import Console

    comparison = Comparison.read(folder / "comparison" / "comparison.json")
    file = io.StringIO()
    render(comparison, _place(folder), Console(file=file, width=width, highlight=False, no_color=True))
    return file.getvalue()


def render(comparison: Comparison, place: Path | None, console: "Console") -> None:
    """place: the file that holds more, if there is one."""
    from rich.text import Text

    console.print()
    first = comparison.metrics[0].contrasts[0]
    style = "bold red" if not comparison.valid else STYLES[first.verdict]
    console.print(Text(comparison.headline, style=style))
    console.print()
    console.print(_table(comparison, intervals=console.width >= _WIDE))
    if floors := [_floor(metric) for metric in comparison.metrics if metric.floor is not None]:
        console.print(f"Noise floor: {', '.join(floors)}", highlight=False)
    for line in (*_ranks(comparison), *_believed(comparison)[:_LINES], *_shared(comparison)[:_LINES]):
        console.print(Text(line))
    more = "report" if comparison.contract == "checked" else "JSON"
    # A table of many arms is a report's; the terminal tells which were left out.
    rows = len(comparison.metrics) * (len(comparison.arms) - 1)
    if rows > _ROWS:
        console.print(f"{rows - _ROWS} more rows are in the {more}.")
    for title, lines in (
        ("Other pairs", [one.sentence for one in comparison.metrics[0].between]),
        ("Undeclared differences", comparison.violations),
        ("What did not complete or does not count", _failures(comparison)),
        ("Warnings", comparison.warnings),
    ):
        if lines:
            console.print(Text(f"\n{title}", style="bold yellow"))
            for line in lines[:_LINES]:
                console.print(Text(f"  - {line}"))
            if len(lines) > _LINES:
                console.print(f"  - and {len(lines) - _LINES} more, in the {more}")
    if place is not None:
        kind = "Report" if place.suffix == ".html" else "Details"
        console.print(Text(f"\n{kind}: {place}\n"), soft_wrap=True)


def _place(folder: Path) -> Path:
    report = folder / "report" / "index.html"
    return report if report.exists() else folder / "comparison" / "comparison.json"


def show_noise(folder: Path, *, width: int | None = None) -> None:
    """Print the noise floor of an experiment's folder. Raises: RecordError where there is none."""
    from rich.console import Console

    render_noise(NoiseFloor.read(folder / FOLDER / FILE), folder, Console(width=width, highlight=False))


def render_noise(found: NoiseFloor, folder: Path, console: "Console") -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console.print()
    console.print(Text(f"Noise floor of {found.experiment}: {found.arm} against itself", style="bold"))
    console.print(Text(measured_text(found)))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("number", no_wrap=True)
    for column in ("pairs", "it differs by", "floor"):
        table.add_column(column, justify="right", no_wrap=True)
    notes: dict[str, list[str]] = {}
    warned = {quantity_note(one) for one in found.quantities if one.reason or one.told_apart}
    for quantity in found.quantities:
        cells = (text.replace("percentage points", "pp") for text in quantity_texts(quantity))
        table.add_row(quantity.name, str(quantity.pairs), *cells)
        notes.setdefault(quantity_note(quantity), []).append(quantity.name)
    console.print(table)
    for note, names in notes.items():
        if note:
            console.print(Text(f"{', '.join(names)}: {note}", style="yellow" if note in warned else ""))
    console.print(Text(f"Details: {folder / FOLDER / FILE}\n"), soft_wrap=True)


def _table(comparison: Comparison, *, intervals: bool) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    one = len(comparison.arms) == 2
    arm = comparison.metrics[0].contrasts[0].arm if one else "arm"
    table.add_column("metric", no_wrap=True)
    if not one:
        table.add_column("arm")
    numbers = [comparison.baseline, arm if one else "value", "change"]
    numbers += [f"{100 * comparison.confidence:g}% interval"] if intervals else []
    for column in (*numbers, "p"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    rows = [(metric, contrast) for metric in comparison.metrics for contrast in metric.contrasts]
    for metric, contrast in rows[:_ROWS]:
        cells = _cells(metric, contrast)
        if not intervals:
            del cells[_INTERVAL]
        cells = [metric.name, *([] if one else [contrast.arm]), *cells]
        word = contrast.verdict if comparison.valid else "invalid"
        table.add_row(*cells, Text(word, style=STYLES.get(word, "bold red")))
    return table


_INTERVAL = 3
"""Its place among the cells."""


def _cells(metric: MetricResult, contrast: Contrast) -> list[str]:
    baseline, arm = metric.arms[contrast.baseline], metric.arms[contrast.arm]
    if contrast.estimate is None:
        return [_level(metric, baseline), _level(metric, arm), "", "", ""]
    interval = contrast.interval
    numbers = [contrast.estimate]
    if interval and interval.low is not None and interval.high is not None:
        numbers += [interval.low, interval.high]
    decimals = decimals_for(metric, numbers) if metric.scale == "difference" else None
    texts = change_texts(metric, numbers)
    unit = unit_of_change(metric).replace("percentage points", "pp").removesuffix(" nats")
    return [
        _level(metric, baseline, decimals),
        _level(metric, arm, decimals),
        texts[0] + unit,
        f"{texts[1]} to {texts[2]}" if len(texts) == 3 else "",
        "exact" if metric.pairing == "exact" else _p(contrast),
    ]


def _floor(metric: MetricResult) -> str:
    value = None if metric.floor is None else metric.floor.value
    size = "none" if value is None else floor_text(metric.scale, metric.unit, value)
    return f"{metric.name} {size.replace('percentage points', 'pp')}"


def _ranks(comparison: Comparison) -> list[str]:
    """Of the headline's metric, where there are more than two arms."""
    metric = comparison.metrics[0]
    return [] if metric.ranking is None or not metric.ranking.arms else [ranking_sentence(metric)]


def _believed(comparison: Comparison) -> list[str]:
    metric = comparison.metrics[0]
    return [text for one in metric.contrasts if (text := posterior_sentence(metric, one))]


def _shared(comparison: Comparison) -> list[str]:
    """Of the headline's metric, where arms were scored on the same test examples."""
    found = [(one.arm, one.shared_examples) for one in comparison.metrics[0].contrasts]
    several = len(found) > 1
    return [
        f"{f'{arm}: ' if several else ''}{shared.sentence}"
        for arm, shared in found
        if shared is not None and shared.sentence
    ]


def _p(contrast: Contrast) -> str:
    if contrast.test is None:
        return ""
    return p_text(contrast.test.p_adjusted).removeprefix("p ").removeprefix("= ")


def _level(metric: MetricResult, summary: ArmSummary, decimals: int | None = None) -> str:
    if summary.centre is None:
        return "not measured" if summary.n == 0 else "?"
    return value_text(summary.centre, metric.unit, decimals).replace(" samples/s", "/s").removesuffix(" FLOP")


_ASSUMED = "; the arm's values are means over the rest, and it is not compared on them"


def _failures(comparison: Comparison) -> list[str]:
    lines = []
    for arm, outcomes in comparison.outcomes.items():
        for counts, kind in ((outcomes.runs, "seeds"), (outcomes.profiles, "blocks")):
            total = sum(counts.values())
            lines += [
                f"{arm}: {outcome.replace('_', ' ')} at {count} of {total} {kind}"
                f"{_ASSUMED if kind == 'seeds' else ''}"
                for outcome, count in counts.items()
                if outcome != "completed"
            ]
    return lines
