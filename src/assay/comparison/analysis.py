"""The paired differences of every metric and arm, their statistics, and the families of tests."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from assay.comparison import statistics
from assay.comparison.collect import Collected, Kind
from assay.comparison.multiplicity import adjusted_chains, holm
from assay.comparison.question import Question
from assay.comparison.repeated import repeated_interval
from assay.comparison.sequential import LookResult, Schedule, SequentialTest, levels
from assay.comparison.statistics import Floats
from assay.config.metrics import Metric
from assay.config.schema import MetricChoice

Values = Mapping[str, Mapping[int, float | None]]
"""By arm and replicate; null where there is no value."""

Pair = tuple[str, str]
"""An arm, and what it is compared with."""


def multiplicity_text(question: Question) -> str:
    """How the error rate is held over several hypotheses."""
    one, many = ("pair of arms", "pairs") if question.comparison.contrasts == "all" else ("arm", "arms")
    return (
        f"per family (metrics paired by seed; metrics paired by block): each {one} tests the metrics in the order "
        f"of the file and stops at the first that is not significant; {many} share the level as in Holm's "
        "procedure; equivalence tests are a family of their own, adjusted by Holm"
    )


def pairs_of(question: Question) -> list[Pair]:
    """Every arm against the baseline, in order; then, where the question asks for all pairs, later arms against earlier."""
    others = [arm for arm in question.arms if arm != question.baseline]
    pairs = [(arm, question.baseline) for arm in others]
    if question.comparison.contrasts == "all":
        pairs += [(later, earlier) for earlier, later in combinations(others, 2)]
    return pairs


@dataclass
class Analysis:
    """One metric on one arm against another, the baseline mostly, on its way to a contrast."""

    metric: Metric
    choice: MetricChoice
    arm: str
    baseline: str
    replicates: list[int]
    problem: str | None = None
    structural: bool = False
    """The metric does not exist here, whatever the runs did: no hypothesis of the family."""
    differences: Floats = field(default_factory=lambda: np.empty(0))
    low: float = math.nan
    high: float = math.nan
    repeated: tuple[float, float] | None = None
    """Interval that holds over all looks; None where it is looked once."""
    p: float = 1.0
    p_adjusted: float = 1.0
    equivalence_p: float = 1.0
    equivalence_adjusted: float = 1.0
    effect: float = math.nan
    level: float = math.nan
    """Share of alpha that the pair is sure to have in its family."""
    equivalence_level: float = math.nan
    blocked_by: str | None = None
    looks: list[LookResult] = field(default_factory=list)
    """Of a sequential test, at the pair's level; then the p-values are sequential too."""

    @property
    def margin(self) -> float | None:
        """On the scale of the differences; for ratios ±log(1 + margin), alike for both arms."""
        margin = self.choice.margin
        return margin if margin is None or self.metric.scale == "difference" else math.log1p(margin)


