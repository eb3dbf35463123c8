"""Per metric and arm: better, worse, equivalent or inconclusive, by the rules of `docs/statistics.md`.

- `better`, `worse`: the sign-flip test, adjusted over its family, has p <= alpha, the BCa interval excludes no
  difference, and where the experiment asks for a noise floor the difference is beyond it.
- `equivalent`: a margin is declared, and two one-sided tests show that the difference is smaller. This
  outranks `better` and `worse`: the margin says what does not matter. The sentence tells both.
- `inconclusive`: everything else, with the reason and what it would take.

Every pair counts: where one is missing, the rest is not compared, since what failed was not chosen by chance.
"""

import math
from collections.abc import Mapping

import numpy as np

from assay.comparison import statistics
from assay.comparison.analysis import Analyser, Analysis, Pair, Values, transformed
from assay.comparison.collect import Collected
from assay.comparison.guard import Guard, exceeds
from assay.comparison.model import (
    BCA,
    REPEATED,
    ArmSummary,
    Contrast,
    EffectSize,
    Equivalence,
    Interval,
    Look,
    MetricResult,
    Needed,
    Probability,
    Test,
    VerdictWord,
)
from assay.comparison.posterior import posterior
from assay.comparison.question import Question
from assay.comparison.ranking import ranking
from assay.comparison.sensitivity import sensitivity
from assay.comparison.sequential import Schedule
from assay.comparison.statistics import Floats
from assay.comparison.stopping import method, open_looks
from assay.comparison.wording import sensitivity_text, sentence, within_floor
from assay.config.metrics import METRICS, Direction, Metric
from assay.config.schema import MetricChoice


