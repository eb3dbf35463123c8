"""What each run scored on each test example, from the predictions beside its record."""

from collections.abc import Mapping

import numpy as np

from assay.comparison.collect import Collected
from assay.comparison.statistics import Floats
from assay.config.schema import Experiment

COLUMNS = {"accuracy": "correct", "loss": "loss"}
"""Metrics that are means over test examples, and the column of `predictions.parquet` that they are the mean of."""

Scores = Mapping[str, Mapping[tuple[str, int], Floats]]
"""By metric, arm and seed: float32 `[E]`, the test split's examples in order."""


def read_scores(experiment: Experiment, collected: Collected) -> Scores:
    """Of every run that completed; metrics that the experiment judges. Predictions were checked when they were read."""
    return {
        choice.name: {
            key: np.asarray(run.examples[COLUMNS[choice.name]], np.float32)
            for key, run in collected.runs.items()
            if run.examples and run.value(choice.name) is not None
        }
        for choice in experiment.metrics
        if choice.name in COLUMNS
    }
