"""What each run scored on each test example, from the predictions beside its record."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from assay.comparison.collect import Collected
from assay.comparison.statistics import Floats
from assay.config.schema import Experiment
from assay.records import RecordError

COLUMNS = {"accuracy": "correct", "loss": "loss"}
"""Metrics that are means over test examples, and the column of `predictions.parquet` that they are the mean of."""
FILE = "predictions.parquet"

Scores = Mapping[str, Mapping[tuple[str, int], Floats]]
"""By metric, arm and seed: float32 `[E]`, the test split's examples in order."""


def read_scores(experiment: Experiment, results: Path, collected: Collected) -> Scores:
    """Of every run that completed and has its predictions; metrics that the experiment judges.

    Raises: RecordError for a damaged file, one whose mean is not the record's number, and one of other examples.
    """
    metrics = [choice.name for choice in experiment.metrics if choice.name in COLUMNS]
    scores: dict[str, dict[tuple[str, int], Floats]] = {name: {} for name in metrics}
    labels: Floats | None = None
    for (arm, seed), run in collected.runs.items() if metrics else ():
        path = results / "runs" / arm / f"seed-{seed}" / "evaluate" / FILE
        if run.outcome != "completed" or not path.exists():
            continue
        found = _columns(path, {"label", *(COLUMNS[name] for name in metrics)})
        if "label" in found:
            if labels is not None and not np.array_equal(labels, found["label"]):
                raise RecordError(f"{path}: its labels are those of other examples; {_ANEW}")
            labels = found["label"]
        for name in metrics:
            if COLUMNS[name] in found:
                scores[name][arm, seed] = _checked(path, name, found[COLUMNS[name]], run.value(name))
    return scores


_ANEW = "remove it and run the experiment again"


def _columns(path: Path, wanted: set[str]) -> dict[str, Floats]:
    import polars

    try:
        names = wanted & set(polars.read_parquet_schema(path))
        frame = polars.read_parquet(path, columns=sorted(names))
        return {name: frame[name].cast(polars.Float32).to_numpy() for name in names}
    except (polars.exceptions.PolarsError, OSError) as error:
        raise RecordError(f"{path}: is not a table of predictions; {_ANEW}: {error}") from None


def _checked(path: Path, metric: str, scores: Floats, stated: float | None) -> Floats:
    mean = float(scores.mean(dtype=np.float64)) if len(scores) else math.nan
    if stated is None or not math.isclose(mean, stated, rel_tol=1e-5, abs_tol=1e-6):
        raise RecordError(
            f"{path}: the mean of {COLUMNS[metric]} is {mean:.6g}, and the record beside it says {metric} {stated}; {_ANEW}"
        )
    return scores
