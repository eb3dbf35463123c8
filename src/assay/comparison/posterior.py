"""The Bayesian estimate of a contrast, where the experiment asks for it."""

import math

from assay.comparison import bayes, statistics
from assay.comparison.analysis import Analysis
from assay.comparison.model import Interval, Posterior
from assay.config.metrics import Direction
from assay.config.schema import Comparison

METHOD = "central credible interval"


def posterior(analysis: Analysis, direction: Direction, settings: Comparison) -> Posterior | None:
    """None where it is not asked for."""
    if not settings.bayesian:
        return None
    if (reason := _why_not(analysis)) is not None:
        return Posterior(reason=reason)
    found = bayes.estimate(analysis.differences)
    low, high = (found.quantile((1 + sign * settings.confidence) / 2) for sign in (-1, 1))
    median = found.median
    if analysis.metric.scale == "ratio":
        low, median, high = math.exp(low), math.exp(median), math.exp(high)
    interval = Interval(method=METHOD, confidence=settings.confidence, low=low, high=high)
    above = found.above(0)
    result = Posterior(median=median, interval=interval, better=above if direction == "higher" else 1 - above)
    if analysis.margin is not None:
        over, under = found.above(analysis.margin), 1 - found.above(-analysis.margin)
        better, worse = (over, under) if direction == "higher" else (under, over)
        result.better_beyond_margin, result.worse_beyond_margin = better, worse
        result.within_margin = max(0.0, 1 - over - under)
    return result


def _why_not(analysis: Analysis) -> str | None:
    n = len(analysis.differences)
    if n < bayes.LEAST_PAIRS:
        return f"fewer than three pairs ({n})"
    if n > bayes.MOST_PAIRS:
        return f"more than {bayes.MOST_PAIRS} pairs ({n}): the interval of the verdict says the same"
    return "all differences are the same" if statistics.mean_is_constant(analysis.differences) else None
