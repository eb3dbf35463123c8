"""From a table to `comparison.json` and `metrics.csv`."""

from pathlib import Path

from assay.comparison.collect import Collected, Replicate
from assay.comparison.model import Comparison
from assay.comparison.question import Question
from assay.comparison.run import judge, metrics_csv
from assay.comparison.table import Table, read_table
from assay.comparison.table_settings import TableSettings, question_of
from assay.records import Measurement, write_atomically


def compare_table(path: Path, settings: TableSettings, *, output: Path | None = None) -> Comparison:
    """Judge a table as `compare` judges records; with `output`, write both files there.

    Raises: ValueError naming the file and what is wrong with it.
    """
    table = read_table(path)
    question = question_of(table, settings)
    collected = collect_table(table, question)
    comparison = judge(question, collected, None)
    if output is not None:
        try:
            output.mkdir(parents=True, exist_ok=True)
            write_atomically(output / "metrics.csv", metrics_csv(collected).encode())
            comparison.write(output / "comparison.json")
        except OSError as error:
            raise ValueError(f"--output {output}: cannot be written: {error.strerror or error}") from None
    return comparison


def collect_table(table: Table, question: Question) -> Collected:
    """Every arm at every seed of the table. What another arm has and this one has not is missing, for all metrics."""
    runs = {}
    judged = [choice.name for choice in question.metrics]
    for arm in table.arms:
        for seed in table.seeds:
            values = table.values.get((arm, seed))
            run = runs[arm, seed] = Replicate(arm, "seed", seed)
            if values is None:
                run.message = "not in the table"
                continue
            run.outcome = "completed"
            run.missing = {name: "the table has no value" for name in judged if values.get(name) is None}
            for name, value in values.items():
                metric = question.known.get(name)
                unit = "" if metric is None else metric.unit
                run.metrics[name] = Measurement(unit=unit, value=value)
    return Collected(runs, {}, [], _warnings(table, judged))


def _warnings(table: Table, judged: list[str]) -> list[str]:
    found = [
        f"no contract: Assay did not produce {table.path.name}, and could not check what else differs between the arms: "
        "data, code, hardware, tuning, or which runs were left out"
    ]
    if others := [name for name in table.metrics if name not in judged]:
        found.append(f"not judged, because not among the metrics asked for: {', '.join(others)}")
    if table.ignored:
        found.append(f"columns that were not read: {', '.join(table.ignored)}")
    return found
