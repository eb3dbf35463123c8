"""The tables of a report."""

from typing import Any

from assay.comparison.model import Contrast, MetricResult
from assay.comparison.target import NOT_REACHED
from assay.config.arm import spec_of
from assay.config.metrics import DESCRIPTIVE, METRICS
from assay.reporting import kernels, ranks, samples, telemetry
from assay.reporting.noise import floor_cell, noise
from assay.reporting.numbers import (
    NOTHING,
    contrast,
    counted,
    interval,
    p_value,
    plain,
    quantity,
    span,
    summary,
)
from assay.reporting.posteriors import posteriors
from assay.reporting.read import Results, Run
from assay.reporting.shared import shared_examples
from assay.reporting.table import Column, Kind, Raw, Table

MAX_ARM_COLUMNS = 5
"""Up to this many arms stand side by side."""


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
        costs(results),
        telemetry.telemetry(results),
        kernels.differences(results),
        kernels.kernels(results),
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
        ("Adjusted p", "number"), ("Effect size", "number"), ("P(better)", "number"),
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
        _heading(metric),
        line.arm,
        estimate,
        ends or NOTHING,
        NOTHING if line.test is None else p_value(line.test.p_adjusted),
        NOTHING if effect is None else plain(effect, 2 if abs(effect) < 10 else 1, sign=True),
        NOTHING if better is None else plain(better.value, 2),
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
        "noise_floor": None if metric.floor is None else metric.floor.value,
        "beyond_noise_floor": line.beyond_floor,
        "further_pairs": None if needed is None else needed.further,
        "verdict": line.verdict,
        "sentence": line.sentence,
    }


def costs(results: Results) -> Table:
    """What an arm costs to run, by profile, and to train. Few arms are columns, many are rows."""
    wanted = _wanted_costs(results)
    found = {(arm, name): _cost(results, arm, name) for arm in results.arms for name, _, _ in wanted}
    wanted = [line for line in wanted if any(found[arm, line[0]] is not None for arm in results.arms)]
    data = [
        _spread_data(arm, name, unit, spread)
        for arm in results.arms
        for name, _, unit in wanted
        if (spread := found[arm, name]) is not None
    ]
    texts = {
        (arm, name): _spread_text(found[arm, name], unit) for arm in results.arms for name, _, unit in wanted
    }
    if len(results.arms) <= MAX_ARM_COLUMNS:
        columns = [Column("Cost"), *(Column(arm, "number") for arm in results.arms)]
        rows = [[title, *(texts[arm, name] for arm in results.arms)] for name, title, _ in wanted]
    else:
        columns = [Column("Arm"), *(Column(title, "number") for _, title, _ in wanted)]
        rows = [[arm, *(texts[arm, name] for name, _, _ in wanted)] for arm in results.arms]
    return Table("costs", "What it costs", columns, rows if data else [], data)


_COSTS = (
    *("largest_batch", "largest_batch_throughput", "flops_utilization"),
    *("training_throughput", "loaded_training_throughput", "training_step_ms", "training_wait_ms"),
    *("training_transfer_ms", "training_augment_ms", "training_forward_ms", "training_backward_ms"),
    *("training_optimizer_ms", "training_flops_utilization"),
    *("peak_memory_mb", "reserved_memory_mb", "gpu_memory_mb", "model_size_mb", "parameters", "flops"),
    *("cold_start_s", "start_s", "first_call_s", "compile_s"),
)
"""After those by batch size, in the order of the table; a row without any value is left out."""


def _wanted_costs(results: Results) -> list[tuple[str, str, str]]:
    """Name, title and unit."""
    sizes = results.experiment.profile.batch_sizes
    wanted = [(f"latency_ms@{size}", f"Latency, batch {size}", "ms") for size in sizes]
    wanted += [
        (f"latency_p{p}_ms@{sizes[0]}", f"Latency, batch {sizes[0]}, {p}th percentile", "ms")
        for p in (90, 95, 99)
    ]
    wanted.append((f"throughput@{sizes[-1]}", f"Throughput, batch {sizes[-1]}", "samples/s"))
    for name in _COSTS:
        judged = METRICS.get(name)
        title, unit = DESCRIPTIVE[name] if judged is None else (judged.title, judged.unit)
        wanted.append((name, title[:1].upper() + title[1:], unit))
    return [*wanted, ("train_seconds", "Training time per run", "s")]


def _cost(results: Results, arm: str, name: str) -> samples.Spread | None:
    if name != "train_seconds":
        found = samples.over_blocks(results, arm, name)
        visits = sum(visit.arm == arm and visit.outcome == "completed" for visit in results.visits)
        # Blocks with enough samples for a percentile are those in which the machine was quick.
        return None if found is not None and name.startswith("latency_p") and found.count < visits else found
    seconds = [run.seconds for run in results.runs if run.arm == arm and run.seconds is not None]
    return samples.median_spread(seconds, results.comparison.confidence) if seconds else None