class Judge:
    """All metrics of one question."""

    def __init__(self, question: Question, collected: Collected, guard: Guard | None = None) -> None:
        self._question = question
        self._collected = collected
        self._guard = guard
        self._analyser = Analyser(question, collected)
        self._confidence = question.comparison.confidence
        self._resamples = question.comparison.resamples
        self._alpha = self._analyser.alpha

    def results(self) -> list[MetricResult]:
        """Every metric of the question, in its order."""
        self._analyser.run()
        return [
            self._exact(position, choice)
            if self._question.metric(choice).pairing == "exact"
            else self._tested(position, choice)
            for position, choice in enumerate(self._question.metrics)
        ]

    def _tested(self, position: int, choice: MetricChoice) -> MetricResult:
        metric = self._question.metric(choice)
        values = self._analyser.values[choice.name]
        result = _result(position, metric, choice, self._summaries(metric, values))
        pairs = max(
            (len(one.differences) for one in self._analyser.analyses[choice.name].values()), default=0
        )
        result.floor = None if self._guard is None else self._guard.at(choice.name, pairs)
        for analysis in self._analyser.analyses[choice.name].values():
            contrast = self._contrast(analysis, result)
            self._add(result, _worded(result, contrast, self._level(analysis, contrast)))
        result.ranking = ranking(self._question, metric, result, values)
        return result

    def _add(self, result: MetricResult, contrast: Contrast) -> None:
        of_baseline = contrast.baseline == self._question.baseline
        (result.contrasts if of_baseline else result.between).append(contrast)

    def _level(self, analysis: Analysis, contrast: Contrast) -> float:
        towards_equivalence = contrast.needed is not None and contrast.needed.towards == "equivalence"
        return analysis.equivalence_level if towards_equivalence else analysis.level

    def _contrast(self, analysis: Analysis, result: MetricResult) -> Contrast:
        direction, floor = result.direction, result.floor
        arm, baseline = analysis.arm, analysis.baseline
        if analysis.problem is not None:
            return self._without_pairs(analysis, result, analysis.problem)
        differences = analysis.differences
        mean = float(differences.mean())
        constant = bool(statistics.mean_is_constant(differences))
        excludes = (constant and mean != 0) or analysis.low > 0 or analysis.high < 0
        beyond = exceeds(floor, result.name, mean)
        held_back = floor is not None and not beyond
        tested = analysis.p_adjusted <= self._alpha and excludes
        significant = tested and not held_back
        shown = analysis.margin is not None and analysis.equivalence_adjusted <= self._alpha
        verdict = _word(mean, direction, significant=significant, equivalent=shown)
        needed = None if verdict != "inconclusive" or (tested and held_back) else self._needed(analysis)
        reasons = self._reasons(analysis, excludes=excludes) if verdict == "inconclusive" else []
        reasons += open_looks(analysis.looks, self._analyser.schedule) if verdict == "inconclusive" else []
        if floor is not None and tested and held_back:
            reasons.append(within_floor(result, floor))
        better = differences if direction == "higher" else -differences
        probability = statistics.probability_above(better, confidence=self._confidence)
        return Contrast(
            arm=arm,
            baseline=baseline,
            verdict=verdict,
            sentence="",
            reasons=reasons,
            pairs=len(differences),
            differences={str(n): float(d) for n, d in zip(analysis.replicates, differences, strict=True)},
            estimate=_readable(analysis.metric, mean),
            interval=self._interval(analysis.metric, analysis.low, analysis.high, len(differences))
            if analysis.repeated is None
            else self._repeated(analysis.metric, *analysis.repeated),
            significant=significant,
            beyond_floor=beyond,
            within_margin=None if analysis.margin is None else shown,
            test=_test(analysis, self._analyser.schedule),
            looks=[Look(**vars(look)) for look in analysis.looks] or None,
            equivalence=_equivalence(analysis, shown=shown),
            effect_size=_effect_size(analysis),
            posterior=posterior(analysis, direction, self._question.comparison),
            probability_better=Probability(value=probability[0], low=probability[1], high=probability[2]),
            needed=needed,
        )

    def _without_pairs(self, analysis: Analysis, result: MetricResult, problem: str) -> Contrast:
        """Not compared; what the missing values could have changed is told where the metric has bounds."""
        contrast = Contrast(
            arm=analysis.arm,
            baseline=analysis.baseline,
            verdict="inconclusive",
            sentence="",
            pairs=0,
            reasons=[problem],
        )
        if not analysis.structural:
            values = self._analyser.values[result.name]
            contrast.sensitivity = sensitivity(analysis, result.direction, values)
        if contrast.sensitivity is not None:
            contrast.reasons.append(sensitivity_text(result, contrast, contrast.sensitivity))
        return contrast

    def _reasons(self, analysis: Analysis, *, excludes: bool) -> list[str]:
        n, unit = len(analysis.differences), "seeds" if analysis.metric.pairing == "seed" else "blocks"
        fewest = statistics.pairs_for_any_verdict(analysis.level)
        if n < fewest:
            return [
                f"an exact test needs at least {fewest} {unit} to reach p \N{LESS-THAN OR EQUAL TO} "
                f"{analysis.level:.3g}, and there {'is' if n == 1 else 'are'} {n}"
            ]
        if analysis.p <= analysis.level and analysis.blocked_by is not None:
            return [
                f"no difference is claimed, because {analysis.blocked_by} stands before it in the "
                "experiment's list and is not significant"
            ]
        if analysis.p_adjusted <= self._alpha and not excludes:
            which = "interval" if analysis.repeated is None else "BCa interval of these seeds"
            return [f"the test finds a difference, and the {which} does not exclude that there is none"]
        return []

    def _needed(self, analysis: Analysis) -> Needed | None:
        """The cheaper of the two ways to a conclusion."""
        differences, n = analysis.differences, len(analysis.differences)
        already = analysis.p <= analysis.level and analysis.blocked_by is not None
        schedule = self._analyser.schedule
        if n < 3 or already or (schedule is not None and analysis.looks and n < schedule.looks[-1]):
            return None
        mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
        ways = []
        pairs = statistics.pairs_for_difference(mean, deviation, alpha=analysis.level)
        if pairs is not None and analysis.blocked_by is None:
            ways.append(("difference", max(pairs, n + 1)))
        if analysis.margin is not None:
            level = analysis.equivalence_level
            pairs = statistics.pairs_for_equivalence(mean, deviation, analysis.margin, alpha=level)
            if pairs is not None:
                ways.append(("equivalence", max(pairs, n + 1)))
        if not ways:
            return None
        towards, total = min(ways, key=lambda way: way[1])
        return Needed(
            towards="difference" if towards == "difference" else "equivalence",
            pairs=total,
            further=total - n,
            power=statistics.POWER,
        )

    def _interval(self, metric: Metric, low: float, high: float, n: int) -> Interval:
        if math.isfinite(low) and math.isfinite(high):
            low, high = _readable(metric, low), _readable(metric, high)
            return Interval(method=BCA, confidence=self._confidence, low=low, high=high)
        reason = f"fewer than three replicates ({n})" if n < 3 else "all are the same: nothing varies"
        return Interval(method=BCA, confidence=self._confidence, reason=reason)

    def _repeated(self, metric: Metric, low: float, high: float) -> Interval:
        if math.isfinite(low) and math.isfinite(high):
            low, high = _readable(metric, low), _readable(metric, high)
            return Interval(method=REPEATED, confidence=self._confidence, low=low, high=high)
        reason = "this look may spend too little of the error rate to exclude any difference"
        if math.isnan(low):
            reason = "the looks contradict one another"
        return Interval(method=REPEATED, confidence=self._confidence, reason=reason)

    # --- arms -------------------------------------------------------------------------------------------

    def _summaries(self, metric: Metric, values: Values) -> dict[str, ArmSummary]:
        """Centre and interval of each arm, arms of equal replicate count at once."""
        present = {arm: {k: v for k, v in found.items() if v is not None} for arm, found in values.items()}
        usable = {
            arm: transformed(metric, found)
            for arm, found in present.items()
            if found
            and (metric.scale == "difference" or min(found.values()) > 0)
            and not (metric.censored and len(found) < len(values[arm]))
        }
        ends: dict[str, tuple[float, float]] = {}
        for n in {len(numbers) for numbers in usable.values()}:
            arms = [arm for arm, numbers in usable.items() if len(numbers) == n]
            stacked = np.stack([usable[arm] for arm in arms])
            low, high = statistics.bca_interval(
                stacked, confidence=self._confidence, resamples=self._resamples
            )
            ends |= {arm: (float(low[i]), float(high[i])) for i, arm in enumerate(arms)}
        return {arm: self._summary(metric, values[arm], usable.get(arm), ends.get(arm)) for arm in values}

    def _summary(
        self,
        metric: Metric,
        values: Mapping[int, float | None],
        numbers: Floats | None,
        ends: tuple[float, float] | None,
    ) -> ArmSummary:
        present = [value for value in values.values() if value is not None]
        return ArmSummary(
            values={str(number): value for number, value in values.items()},
            n=len(present),
            centre=None if numbers is None else _readable(metric, float(numbers.mean())),
            deviation=float(np.std(present, ddof=1)) if len(present) > 1 and numbers is not None else None,
            interval=None if ends is None else self._interval(metric, *ends, len(present)),
        )

    # --- exact metrics ----------------------------------------------------------------------------------

    def _exact(self, position: int, choice: MetricChoice) -> MetricResult:
        """Counts have no random error: one look decides, and every record must say the same."""
        metric = self._question.metric(choice)
        counts = self._counts(choice.name)
        summaries = {
            arm: ArmSummary(
                values={str(i): value for i, value in enumerate(found)},
                n=len(found),
                centre=found[0] if len(found) == 1 else None,
                deviation=None,
            )
            for arm, found in counts.items()
        }
        result = _result(position, metric, choice, summaries)
        for pair in self._analyser.pairs:
            contrast = self._exact_contrast(pair, choice, counts, result.direction)
            self._add(result, _worded(result, contrast, self._alpha))
        return result

    def _counts(self, metric: str) -> dict[str, list[float]]:
        """The distinct values in each arm's records: one, if all is well."""
        found: dict[str, set[float]] = {arm: set() for arm in self._question.arms}
        for replicate in (*self._collected.runs.values(), *self._collected.visits.values()):
            measurement = replicate.metrics.get(metric) or replicate.other_metrics.get(metric)
            if measurement is not None and measurement.value is not None:
                found[replicate.arm].add(measurement.value)
        return {arm: sorted(values) for arm, values in found.items()}

    def _exact_contrast(
        self,
        pair: Pair,
        choice: MetricChoice,
        counts: Mapping[str, list[float]],
        direction: Direction,
    ) -> Contrast:
        arm, baseline = pair
        contrast = Contrast(arm=arm, baseline=baseline, verdict="inconclusive", sentence="", pairs=0)
        for name in (arm, baseline):
            if len(counts[name]) > 1:
                contrast.reasons.append(
                    f"the records of {name} disagree: {', '.join(f'{count:,.15g}' for count in counts[name])}"
                )
            elif not counts[name]:
                contrast.reasons.append(f"it was not measured for {name}")
            elif counts[name][0] <= 0:
                contrast.reasons.append(f"a ratio needs positive counts, and {name} has {counts[name][0]:g}")
        if contrast.reasons:
            return contrast
        ratio = counts[arm][0] / counts[baseline][0]
        small = ratio == 1 or (choice.margin is not None and abs(math.log(ratio)) < math.log1p(choice.margin))
        contrast.estimate, contrast.pairs, contrast.significant = ratio, 1, ratio != 1
        contrast.within_margin = small if choice.margin is not None else None
        contrast.verdict = _word(math.log(ratio), direction, significant=ratio != 1, equivalent=small)
        return contrast


