"""Contrasts on shared test examples: from the scores of each run to what the comparison says of them."""

import numpy as np

from assay.comparison import examples
from assay.comparison.examples import Crossed
from assay.comparison.model import (
    Contrast,
    Discordance,
    Interval,
    MetricResult,
    Pooled,
    Reach,
    SharedExamples,
    Variances,
)
from assay.comparison.predictions import COLUMNS, Scores
from assay.comparison.question import Question
from assay.comparison.statistics import Floats, Integers
from assay.comparison.wording import shared_sentence

T = "Student's t, crossed analysis of variance of seeds by examples"
SATTERTHWAITE = f"{T}, Satterthwaite's degrees of freedom"
T_EXAMPLES = "Student's t over examples"
BOOTSTRAP = "paired percentile bootstrap over examples"


def with_examples(metric: MetricResult, scores: Scores, question: Question) -> MetricResult:
    """The metric with what shared test examples say of each of its contrasts."""
    if metric.name not in COLUMNS or not scores.get(metric.name):
        return metric

    def added(contrast: Contrast) -> Contrast:
        found = _shared(metric, contrast, scores, question)
        return contrast.model_copy(update={"shared_examples": found})

    update = {"contrasts": [*map(added, metric.contrasts)], "between": [*map(added, metric.between)]}
    return metric.model_copy(update=update)


def _shared(metric: MetricResult, contrast: Contrast, scores: Scores, question: Question) -> SharedExamples:
    if contrast.estimate is None:
        return SharedExamples(reason="a pair is missing, and the remaining ones would be a selection")
    known, seeds = scores[metric.name], [int(seed) for seed in contrast.differences]
    for arm in (contrast.arm, contrast.baseline):
        if without := [seed for seed in seeds if (arm, seed) not in known]:
            return SharedExamples(
                reason=f"no predictions of {arm} at seed {', '.join(map(str, without[:6]))}"
            )
    sizes = {len(known[arm, seed]) for arm in (contrast.arm, contrast.baseline) for seed in seeds}
    if len(sizes) > 1 or min(sizes) < 2:
        return SharedExamples(
            reason=f"runs have predictions of {' and '.join(map(str, sorted(sizes)))} examples"
        )
    differences = np.empty((len(seeds), sizes.pop()))
    for row, seed in zip(differences, seeds, strict=True):
        np.subtract(known[contrast.arm, seed], known[contrast.baseline, seed], out=row, dtype=np.float64)
    found = _analyse(metric, seeds, differences, question)
    return found.model_copy(update={"sentence": shared_sentence(metric, contrast, found)})


def _analyse(
    metric: MetricResult, seeds: list[int], differences: Floats, question: Question
) -> SharedExamples:
    confidence = question.comparison.confidence
    count, width = differences.shape
    shared = SharedExamples(seeds=count, examples=width)
    if metric.name == "accuracy":
        whole = differences.astype(np.int64)
        shared.discordance = {str(seed): _discordance(row) for seed, row in zip(seeds, whole, strict=True)}
        shared.pooled = Pooled(p=examples.whole_examples_p(whole.sum(axis=0)))
    if not differences.any():
        shared.reason = "the two score the same on every example at every seed"
        return shared
    if count < 2:
        shared.reason = "one seed cannot tell what seeds do"
        return shared
    found = examples.crossed(differences)
    by_seed, by_example, rest = found.variances
    shared.variances = Variances(seeds=by_seed, examples=by_example, interaction=rest)
    shared.new_seeds = _reach(found, *found.error_for_seeds(), T, confidence)
    shared.new_both = _reach(found, *found.error_for_both(), SATTERTHWAITE, confidence)
    low, high = examples.interval_for_both(found, confidence=confidence)
    shared.new_both.interval = Interval(method=SATTERTHWAITE, confidence=confidence, low=low, high=high)
    shared.new_examples = _reach(found, *found.error_for_examples(), T_EXAMPLES, confidence)
    if metric.name == "accuracy":
        low, high = examples.bootstrap_over_examples(
            differences.mean(axis=0), confidence=confidence, resamples=question.comparison.resamples
        )
        shared.new_examples.interval = Interval(method=BOOTSTRAP, confidence=confidence, low=low, high=high)
    return shared


def _reach(found: Crossed, error: float, freedom: float, method: str, confidence: float) -> Reach:
    low, high = examples.t_interval(found.mean, error, freedom, confidence=confidence)
    interval = Interval(method=method, confidence=confidence, low=low, high=high)
    return Reach(standard_error=error, degrees_of_freedom=freedom, interval=interval)


def _discordance(row: Integers) -> Discordance:
    arm, baseline = int((row > 0).sum()), int((row < 0).sum())
    p, mid_p = examples.mcnemar(arm, baseline)
    return Discordance(arm_only=arm, baseline_only=baseline, p=p, mid_p=mid_p)