class Analyser:
    """Everything up to the adjusted p-values."""

    def __init__(self, question: Question, collected: Collected) -> None:
        self._question = question
        self._collected = collected
        self.alpha = question.alpha
        self.schedule = Schedule.of(question.comparison)
        self.pairs = pairs_of(question)
        self.values: dict[str, Values] = {}
        self.analyses: dict[str, dict[Pair, Analysis]] = {}

    def run(self) -> None:
        for choice in self._question.metrics:
            metric = self._question.metric(choice)
            if metric.pairing != "exact":
                self.values[choice.name] = self._values(metric.name, metric.pairing)
                self.analyses[choice.name] = self._analyse(metric, choice, self.values[choice.name])
        self._adjust()

    def _values(self, metric: str, kind: Kind) -> dict[str, dict[int, float | None]]:
        """Without blocks that were not valid: what the machine did decided that, for all arms alike, and no result."""
        values: dict[str, dict[int, float | None]] = {arm: {} for arm in self._question.arms}
        replicates = self._collected.replicates(kind)
        invalid = {number for (_, number), replicate in replicates.items() if replicate.outcome == "invalid"}
        for (arm, number), replicate in replicates.items():
            if number not in invalid:
                values[arm][number] = replicate.value(metric)
        return values

    def _problem(self, metric: Metric, pair: Pair, values: Values) -> str | None:
        missing = {name: [number for number, value in values[name].items() if value is None] for name in pair}
        if any(missing.values()):
            kind: Kind = "seed" if metric.pairing == "seed" else "block"
            found = self._collected.replicates(kind)
            lost = [
                f"no value for {name} at {kind} {', '.join(map(str, numbers[:6]))}"
                f"{' and more' if len(numbers) > 6 else ''} ({why})"
                for name, without in missing.items()
                for why, numbers in _by_reason({n: found[name, n].why_missing(metric.name) for n in without})
            ]
            pairs = "the remaining pairs alone would be a selection, so they are not compared"
            return f"there is {' and '.join(lost)}; {pairs}"
        if metric.scale == "ratio":
            bad = [name for name in pair if any((v or 0.0) <= 0 for v in values[name].values())]
            if bad:
                return f"a ratio needs positive values, and {bad[0]} has {metric.title} at or below zero"
        return None

    def _analyse(self, metric: Metric, choice: MetricChoice, values: Values) -> dict[Pair, Analysis]:
        replicates = list(values[self._question.baseline])
        analyses = {pair: Analysis(metric, choice, *pair, replicates) for pair in self.pairs}
        structural = self._structural(metric, values)
        usable = []
        for pair, analysis in analyses.items():
            analysis.structural = structural is not None
            analysis.problem = structural or self._problem(metric, pair, values)
            if analysis.problem is None:
                first, second = (transformed(metric, values[arm]) for arm in pair)
                analysis.differences = first - second
                usable.append(analysis)
        if usable:
            self._compute(usable)
        return analyses

    def _structural(self, metric: Metric, values: Values) -> str | None:
        kind: Kind = "seed" if metric.pairing == "seed" else "block"
        if kind == "block" and not self._question.profiled:
            return "it was not measured, because the experiment does not profile (profile.enabled: false)"
        replicates = self._collected.replicates(kind).values()
        if replicates and all(replicate.outcome == "invalid" for replicate in replicates):
            return "no profile block was valid"
        completed = any(replicate.outcome == "completed" for replicate in replicates)
        unreached = any(metric.name in replicate.missing for replicate in replicates)
        if (
            completed
            and not unreached
            and all(v is None for found in values.values() for v in found.values())
        ):
            return "it was not measured in any run"
        return None

    def _compute(self, analyses: list[Analysis]) -> None:
        """All pairs at once: they have the same replicates."""
        differences = np.stack([analysis.differences for analysis in analyses])
        low, high = statistics.bca_interval(
            differences,
            confidence=self._question.comparison.confidence,
            resamples=self._question.comparison.resamples,
        )
        p = statistics.sign_flip_p(differences)
        effect = statistics.standardised_mean(differences)
        margin = analyses[0].margin
        equivalence = None if margin is None else statistics.equivalence_p(differences, margin)
        for index, analysis in enumerate(analyses):
            analysis.low, analysis.high = float(low[index]), float(high[index])
            analysis.p, analysis.effect = float(p[index]), float(effect[index])
            if equivalence is not None:
                analysis.equivalence_p = float(equivalence[index])
            if self.schedule is not None and analysis.metric.pairing == "seed":
                self._follow(analysis, self.schedule)

    def _follow(self, analysis: Analysis, schedule: Schedule) -> None:
        """Sequential p-values in place of those of one look. Blocks are all there at every look."""
        pairs = len(self.pairs)
        told = levels(self.alpha, pairs, pairs * len(self._question.metrics))
        test = SequentialTest(analysis.differences, schedule)
        analysis.p, analysis.looks = test.p(told), test.at(self.alpha / pairs)
        if math.isfinite(analysis.low):
            analysis.repeated = repeated_interval(analysis.differences, schedule, self.alpha)
        if (margin := analysis.margin) is not None:
            sides = (margin - analysis.differences, margin + analysis.differences)
            one_sided = [SequentialTest(side, schedule, two_sided=False) for side in sides]
            analysis.equivalence_p = max(test.p(told) for test in one_sided)

    # --- families ---------------------------------------------------------------------------------------

    def _adjust(self) -> None:
        for pairing in ("seed", "block"):
            chains = [
                [
                    by_pair[pair]
                    for by_pair in self.analyses.values()
                    if by_pair[pair].metric.pairing == pairing and not by_pair[pair].structural
                ]
                for pair in self.pairs
            ]
            adjusted = adjusted_chains([[analysis.p for analysis in chain] for chain in chains])
            for chain, values in zip(chains, adjusted, strict=True):
                undecided = None
                for analysis, value in zip(chain, values, strict=True):
                    analysis.p_adjusted, analysis.level = value, self.alpha / len(self.pairs)
                    analysis.blocked_by = undecided
                    if undecided is None and value > self.alpha:
                        undecided = analysis.metric.title
            family = [a for chain in chains for a in chain if a.margin is not None]
            for analysis, value in zip(family, holm([a.equivalence_p for a in family]), strict=True):
                analysis.equivalence_adjusted, analysis.equivalence_level = value, self.alpha / len(family)


def _by_reason(reasons: Mapping[int, str]) -> list[tuple[str, list[int]]]:
    found: dict[str, list[int]] = {}
    for number, why in reasons.items():
        found.setdefault(why, []).append(number)
    return list(found.items())


def transformed(metric: Metric, values: Mapping[int, float | None]) -> Floats:
    """Values in the order of their replicates; logarithms for metrics of scale `ratio`."""
    numbers = np.array(list(values.values()), dtype=np.float64)
    return np.log(numbers) if metric.scale == "ratio" else numbers
