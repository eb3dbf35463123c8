"""The table of differences on shared test examples: what of them is due to seeds, and what to examples."""

from assay.comparison.model import Contrast, MetricResult, Reach
from assay.comparison.wording import change_texts, unit_of_change
from assay.reporting.numbers import NOTHING, interval, p_value
from assay.reporting.read import Results
from assay.reporting.table import Column, Kind, Raw, Table

_TITLES: list[tuple[str, Kind]] = [
    ("Metric", "text"), ("Arm", "text"), ("Against", "text"), ("Difference", "number"),
    ("Other seeds", "number"), ("Other examples", "number"), ("Both", "number"),
    ("McNemar's p, by seed", "number"), ("p, all seeds", "number"),
]  # fmt: skip


def shared_examples(results: Results) -> Table:
    """Every contrast on a metric that is a mean over test examples; no rows where no predictions are at hand."""
    found = [
        (metric, line)
        for metric in results.metrics
        for line in (*metric.contrasts, *metric.between)
        if line.shared_examples is not None and line.shared_examples.seeds
    ]
    rows = [_row(metric, line) for metric, line in found]
    data = [_data(metric, line) for metric, line in found]
    columns = [Column(*title) for title in _TITLES]
    return Table("shared-examples", "On the same test examples", columns, rows, data)


def shared_note(results: Results) -> str:
    """The headline metric's sentences, and how to read the table."""
    contrasts = [] if results.headline_metric is None else results.headline_metric.contrasts
    sentences = [
        f"{line.arm} against {line.baseline}: {line.shared_examples.sentence}"
        for line in contrasts[:3]
        if line.shared_examples is not None and line.shared_examples.sentence
    ]
    level = f"{100 * results.comparison.confidence:g}%"
    return " ".join(
        [
            *sentences,
            f"In brackets: {level} interval of the difference for other seeds on these examples, for these seeds' models on "
            "other examples, and for both. These tests are not adjusted over metrics and arms, and decide no verdict.",
        ]
    )


def _row(metric: MetricResult, line: Contrast) -> list[str]:
    shared = line.shared_examples
    assert shared is not None
    assert line.estimate is not None
    unit = unit_of_change(metric).replace(" percentage points", " pp")
    tests = [one.p for one in shared.discordance.values()]
    return [
        metric.title[:1].upper() + metric.title[1:],
        line.arm,
        line.baseline,
        change_texts(metric, [line.estimate])[0] + unit,
        *(
            _ends(metric, line.estimate, reach)
            for reach in (shared.new_seeds, shared.new_examples, shared.new_both)
        ),
        _range(tests),
        NOTHING if shared.pooled is None else p_value(shared.pooled.p),
    ]


def _ends(metric: MetricResult, estimate: float, reach: Reach | None) -> str:
    if reach is None or reach.interval.low is None or reach.interval.high is None:
        return NOTHING
    return interval(*change_texts(metric, [estimate, reach.interval.low, reach.interval.high])[1:])


def _range(tests: list[float]) -> str:
    if not tests:
        return NOTHING
    low, high = p_value(min(tests)), p_value(max(tests))
    return low if low == high else f"{low} to {high}"


def _data(metric: MetricResult, line: Contrast) -> dict[str, Raw]:
    shared = line.shared_examples
    assert shared is not None
    variances, pooled = shared.variances, shared.pooled
    data: dict[str, Raw] = {
        "metric": metric.name,
        "arm": line.arm,
        "baseline": line.baseline,
        "estimate": line.estimate,
        "seeds": shared.seeds,
        "examples": shared.examples,
        "variance_seeds": None if variances is None else variances.seeds,
        "variance_examples": None if variances is None else variances.examples,
        "variance_interaction": None if variances is None else variances.interaction,
    }
    for name in ("new_seeds", "new_examples", "new_both"):
        reach: Reach | None = getattr(shared, name)
        data |= {
            f"{name}_standard_error": None if reach is None else reach.standard_error,
            f"{name}_low": None if reach is None else reach.interval.low,
            f"{name}_high": None if reach is None else reach.interval.high,
        }
    data["pooled_p"] = None if pooled is None else pooled.p
    for seed, one in shared.discordance.items():
        data |= {
            f"seed_{seed}_arm_only": one.arm_only,
            f"seed_{seed}_baseline_only": one.baseline_only,
            f"seed_{seed}_p": one.p,
            f"seed_{seed}_mid_p": one.mid_p,
        }
    return data
