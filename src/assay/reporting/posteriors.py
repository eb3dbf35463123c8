"""The table of Bayesian estimates, where the experiment asks for them."""

from assay.comparison.model import Contrast, MetricResult
from assay.comparison.wording import change_texts, probability_text, unit_of_change
from assay.reporting.numbers import NOTHING, interval
from assay.reporting.read import Results
from assay.reporting.table import Column, Kind, Raw, Table


def posteriors(results: Results) -> Table:
    level = f"{100 * results.comparison.confidence:g}%"
    titles: list[tuple[str, Kind]] = [
        ("Metric", "text"), ("Arm", "text"), ("Against", "text"), ("Median", "number"),
        (f"{level} credible interval", "number"), ("P(better)", "number"), ("P(better, beyond margin)", "number"),
        ("P(within margin)", "number"), ("P(worse, beyond margin)", "number"),
    ]  # fmt: skip
    found = [
        (metric, line)
        for metric in results.metrics
        for line in (*metric.contrasts, *metric.between)
        if line.posterior is not None and line.posterior.median is not None
    ]
    columns = [Column(*title) for title in titles]
    rows, data = [_row(*one) for one in found], [_data(*one) for one in found]
    return Table("posteriors", "Bayesian estimation", columns, rows, data)


def _row(metric: MetricResult, line: Contrast) -> list[str]:
    found = line.posterior
    assert found is not None
    ends = found.interval
    assert ends is not None
    texts = change_texts(metric, [one for one in (found.median, ends.low, ends.high) if one is not None])
    chances = (found.better, found.better_beyond_margin, found.within_margin, found.worse_beyond_margin)
    return [
        metric.title[:1].upper() + metric.title[1:],
        line.arm,
        line.baseline,
        texts[0] + unit_of_change(metric).replace(" percentage points", " pp"),
        interval(*texts[1:]),
        *(NOTHING if chance is None else probability_text(chance) for chance in chances),
    ]


def _data(metric: MetricResult, line: Contrast) -> dict[str, Raw]:
    found = line.posterior
    assert found is not None
    assert found.interval is not None
    return {
        "metric": metric.name,
        "arm": line.arm,
        "baseline": line.baseline,
        "median": found.median,
        "low": found.interval.low,
        "high": found.interval.high,
        "better": found.better,
        "better_beyond_margin": found.better_beyond_margin,
        "within_margin": found.within_margin,
        "worse_beyond_margin": found.worse_beyond_margin,
    }