def _spread_text(spread: samples.Spread | None, unit: str) -> str:
    if spread is None:
        return NOTHING
    text = quantity(spread.centre, unit)
    if unit in {"count", "FLOP"} or spread.count == 1 or spread.low == spread.high:
        return text
    low, high = (quantity(end, unit).removesuffix(f" {unit}") for end in (spread.low, spread.high))
    return f"{text} {interval(low, high)}"


def _spread_data(arm: str, name: str, unit: str, spread: samples.Spread) -> dict[str, Raw]:
    return {
        "arm": arm,
        "quantity": name,
        "unit": unit,
        "median": spread.centre,
        "low": spread.low,
        "high": spread.high,
        "confidence": spread.confidence,
        "n": spread.count,
    }


def arms(results: Results) -> Table:
    """The declared factors and their values: the only settings in which arms differ."""
    factors = results.experiment.factors
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
        data.append(_run_data(run, folder, values))
    return Table("runs", "Runs", columns, rows, data)


def _note(run: Run) -> str:
    resumed = "resumed: its time is left out" if run.resumed else None
    shared = "shared its GPU: its time and energy are left out" if run.shared else None
    missed = NOT_REACHED if run.reached is False and run.outcome == "completed" else None
    return "; ".join(filter(None, (run.message, resumed, shared, missed)))


def _run_data(run: Run, folder: str, values: dict[str, float | None]) -> dict[str, Raw]:
    return {
        "arm": run.arm,
        "seed": run.seed,
        "outcome": run.outcome,
        "message": run.message,
        "chosen_epoch": run.chosen_epoch,
        "train_seconds": run.seconds,
        "resumed": run.resumed,
        "shared_gpu": run.shared,
        "train_record": f"{folder}/train/record.json",
        "evaluate_record": f"{folder}/evaluate/record.json",
        **values,
    }


def blocks(results: Results) -> Table:
    """Every visit of an arm in a profile block."""
    names = list(
        dict.fromkeys(
            name
            for visit in results.visits
            for name in visit.metrics
            if name.startswith(("latency_ms@", "throughput@"))
        )
    )
    units = {"latency_ms": "ms", "throughput": "samples/s"}
    columns = [Column("Block", "number"), Column("Arm"), Column("Outcome", "badge")]
    columns += [
        Column(name.replace("_ms", "").replace("@", ", batch ").capitalize(), "number") for name in names
    ]
    columns += [Column("Note"), Column("Record", "code")]
    rows, data = [], []
    for visit in results.visits:
        path = f"profile/block-{visit.block}/{visit.arm}/record.json"
        values = [quantity(visit.metrics.get(name), units.get(name.split("@")[0], "")) for name in names]
        outcome = visit.outcome.replace("_", " ")
        rows.append([str(visit.block), visit.arm, outcome, *values, visit.message or "", path])
        line: dict[str, Raw] = {"block": visit.block, "arm": visit.arm, "outcome": visit.outcome}
        line.update(visit.metrics)
        data.append(line | {"message": visit.message, "record": path})
    return Table("blocks", "Profile blocks", columns, rows, data)


def contract(results: Results) -> Table:
    """What had to be equal between arms, and whether it was."""
    columns = [
        Column("What"),
        Column("Status", "badge"),
        Column("Declared by", "code"),
        Column("Records", "number"),
    ]
    rows = []
    for line in results.contract.variables:
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
        [_heading(metric), places[metric.pairing], f"metrics.{metric.name}.value"]
        for metric in results.metrics
    ]
    rows += [
        ["Costs and latency by batch size", places["block"], "metrics.*.value"],
        ["Learning curves", "runs/ARM/seed-N/train/record.json", "details.history"],
        ["Training loss", "runs/ARM/seed-N/train/log.jsonl", "step, loss"],
        ["Shared test examples", "runs/ARM/seed-N/evaluate/predictions.parquet", "correct, loss"],
        ["Calibration", "runs/ARM/seed-N/evaluate/predictions.parquet", "confidence, correct"],
        *([["Kernels", "trace/ARM/record.json", "details.*.kernels"]] if results.traces else []),
        ["Intervals, tests, verdicts", "comparison/comparison.json", "metrics"],
        ["Contract", "comparison/contract.json", "variables"],
        *([["Noise floor", "noise/floor.json", "quantities"]] if results.noise else []),
        ["Settings, every default written out", "experiment.yaml", ""],
    ]
    columns = [Column("Number"), Column("File", "code"), Column("Field", "code")]
    return Table("sources", "Where each number comes from", columns, rows)
