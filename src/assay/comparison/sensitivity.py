"""What a verdict would be, whatever the missing runs had come to: for metrics that have bounds."""

from collections.abc import Mapping

import numpy as np

from assay.comparison import statistics
from assay.comparison.analysis import Analysis, Values
from assay.comparison.model import Sensitivity, VerdictWord
from assay.comparison.statistics import Floats
from assay.config.metrics import Direction


def sensitivity(analysis: Analysis, direction: Direction, values: Values) -> Sensitivity | None:
    """Of a contrast that lacks pairs; None where the metric has no bounds, or no pair is whole.

    The one-sided p of the sign-flip test falls in every difference: what the test says where all missing values are as
    low as can be, and as high, bounds what it says in between. The test alone, at the level that the contrast is sure
    to have: no interval, noise floor, equivalence or order of metrics.
    """
    first, second = values[analysis.arm], values[analysis.baseline]
    known = [value for value in (*first.values(), *second.values()) if value is not None]
    whole = sum(first[number] is not None and second[number] is not None for number in first)
    if analysis.metric.unit != "fraction" or not whole or min(known) < 0 or max(known) > 1:
        return None
    lowest = _filled(first, 0) - _filled(second, 1)
    highest = _filled(first, 1) - _filled(second, 0)
    worst, best = (lowest, highest) if direction == "higher" else (highest, lowest)
    return Sensitivity(
        missing=len(first) - whole,
        worst=_word(worst, direction, analysis.level),
        worst_estimate=float(worst.mean()),
        best=_word(best, direction, analysis.level),
        best_estimate=float(best.mean()),
    )


def _filled(values: Mapping[int, float | None], by: float) -> Floats:
    return np.array([by if value is None else value for value in values.values()])


def _word(differences: Floats, direction: Direction, level: float) -> VerdictWord:
    if float(statistics.sign_flip_p(differences)) > level:
        return "inconclusive"
    return "better" if (differences.mean() > 0) == (direction == "higher") else "worse"
