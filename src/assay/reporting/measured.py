"""Tables of what was measured: costs, every run, every block."""

from assay.comparison.target import NOT_REACHED
from assay.config.metrics import DESCRIPTIVE, METRICS, title_of
from assay.reporting import samples
from assay.reporting.numbers import NOTHING, heading, interval, quantity
from assay.reporting.read import TRAINING_ENERGY, Results, Run
from assay.reporting.table import Column, Raw, Table

MAX_ARM_COLUMNS = 5
"""Up to this many arms stand side by side."""


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
    units = {f"latency_ms@{size}": "ms" for size in sizes}
    units |= {f"latency_p{p}_ms@{sizes[0]}": "ms" for p in (90, 95, 99)}
    units[f"throughput@{sizes[-1]}"] = "samples/s"
    units |= {name: METRICS[name].unit if name in METRICS else DESCRIPTIVE[name][1] for name in _COSTS}
    units |= {"train_seconds": "s"} | dict.fromkeys(TRAINING_ENERGY, "J")
    return [(name, title_of(name)[:1].upper() + title_of(name)[1:], unit) for name, unit in units.items()]


def _cost(results: Results, arm: str, name: str) -> samples.Spread | None:
    if name in TRAINING_ENERGY:
        return samples.training_energy(results, arm, name)
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


def runs(results: Results) -> Table:
    """Every run with its outcome, its numbers, and the records that hold them. What failed comes first."""
    metrics = [metric for metric in results.metrics if metric.pairing == "seed"]
    columns = [Column("Arm"), Column("Seed", "number"), Column("Outcome", "badge")]
    columns += [Column(heading(metric), "number") for metric in metrics]
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
    columns += [Column(title_of(name).capitalize(), "number") for name in names]
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
