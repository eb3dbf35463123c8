"""The tables of a report."""

from typing import Any

from assay.comparison.model import Contrast, MetricResult
from assay.config.arm import spec_of
from assay.config.resolve import covers
from assay.config.trials import swept_paths
from assay.reporting import examples, kernels, measured, methods, quality, ranks, telemetry
from assay.reporting.noise import floor_cell, noise
from assay.reporting.numbers import (
    NOTHING,
    contrast,
    counted,
    heading,
    interval,
    level,
    p_value,
    plain,
    span,
)
from assay.reporting.posteriors import posteriors
from assay.reporting.read import Results
from assay.reporting.shared import shared_examples
from assay.reporting.statements import statements
from assay.reporting.sweep import sweep, trials
from assay.reporting.table import Column, Kind, Raw, Table


def tables(results: Results) -> list[Table]:
    """All tables that have rows, in the order of the page."""
    made = [
        metrics_by_arm(results),
        contrasts(results),
        ranks.between(results),
        posteriors(results),
        ranks.ranks(results),
        shared_examples(results),
        noise(results),
        measured.costs(results),
        quality.class_table(results),
        examples.examples(results),
        sweep(results),
        telemetry.telemetry(results),
        kernels.differences(results),
        kernels.kernels(results),
        arms(results),
        measured.runs(results),
        measured.blocks(results),
        trials(results),
        contract(results),
        environment(results),
        packages(results),
        sources(results),
        statements([methods.methods(results), methods.limitations(results)]),
    ]
    return [table.without_empty_columns() for table in made if table.rows]


def metrics_by_arm(results: Results) -> Table:
    """Arms by metrics: mean (geometric for costs) over replicates with its interval."""
    metrics = results.metrics
    columns = [Column("Arm"), *(Column(heading(metric), "number") for metric in metrics)]
    rows, data = [], []
    for arm in results.arms:
        row = [arm]
        for metric in metrics:
            found = metric.arms[arm]
            row.append(level(metric, found))
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


def contrasts(results: Results) -> Table:
    """Every arm against the baseline on every metric."""
    level = f"{100 * results.comparison.confidence:g}%"
    titles: list[tuple[str, Kind]] = [
        ("Metric", "text"), ("Arm", "text"), ("Against baseline", "number"), (f"{level} interval", "number"),
        ("Pairs", "number"), ("Adjusted p", "number"), ("Effect size", "number"), ("P(better)", "number"),
        ("Noise floor", "number"), ("Further pairs", "number"), ("Verdict", "badge"),
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
        heading(metric),
        line.arm,
        estimate,
        ends or NOTHING,
        counted(line.pairs, metric.pairing) if line.test is not None else NOTHING,
        NOTHING if line.test is None else p_value(line.test.p_adjusted),
        NOTHING if effect is None else plain(effect, 2 if abs(effect) < 10 else 1, sign=True),
        NOTHING
        if better is None
        else f"{plain(better.value, 2)} {interval(plain(better.low, 2), plain(better.high, 2))}",
        NOTHING if metric.floor is None else floor_cell(metric.scale, metric.unit, metric.floor.value),
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
        "probability_better_low": None if better is None else better.low,
        "probability_better_high": None if better is None else better.high,
        "noise_floor": None if metric.floor is None else metric.floor.value,
        "beyond_noise_floor": line.beyond_floor,
        "further_pairs": None if needed is None else needed.further,
        "verdict": line.verdict,
        "sentence": line.sentence,
    }


def arms(results: Results) -> Table:
    """The declared factors and their values: the only settings in which arms differ."""
    factors = list(results.experiment.factors)
    factors += [path for path in swept_paths(results.experiment) if not any(covers(f, path) for f in factors)]
    rows = []
    for arm in results.arms:
        spec = spec_of(results.experiment.arms[arm])
        rows.append(
            [
                f"{arm} (baseline)" * (arm == results.comparison.baseline) or arm,
                *(_at(spec, f) for f in factors),
            ]
        )
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


_GRAVITY = ("violated", "unknown", "varies", "declared", "equal", "inapplicable")


def contract(results: Results) -> Table:
    """What had to be equal between arms, and whether it was: what broke it first."""
    columns = [
        Column("What"),
        Column("Status", "badge"),
        Column("Declared by", "code"),
        Column("Records", "number"),
    ]
    rows = []
    for line in sorted(results.contract.variables, key=lambda one: _GRAVITY.index(one.status)):
        shown = "; ".join(f"{arm}: {', '.join(values)}" for arm, values in line.evidence.items())
        rows.append(
            [
                line.name,
                line.status,
                line.declared_by or "",
                str(line.checked),
                line.message or _clip(shown, 240),
            ]
        )
    return Table("contract", "Contract", [*columns, Column("Evidence")], rows)


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def environment(results: Results) -> Table:
    """Where and with what it ran; several values where records differ."""
    surroundings = results.surroundings
    rows = [[name, _several(values, surroundings.records)] for name, values in surroundings.facts.items()]
    rows.append(["Seeds", span(results.experiment.seeds)])
    return Table("environment", "Environment", [Column("What"), Column("Value")], rows)


def packages(results: Results) -> Table:
    rows = [
        [name, ", ".join(sorted(versions))]
        for name, versions in sorted(results.surroundings.packages.items())
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
        [heading(metric), places[metric.pairing], f"metrics.{metric.name}.value"]
        for metric in results.metrics
    ]
    rows += [
        ["Costs and latency by batch size", places["block"], "metrics.*.value"],
        ["Learning curves", "runs/ARM/seed-N/train/record.json", "details.history"],
        ["Training loss", "runs/ARM/seed-N/train/log.jsonl", "step, loss"],
        ["Shared test examples", "runs/ARM/seed-N/evaluate/predictions.parquet", "correct, loss"],
        ["Calibration", "runs/ARM/seed-N/evaluate/predictions.parquet", "confidence, correct"],
        ["Classes", "runs/ARM/seed-N/evaluate/record.json", "details.per_class"],
        ["Examples", "runs/ARM/seed-N/evaluate/predictions.parquet", "index, label, prediction"],
        *([["Kernels", "trace/ARM/record.json", "details.*.kernels"]] if results.traces else []),
        ["Intervals, tests, verdicts", "comparison/comparison.json", "metrics"],
        ["Contract", "comparison/contract.json", "variables"],
        *([["Noise floor", "noise/floor.json", "quantities"]] if results.noise else []),
        *([["Tuned settings", "sweep/ARM/selected.json", "settings"]] if results.sweeps else []),
        *(
            [["Trials, best score by budget", "sweep/ARM/trials.json", "trials, curve"]]
            if results.sweeps
            else []
        ),
        ["Settings, every default written out", "experiment.yaml", ""],
    ]
    columns = [Column("Number"), Column("File", "code"), Column("Field", "code")]
    return Table("sources", "Where each number comes from", columns, rows)
