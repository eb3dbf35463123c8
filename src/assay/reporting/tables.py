"""The tables of a report, and their files: CSV with full precision, Markdown and LaTeX as a person reads them."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from assay.comparison.model import Contrast, MetricResult
from assay.config.metrics import METRICS
from assay.config.schema import spec_of
from assay.reporting import samples
from assay.reporting.numbers import NOTHING, contrast, counted, interval, p_value, plain, quantity, span, summary
from assay.reporting.read import Results, Run

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
        names = [name for name in self._names() if any(line.get(name) not in {None, ""} for line in self.data)]
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

    def latex(self) -> str:
        r"""A `tabular` of booktabs, to be `\input` into a table environment."""
        alignment = "".join("r" if column.kind == "number" else "l" for column in self.columns)
        lines = [rf"% {self.title}: needs \usepackage{{booktabs}}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
        lines += [_latex_row([column.title for column in self.columns]), r"\midrule"]
        lines += [_latex_row(row) for row in self.rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\|`*_<>[]#"} | {"\n": " ", "\r": " "})
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "[": "{[}", "]": "{]}", "\n": " ", "\r": " ", "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{EN DASH}": "--", "…": r"\ldots{}", "µ": r"$\mu$",
    "\N{NO-BREAK SPACE}": "~",
}  # fmt: skip


def _markdown(text: str) -> str:
    return text.translate(_MARKDOWN)


def escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(escape_latex(cell) for cell in cells) + r" \\"


def tables(results: Results) -> list[Table]:
    """All tables that have rows, in the order of the page."""
    made = [
        metrics_by_arm(results),
        contrasts(results),
        costs(results),
        arms(results),
        runs(results),
        blocks(results),
        contract(results),
        environment(results),
        packages(results),
        sources(results),
    ]
    return [table.without_empty_columns() for table in made if table.rows]


def metrics_by_arm(results: Results) -> Table:
    """Arms by metrics: mean (geometric for costs) over replicates with its interval."""
    metrics = results.metrics
    columns = [Column("Arm"), *(Column(_heading(metric), "number") for metric in metrics)]
    rows, data = [], []
    for arm in results.arms:
        row = [arm]
        for metric in metrics:
            found = metric.arms[arm]
            row.append(" ".join(summary(metric, found)).strip())
            data.append(
                {
                    "arm": arm,
                    "metric": metric.name,
                    "unit": metric.unit,
                    "centre": found.centre,
                    "low": None if found.interval is None else found.interval.low,
                    "high": None if found.interval is None else found.interval.high,
                    "confidence": None if found.interval is None else found.interval.confidence,
                    "deviation": found.deviation,
                    "n": found.n,
                }
            )
        rows.append(row)
    return Table("metrics", "Arms by metrics", columns, rows, data)


def _heading(metric: MetricResult) -> str:
    return metric.title[:1].upper() + metric.title[1:]


def contrasts(results: Results) -> Table:
    """Every arm against the baseline on every metric."""
    level = f"{100 * results.comparison.confidence:g}%"
    titles: list[tuple[str, Kind]] = [
        ("Metric", "text"), ("Arm", "text"), ("Against baseline", "number"), (f"{level} interval", "number"),
        ("Adjusted p", "number"), ("Effect size", "number"), ("P(better)", "number"), ("Further pairs", "number"),
        ("Verdict", "badge"),
    ]  # fmt: skip
    found = [(metric, line) for metric in results.metrics for line in metric.contrasts]
    rows = [_contrast_row(metric, line) for metric, line in found]
    data = [_contrast_data(metric, line) for metric, line in found]
    return Table("contrasts", "Against the baseline", [Column(*title) for title in titles], rows, data)


def _contrast_row(metric: MetricResult, line: Contrast) -> list[str]:
    estimate, ends = contrast(metric, line)
    effect = None if line.effect_size is None else line.effect_size.value
    better = line.probability_better
    return [
        _heading(metric),
        line.arm,
        estimate,
        ends or NOTHING,
        NOTHING if line.test is None else p_value(line.test.p_adjusted),
        NOTHING if effect is None else plain(effect, 2 if abs(effect) < 10 else 1, sign=True),
        NOTHING if better is None else plain(better.value, 2),
        NOTHING if line.needed is None else f"{line.needed.further:,}",
        line.verdict,
    ]


def _contrast_data(metric: MetricResult, line: Contrast) -> dict[str, Raw]:
    found, test, same = line.interval, line.test, line.equivalence
    better, needed, effect = line.probability_better, line.needed, line.effect_size
    return {
        "metric": metric.name,
        "arm": line.arm,
        "baseline": line.baseline,
        "scale": metric.scale,
        "unit": "" if metric.scale == "ratio" else metric.unit,
        "estimate": line.estimate,
        "low": None if found is None else found.low,
        "high": None if found is None else found.high,
        "confidence": None if found is None else found.confidence,
        "pairs": line.pairs,
        "p": None if test is None else test.p,
        "p_adjusted": None if test is None else test.p_adjusted,
        "equivalence_margin": None if same is None else same.margin,
        "equivalence_p_adjusted": None if same is None else same.p_adjusted,
        "effect_size": None if effect is None else effect.value,
        "probability_better": None if better is None else better.value,
        "further_pairs": None if needed is None else needed.further,
        "verdict": line.verdict,
        "sentence": line.sentence,
    }


def costs(results: Results) -> Table:
    """What an arm costs to run, from the profile blocks, and to train."""
    sizes = results.experiment.profile.batch_sizes
    wanted = [
        *((f"latency_ms@{size}", f"Latency, batch {size}", "ms") for size in sizes),
        (f"throughput@{sizes[-1]}", f"Throughput, batch {sizes[-1]}", "samples/s"),
        *((name, METRICS[name].title, METRICS[name].unit) for name in _COST_METRICS),
    ]
    columns = [Column("Arm")]
    columns += [Column(title[:1].upper() + title[1:], "number") for _, title, _ in wanted]
    columns.append(Column("Training time per run", "number"))
    rows, data = [], []
    for arm in results.arms:
        row = [arm]
        for name, _, unit in wanted:
            spread = samples.over_blocks(results, arm, name)
            row.append(_spread_text(spread, unit))
            data.append(_spread_data(arm, name, unit, spread))
        seconds = [run.seconds for run in results.runs if run.arm == arm and run.seconds is not None]
        spread = samples.median_spread(seconds, results.comparison.confidence) if seconds else None
        row.append(_spread_text(spread, "s"))
        data.append(_spread_data(arm, "train_seconds", "s", spread))
        rows.append(row)
    data = [line for line in data if line["median"] is not None]
    return Table("costs", "What it costs", columns, rows if data else [], data)


_COST_METRICS = ("training_throughput", "peak_memory_mb", "parameters", "flops")


def _spread_text(spread: samples.Spread | None, unit: str) -> str:
    if spread is None:
        return NOTHING
    text = quantity(spread.centre, unit)
    if unit in {"count", "FLOP"} or spread.count == 1 or spread.low == spread.high:
        return text
    low, high = (quantity(end, unit).removesuffix(f" {unit}") for end in (spread.low, spread.high))
    return f"{text} {interval(low, high)}"


def _spread_data(arm: str, name: str, unit: str, spread: samples.Spread | None) -> dict[str, Raw]:
    return {
        "arm": arm,
        "quantity": name,
        "unit": unit,
        "median": None if spread is None else spread.centre,
        "low": None if spread is None else spread.low,
        "high": None if spread is None else spread.high,
        "confidence": None if spread is None else spread.confidence,
        "n": None if spread is None else spread.count,
    }


def arms(results: Results) -> Table:
    """The declared factors and their values: the only settings in which arms differ."""
    factors = results.experiment.factors
    rows = []
    for arm in results.arms:
        spec = spec_of(results.experiment.arms[arm])
        rows.append([f"{arm} (baseline)" * (arm == results.comparison.baseline) or arm, *(_at(spec, f) for f in factors)])
    return Table("arms", "Arms and their declared factors", [Column("Arm"), *map(Column, factors)], rows)


def _at(spec: dict[str, Any], path: str) -> str:
    value: Any = spec
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return _setting(value)


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            text if key in {"source", "name"} else f"{key} {text}"
            for key, inner in value.items()
            if inner not in (None, {}, []) and (text := _setting(inner))
        )
    return f"{value:g}" if isinstance(value, float) else str(value)


def runs(results: Results) -> Table:
    """Every run with its outcome, its numbers, and the records that hold them. What failed comes first."""
    metrics = [metric for metric in results.metrics if metric.pairing == "seed"]
    columns = [Column("Arm"), Column("Seed", "number"), Column("Outcome", "badge")]
    columns += [Column(_heading(metric), "number") for metric in metrics]
    columns += [Column("Chosen epoch", "number"), Column("Training time", "number"), Column("Note")]
    columns.append(Column("Records", "code"))
    rows, data = [], []
    for run in sorted(results.runs, key=lambda run: run.outcome == "completed"):
        values = {metric.name: metric.arms[run.arm].values.get(str(run.seed)) for metric in metrics}
        folder = f"runs/{run.arm}/seed-{run.seed}"
        rows.append(
            [
                run.arm,
                str(run.seed),
                run.outcome.replace("_", " "),
                *(quantity(values[metric.name], metric.unit) for metric in metrics),
                NOTHING if run.chosen_epoch is None else str(run.chosen_epoch),
                quantity(run.seconds, "s"),
                _note(run),
                f"{folder}/{{train,evaluate}}/record.json",
            ]
        )
        data.append(_run_data(run, folder) | values)
    return Table("runs", "Runs", columns, rows, data)


def _note(run: Run) -> str:
    return "; ".join(filter(None, (run.message, "resumed: its time is left out" if run.resumed else None)))


def _run_data(run: Run, folder: str) -> dict[str, Raw]:
    return {
        "arm": run.arm,
        "seed": run.seed,
        "outcome": run.outcome,
        "message": run.message,
        "chosen_epoch": run.chosen_epoch,
        "train_seconds": run.seconds,
        "resumed": run.resumed,
        "train_record": f"{folder}/train/record.json",
        "evaluate_record": f"{folder}/evaluate/record.json",
    }


def blocks(results: Results) -> Table:
    """Every visit of an arm in a profile block."""
    names = list(dict.fromkeys(name for visit in results.visits for name in visit.metrics if "@" in name))
    units = {"latency_ms": "ms", "throughput": "samples/s"}
    columns = [Column("Block", "number"), Column("Arm"), Column("Outcome", "badge")]
    columns += [Column(name.replace("_ms", "").replace("@", ", batch ").capitalize(), "number") for name in names]
    columns += [Column("Note"), Column("Record", "code")]
    rows, data = [], []
    for visit in results.visits:
        path = f"profile/block-{visit.block}/{visit.arm}/record.json"
        values = [quantity(visit.metrics.get(name), units.get(name.split("@")[0], "")) for name in names]
        outcome = visit.outcome.replace("_", " ")
        rows.append([str(visit.block), visit.arm, outcome, *values, visit.message or "", path])
        shared: dict[str, Raw] = {"block": visit.block, "arm": visit.arm, "outcome": visit.outcome}
        data.append(shared | visit.metrics | {"message": visit.message, "record": path})
    return Table("blocks", "Profile blocks", columns, rows, data)


def contract(results: Results) -> Table:
    """What had to be equal between arms, and whether it was."""
    columns = [Column("What"), Column("Status", "badge"), Column("Declared by", "code"), Column("Records", "number")]
    rows = []
    for line in results.contract.variables:
        shown = "; ".join(f"{arm}: {', '.join(values)}" for arm, values in line.evidence.items())
        rows.append(
            [line.name, line.status, line.declared_by or "", str(line.checked), line.message or _clip(shown, 240)]
        )
    return Table("contract", "Contract", [*columns, Column("Evidence")], rows)


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def environment(results: Results) -> Table:
    """Where and with what it ran; several values where records differ."""
    surroundings = results.surroundings
    rows = [
        [name, _several(values, surroundings.records)] for name, values in surroundings.facts.items()
    ]
    rows.append(["Seeds", span(results.experiment.seeds)])
    return Table("environment", "Environment", [Column("What"), Column("Value")], rows)


def packages(results: Results) -> Table:
    rows = [
        [name, ", ".join(sorted(versions))] for name, versions in sorted(results.surroundings.packages.items())
    ]
    return Table("packages", "Installed packages", [Column("Package"), Column("Version")], rows)


def _several(values: dict[str, int], total: int) -> str:
    if len(values) == 1:
        return next(iter(values))
    texts = [f"{value} ({counted(count, 'record')})" for value, count in sorted(values.items())]
    more = f"; and {len(texts) - 8} more" if len(texts) > 8 else ""
    return "; ".join(texts[:8]) + more


def sources(results: Results) -> Table:
    """Where each number comes from."""
    places = {
        "seed": "runs/ARM/seed-N/evaluate/record.json",
        "block": "profile/block-N/ARM/record.json",
        "exact": "profile/block-N/ARM/record.json",
    }
    rows = [
        [_heading(metric), places[metric.pairing], f"metrics.{metric.name}.value"] for metric in results.metrics
    ]
    rows += [
        ["Costs and latency by batch size", places["block"], "metrics.*.value"],
        ["Learning curves", "runs/ARM/seed-N/train/record.json", "details.history"],
        ["Training loss", "runs/ARM/seed-N/train/log.jsonl", "step, loss"],
        ["Calibration", "runs/ARM/seed-N/evaluate/predictions.parquet", "confidence, correct"],
        ["Intervals, tests, verdicts", "comparison/comparison.json", "metrics"],
        ["Contract", "comparison/contract.json", "variables"],
        ["Settings, every default written out", "experiment.yaml", ""],
    ]
    columns = [Column("Number"), Column("File", "code"), Column("Field", "code")]
    return Table("sources", "Where each number comes from", columns, rows)
