"""How a table is compared: from arguments, and from a small YAML file."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from assay.comparison.question import Question
from assay.comparison.table import Table
from assay.config.advice import advice, instead_of, reason, without_tags
from assay.config.arm import Section
from assay.config.errors import ConfigError, Problem, short
from assay.config.looks import Spending
from assay.config.metrics import METRICS, Direction, Metric, Scale, holds_every_difference
from assay.config.schema import Comparison, MetricChoice
from assay.config.yaml_file import read_yaml

HOW = "NAME[:higher|lower][:difference|ratio][:MARGIN]"


class MetricSettings(Section):
    """One metric of a table. Metrics that Assay knows need no more than their name."""

    name: str = Field(description="As in the column `metric`.")
    direction: Direction | None = None
    scale: Scale | None = None
    margin: float | None = Field(default=None, gt=0)
    title: str | None = Field(default=None, description="For sentences; null: Assay's own, or the name.")
    unit: str | None = None


class TableSettings(Section):
    """What an experiment file would say of a comparison."""

    question: str = ""
    baseline: str | None = Field(default=None, description="Null: the arm of the first row.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    resamples: int = Field(default=10_000, ge=1000, le=1_000_000)
    contrasts: Literal["baseline", "all"] = Field(
        default="baseline", description="As in an experiment: each arm with the baseline, or all pairs."
    )
    bayesian: bool = Field(default=False, description="As in an experiment; decides nothing.")
    looks: list[int] | None = Field(
        default=None, description="As in an experiment; seeds count in ascending order."
    )
    spending: Spending = "obrien-fleming"
    metrics: list[MetricSettings] = Field(
        default=[],
        description="What is judged, most important first; empty: all of the table, as they appear.",
    )


def read_settings(path: Path) -> TableSettings:
    """Raises: ConfigError with every problem of the file."""
    content, lines = read_yaml(path)
    if isinstance(metrics := content.get("metrics"), list):
        content["metrics"] = [{"name": item} if isinstance(item, str) else item for item in metrics]
    try:
        return TableSettings.model_validate(content)
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            where = without_tags(detail["loc"])
            section = MetricSettings if where[0] == "metrics" and len(where) > 1 else TableSettings
            if detail["type"] == "extra_forbidden":
                what, instead = "unknown key", instead_of(str(where[-1]), section.model_fields)
            else:
                what = "missing" if detail["type"] == "missing" else reason(detail)
                instead = advice(detail, where) if detail["type"] == "literal_error" else ""
            near = next((where[:end] for end in range(len(where), 0, -1) if where[:end] in lines), ())
            problems.append(Problem(where, what, instead, lines.get(near)))
        raise ConfigError(str(path), problems) from None


def metric_of_argument(text: str) -> MetricSettings:
    """From `NAME[:higher|lower][:difference|ratio][:MARGIN]`. Raises: ValueError."""
    name, *parts = (part.strip() for part in text.split(":"))
    found: dict[str, object] = {"name": name}
    for part in parts:
        if part in ("higher", "lower"):
            key, value = "direction", part
        elif part in ("difference", "ratio"):
            key, value = "scale", part
        else:
            key, value = "margin", part
            try:
                number = float(part)
            except ValueError:
                number = math.nan
            if not (math.isfinite(number) and number > 0):
                raise ValueError(f"--metric {text}: {part!r} is no direction, scale or margin; write {HOW}")
        if key in found:
            raise ValueError(f"--metric {text}: two of {key}; write {HOW}")
        found[key] = value
    if not name:
        raise ValueError(f"--metric {text}: no name; write {HOW}")
    return MetricSettings.model_validate(found)


def question_of(table: Table, settings: TableSettings) -> Question:
    """Raises: ValueError where table and settings do not belong together."""
    file = table.path
    if len(table.arms) < 2:
        raise ValueError(f"{file}: one arm only, {table.arms[0]}; two at least are compared")
    baseline = settings.baseline if settings.baseline is not None else table.arms[0]
    if baseline not in table.arms:
        raise ValueError(f"{file}: baseline {baseline!r} is no arm; {instead_of(baseline, table.arms)}")
    chosen = settings.metrics or [MetricSettings(name=name) for name in table.metrics]
    comparison = _comparison(table, settings)
    names = [choice.name for choice in chosen]
    problems = [f"metric {name} is told twice; tell it once" for name in names if names.count(name) > 1][:1]
    problems += [
        f"no metric {short(name)} in the table; {instead_of(name, table.metrics)}"
        for name in names
        if name not in table.metrics
    ]
    known = {choice.name: _metric(choice) for choice in chosen}
    problems += [
        f"metric {short(name)} is none that Assay knows; tell which way is better and how to compare it, e.g. "
        f"--metric {name}:higher:difference, or lower, or ratio"
        for name, metric in known.items()
        if metric is None and name in table.metrics
    ]
    problems += [
        text for metric in known.values() if metric is not None for text in _out_of_range(table, metric)
    ]
    for choice in chosen:
        metric = known[choice.name]
        if metric is not None and holds_every_difference(metric, choice.margin):
            size = choice.margin or 0
            what = f"metric {choice.name}: margin {size:g} holds every difference between 0 and 1"
            problems.append(f"{what}; write {size:g}% as {size / 100:g}")
    if problems:
        raise ValueError("\n".join(f"{file}: {text}" for text in problems))
    return Question(
        name=file.stem,
        question=settings.question,
        baseline=baseline,
        arms=tuple(table.arms),
        metrics=tuple(
            MetricChoice(name=choice.name, direction=choice.direction, margin=choice.margin)
            for choice in chosen
        ),
        comparison=comparison,
        profiled=True,
        known={name: metric for name, metric in known.items() if metric is not None},
    )


def _comparison(table: Table, settings: TableSettings) -> Comparison:
    try:
        comparison = Comparison(
            confidence=settings.confidence,
            resamples=settings.resamples,
            contrasts=settings.contrasts,
            bayesian=settings.bayesian,
            looks=settings.looks,
            spending=settings.spending,
        )
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise ValueError(
            f"--settings: {'.'.join(map(str, detail['loc'])) or 'looks'}: {reason(detail)}"
        ) from None
    if comparison.looks is not None and len(table.seeds) not in comparison.looks:
        raise ValueError(
            f"{table.path}: {len(table.seeds)} seeds are none of the looks {', '.join(map(str, comparison.looks))}; "
            "compare after one of those that were declared"
        )
    return comparison


def _metric(choice: MetricSettings) -> Metric | None:
    """Every metric of a table is paired by seed, unless it is a count; None: it is neither known nor told."""
    own = METRICS.get(choice.name)
    if own is None:
        if choice.direction is None or choice.scale is None:
            return None
        title, unit = choice.title or choice.name, choice.unit or ""
        return Metric(choice.name, title, unit, choice.direction, "seed", choice.scale)
    return replace(
        own,
        title=choice.title or own.title,
        unit=choice.unit if choice.unit is not None else own.unit,
        pairing="exact" if own.pairing == "exact" else "seed",
        scale=choice.scale or own.scale,
    )


def _out_of_range(table: Table, metric: Metric) -> Sequence[str]:
    """A percentage that is taken for a fraction would be told a hundred times too large."""
    if metric.unit != "fraction":
        return []
    for (arm, seed), values in table.values.items():
        value = values.get(metric.name)
        if value is not None and not 0 <= value <= 1:
            line = table.places[arm, seed, metric.name]
            return [
                f"line {line}, column value: {metric.name} is a fraction from 0 to 1, and here is {value:g}; divide "
                f"percentages by 100, or name the metric otherwise, e.g. {metric.name}_percent"
            ]
    return []
