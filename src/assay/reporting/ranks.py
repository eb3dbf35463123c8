"""The tables of more than two arms: their ranks, and those other than the baseline against each other."""

from assay.comparison.model import Contrast, MetricResult
from assay.comparison.wording import ranks_text
from assay.reporting.numbers import NOTHING, contrast, p_value, plain
from assay.reporting.read import Results
from assay.reporting.table import Column, Raw, Table


def ranks(results: Results) -> Table:
    """Arms by metrics, each with the ranks that are not ruled out; no rows for two arms."""
    metrics = [metric for metric in results.metrics if metric.ranking is not None and metric.ranking.arms]
    columns = [Column("Arm")]
    for metric in metrics:
        columns += [Column(_heading(metric), "number"), Column("Best", "number")]
    rows = [[arm, *(text for metric in metrics for text in _cells(metric, arm))] for arm in results.arms]
    data = [_rank_data(metric, arm) for metric in metrics for arm in results.arms]
    return Table("ranks", "Ranks", columns, rows if metrics else [], data)


def _heading(metric: MetricResult) -> str:
    return metric.title[:1].upper() + metric.title[1:]


def _cells(metric: MetricResult, arm: str) -> list[str]:
    assert metric.ranking is not None
    found = metric.ranking.arms[arm]
    return [ranks_text(found), f"{plain(100 * found.best, 0)}%"]


def _rank_data(metric: MetricResult, arm: str) -> dict[str, Raw]:
    assert metric.ranking is not None
    found = metric.ranking.arms[arm]
    return {"metric": metric.name, "arm": arm} | found.model_dump()


def between(results: Results) -> Table:
    """Later arms against earlier ones, where the experiment asks for all pairs."""
    level = f"{100 * results.comparison.confidence:g}%"
    columns = [
        Column("Metric"),
        Column("Arm"),
        Column("Against"),
        Column("Difference", "number"),
        Column(f"{level} interval", "number"),
        Column("Adjusted p", "number"),
        Column("Verdict", "badge"),
    ]
    found = [(metric, line) for metric in results.metrics for line in metric.between]
    rows = [_row(metric, line) for metric, line in found]
    return Table("between", "Between the other arms", columns, rows, [_data(*one) for one in found])


def _row(metric: MetricResult, line: Contrast) -> list[str]:
    estimate, ends = contrast(metric, line)
    p = NOTHING if line.test is None else p_value(line.test.p_adjusted)
    return [_heading(metric), line.arm, line.baseline, estimate, ends or NOTHING, p, line.verdict]


def _data(metric: MetricResult, line: Contrast) -> dict[str, Raw]:
    ends, test = line.interval, line.test
    return {
        "metric": metric.name,
        "arm": line.arm,
        "baseline": line.baseline,
        "estimate": line.estimate,
        "low": None if ends is None else ends.low,
        "high": None if ends is None else ends.high,
        "p": None if test is None else test.p,
        "p_adjusted": None if test is None else test.p_adjusted,
        "verdict": line.verdict,
        "sentence": line.sentence,
    }