# --- parts of a contrast --------------------------------------------------------------------------------


def _word(mean: float, direction: Direction, *, significant: bool, equivalent: bool) -> VerdictWord:
    if equivalent:
        return "equivalent"
    if not significant:
        return "inconclusive"
    return "better" if (mean > 0) == (direction == "higher") else "worse"


def _result(position: int, metric: Metric, choice: MetricChoice, arms: dict[str, ArmSummary]) -> MetricResult:
    return MetricResult(
        name=metric.name,
        title=metric.title,
        unit=metric.unit,
        direction=choice.direction or metric.direction,
        pairing=metric.pairing,
        scale=metric.scale,
        margin=choice.margin,
        position=position,
        arms=arms,
        contrasts=[],
    )


def _worded(result: MetricResult, contrast: Contrast, level: float) -> Contrast:
    known = METRICS.get(result.name)
    own = known is not None and result.direction == known.direction
    text = sentence(result, contrast, own_direction=own, alpha=level)
    return contrast.model_copy(update={"sentence": text})


def _readable(metric: Metric, number: float) -> float:
    return math.exp(number) if metric.scale == "ratio" else number


def _test(analysis: Analysis, schedule: Schedule | None) -> Test:
    n = len(analysis.differences)
    if schedule is not None and analysis.looks:
        return Test(
            method=method(schedule, len(analysis.looks)),
            p=analysis.p,
            p_adjusted=analysis.p_adjusted,
            minimum_p=statistics.minimum_p(analysis.differences),
        )
    way = "exact" if n <= statistics.ENUMERATED_PAIRS else f"{statistics.MONTE_CARLO_FLIPS} random patterns"
    return Test(
        method=f"sign-flip, two-sided, {way}",
        p=analysis.p,
        p_adjusted=analysis.p_adjusted,
        minimum_p=statistics.minimum_p(analysis.differences),
    )


def _equivalence(analysis: Analysis, *, shown: bool) -> Equivalence | None:
    if analysis.choice.margin is None:
        return None
    return Equivalence(
        method="two one-sided sign-flip tests",
        margin=analysis.choice.margin,
        p=analysis.equivalence_p,
        p_adjusted=analysis.equivalence_adjusted,
        shown=shown,
    )


def _effect_size(analysis: Analysis) -> EffectSize:
    if math.isfinite(analysis.effect):
        return EffectSize(value=analysis.effect)
    few = len(analysis.differences) < 3
    return EffectSize(value=None, reason="fewer than three pairs" if few else "all differences are the same")
