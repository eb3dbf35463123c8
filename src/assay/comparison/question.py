"""What a comparison asks, whoever made the numbers: an experiment, or a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from assay.config.metrics import METRICS, Metric
from assay.config.schema import Comparison, Experiment, MetricChoice


@dataclass(frozen=True)
class Question:
    """Arms in order, the metrics on which they are judged, most important first, and how sure a verdict must be."""

    name: str
    question: str
    baseline: str
    arms: tuple[str, ...]
    metrics: tuple[MetricChoice, ...]
    comparison: Comparison
    profiled: bool
    """Whether metrics paired by block can have values."""
    known: Mapping[str, Metric] = field(default_factory=lambda: METRICS)

    @classmethod
    def of(cls, experiment: Experiment) -> Self:
        return cls(
            name=experiment.name,
            question=experiment.question,
            baseline=experiment.baseline,
            arms=tuple(experiment.arms),
            metrics=tuple(experiment.metrics),
            comparison=experiment.comparison,
            profiled=experiment.profile.enabled,
        )

    def metric(self, choice: MetricChoice) -> Metric:
        return self.known[choice.name]

    @property
    def alpha(self) -> float:
        return round(1 - self.comparison.confidence, 12)
