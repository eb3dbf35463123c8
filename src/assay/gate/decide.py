"""From two sides to an outcome per metric. `docs/gate.md` derives the tests and their errors.

A comparison asks whether there is a difference; a gate whether the candidate is *worse by more than the margin*. Both
one-sided tests are made on the differences that the comparison's own judge computed, so what it refuses to
compare is not compared here either.
"""

import math
from collections.abc import Iterable

import numpy as np

from assay.comparison import statistics
from assay.comparison.analysis import transformed
from assay.comparison.guard import Guard, exceeds
from assay.comparison.model import Contrast, Interval, MetricResult
from assay.comparison.multiplicity import holm
from assay.comparison.question import Question
from assay.comparison.sequential import Schedule, SequentialTest, levels
from assay.comparison.statistics import Floats
from assay.comparison.verdict import Judge
from assay.config.metrics import METRICS, Metric
from assay.config.schema import LEAST_NOISE_PAIRS, MetricChoice
from assay.gate import wording
from assay.gate.model import Case, Outcome, Way
from assay.gate.sides import Pair, Side

T_INTERVAL = "t prediction interval over sessions of the baseline"
COMPLETED = "completed"
_WAYS: dict[str, Way] = {"seed": "paired by seed", "block": "paired by block", "exact": "exact"}


def cases(pair: Pair, guard: Guard | None) -> list[Case]:
    """Every metric, and whether the candidate's runs complete; outcomes hold all tests' shared error rate."""
    alpha = level(pair)
    paired = [
        choice
        for choice in pair.experiment.metrics
        if pair.one_session or METRICS[choice.name].pairing != "block"
    ]
    found = [_completion(pair)]
    if paired:
        experiment = pair.experiment.model_copy(update={"metrics": paired})
        for result in Judge(Question.of(experiment), pair.collected, guard).results():
            found.append(_of_contrast(result, result.contrasts[0], pair, alpha))
    found += [
        between_sessions(choice, pair, guard, alpha)
        for choice in pair.experiment.metrics
        if choice not in paired
    ]
    order = [COMPLETED, *(choice.name for choice in pair.experiment.metrics)]
    return adjusted(sorted(found, key=lambda case: order.index(case.name)), alpha)


def level(pair: Pair) -> float:
    return round(1 - pair.experiment.comparison.confidence, 12)


def adjusted(found: list[Case], alpha: float) -> list[Case]:
    """Outcomes that a claim of `worse` would still change, by Holm over all that were tested.

    A pass takes every metric, so the share of missed candidates is at most alpha without any adjustment (Berger 1982).
    """
    tested = [case for case in found if case.p_worse is not None]
    values = holm([case.p_worse for case in tested if case.p_worse is not None])
    by_name = dict(zip((case.name for case in tested), values, strict=True))
    outcomes = []
    for case in found:
        p = by_name.get(case.name)
        if p is not None:
            held_back = case.outcome == "worse" and p > alpha
            case = case.model_copy(update={"p_worse_adjusted": p})
            if held_back:
                case = case.model_copy(update={"outcome": "inconclusive"})
        outcomes.append(case.model_copy(update={"sentence": wording.sentence(case, alpha)}))
    return outcomes


# --- paired ---------------------------------------------------------------------------------------------


def one_sided(worsening: Floats, margin: float) -> tuple[float, float]:
    """p of `worse by at most the margin` and of `worse by the margin or more`, from the pairs' worsening `[n]`.

    One-sided sign-flip tests of the mean, shifted by the margin.
    """
    worse = float(statistics.sign_flip_p_less(margin - worsening))
    return worse, float(statistics.sign_flip_p_less(worsening - margin))


def by_looks(worsening: Floats, margin: float, schedule: Schedule, told: list[float]) -> tuple[float, float]:
    """The same of an experiment that is looked at several times: p-values hold over all looks. told: levels that decide."""
    sides = (worsening - margin, margin - worsening)
    worse, not_worse = (SequentialTest(side, schedule, two_sided=False).p(told) for side in sides)
    return worse, not_worse


def _by_seed(worsening: Floats, margin: float, pair: Pair) -> tuple[float, float]:
    schedule = Schedule.of(pair.experiment.comparison)
    if schedule is None or len(worsening) not in schedule.looks:
        return one_sided(worsening, margin)
    claims = len(pair.experiment.metrics) + 1
    return by_looks(worsening, margin, schedule, levels(level(pair), 1, claims))


def _of_contrast(result: MetricResult, contrast: Contrast, pair: Pair, alpha: float) -> Case:
    metric = METRICS[result.name]
    baseline, candidate = pair.arms
    case = Case(
        name=result.name,
        title=result.title,
        unit=result.unit,
        direction=result.direction,
        scale=result.scale,
        way=_WAYS[metric.pairing],
        outcome="inconclusive",
        sentence="",
        verdict=contrast.verdict,
        margin=result.margin,
        floor=None if result.floor is None else result.floor.value,
        replicates=contrast.pairs,
        baseline=result.arms[baseline].centre,
        candidate=result.arms[candidate].centre,
        estimate=contrast.estimate,
        interval=contrast.interval,
    )
    if contrast.estimate is None:
        return case.model_copy(update={"sentence": "; ".join(contrast.reasons), "way": "not compared"})
    margin = on_scale(metric, result.margin)
    sign = -1.0 if result.direction == "higher" else 1.0
    if metric.pairing == "exact":
        change = sign * math.log(contrast.estimate)
        worse_by = change - margin > 1e-12  # logarithms of decimals are not exact
        return case.model_copy(update={"outcome": "worse" if worse_by else "pass"})
    worsening = sign * np.array(list(contrast.differences.values()), dtype=np.float64)
    tests = _by_seed(worsening, margin, pair) if metric.pairing == "seed" else one_sided(worsening, margin)
    worse, not_worse = tests
    beyond = result.floor is None or exceeds(result.floor, result.name, float(worsening.mean()))
    update: dict[str, object] = {"p_worse": worse, "p_not_worse": not_worse}
    if not_worse <= alpha or (metric.pairing == "seed" and same_models(pair)):
        update["outcome"] = "pass"
    elif worse <= alpha and beyond:
        update["outcome"] = "worse"
    return case.model_copy(update=update)


def on_scale(metric: Metric, margin: float | None) -> float:
    """A margin on the scale of the differences; 0 where none is declared."""
    if margin is None:
        return 0.0
    return math.log1p(margin) if metric.scale == "ratio" else margin


def same_models(pair: Pair) -> bool:
    """Whether both sides' trainings left the same weights, bit by bit, at every seed: then no number is by chance."""
    weights: dict[int, list[str | None]] = {}
    for one in pair.collected.evidence:
        if one.stage == "train":
            weights.setdefault(one.replicate, []).append(one.weights)
    seeds = pair.experiment.seeds
    return all(
        len(weights.get(seed, [])) == 2 and weights[seed][0] is not None and len(set(weights[seed])) == 1
        for seed in seeds
    )


def _completion(pair: Pair) -> Case:
    """Whether the candidate's trainings end with a result at the seeds at which the baseline's do."""
    done = {
        arm: np.array(
            [pair.collected.runs[arm, seed].outcome == "completed" for seed in pair.experiment.seeds],
            dtype=np.float64,
        )
        for arm in pair.arms
    }
    baseline, candidate = (done[arm] for arm in pair.arms)
    worse, not_worse = _by_seed(baseline - candidate, 0.0, pair)
    alpha = level(pair)
    lost = bool((candidate < baseline).any())
    return Case(
        name=COMPLETED,
        title="runs that complete",
        unit="fraction",
        direction="higher",
        scale="difference",
        way="paired by seed",
        outcome="pass" if not lost else "worse" if worse <= alpha else "inconclusive",
        sentence="",
        margin=None,
        replicates=len(baseline),
        baseline=float(baseline.mean()),
        candidate=float(candidate.mean()),
        estimate=float((candidate - baseline).mean()),
        p_worse=worse if lost else None,
        p_not_worse=not_worse if lost else None,
    )


# --- between sessions -----------------------------------------------------------------------------------


def between_sessions(choice: MetricChoice, pair: Pair, guard: Guard | None, alpha: float) -> Case:
    """A cost measured at two different times: one session is one draw, however many blocks it has."""
    metric = METRICS[choice.name]
    direction = choice.direction or metric.direction
    sides = [pair.baseline, *pair.sessions]
    levels = [_level_of(metric, side) for side in sides]
    own = _level_of(metric, pair.candidate)
    problem = next((one for one in (*levels, own) if isinstance(one, str)), None)
    floor = None if guard is None else guard.at(choice.name, pair.experiment.profile.blocks)
    case = Case(
        name=metric.name,
        title=metric.title,
        unit=metric.unit,
        direction=direction,
        scale=metric.scale,
        way="not compared",
        outcome="inconclusive",
        sentence="" if problem is None else problem,
        margin=choice.margin,
        floor=None if floor is None else floor.value,
        replicates=len(sides),
    )
    if problem is not None:
        return case
    known = np.array(levels, dtype=np.float64)
    change = float(own) - float(known.mean())
    read = math.exp if metric.scale == "ratio" else float
    update: dict[str, object] = {
        "baseline": read(float(known.mean())),
        "candidate": read(float(own)),
        "estimate": read(change),
    }
    if len(known) < LEAST_NOISE_PAIRS:
        return case.model_copy(update=update | {"sentence": wording.too_few_sessions(len(known))})
    margin = on_scale(metric, choice.margin)
    worsening = change if direction == "lower" else -change
    worse, not_worse, width = session_test(known, worsening, margin, alpha)
    beyond = floor is None or exceeds(floor, choice.name, change)
    update |= {
        "way": "between sessions",
        "p_worse": worse,
        "p_not_worse": not_worse,
        "interval": Interval(
            method=T_INTERVAL, confidence=1 - alpha, low=read(change - width), high=read(change + width)
        ),
    }
    if not_worse <= alpha:
        update["outcome"] = "pass"
    elif worse <= alpha and beyond:
        update["outcome"] = "worse"
    return case.model_copy(update=update)


def session_test(levels: Floats, worsening: float, margin: float, alpha: float) -> tuple[float, float, float]:
    """Both one-sided p of one further session against k of the baseline `[k]`, and half the prediction interval.

    Student's t with k - 1 degrees of freedom for one future observation: sd * sqrt(1 + 1/k) is the standard error of
    their difference (Hahn and Meeker 1991). Sessions scatter as normal variables with one variance, by assumption.
    """
    from scipy.special import stdtr, stdtrit

    k = len(levels)
    error = float(levels.std(ddof=1)) * math.sqrt(1 + 1 / k)
    width = float(stdtrit(k - 1, 1 - alpha / 2)) * error
    excess = worsening - margin
    if error == 0:
        worse = 0.5 if excess == 0 else float(excess < 0)
        return worse, 1 - worse, width
    below = float(stdtr(k - 1, excess / error))
    return 1 - below, below, width


def _level_of(metric: Metric, side: Side) -> float | str:
    """The mean of a side's valid blocks, on the scale of the differences; or why there is none."""
    visits = {
        number: visit for (_, number), visit in side.collected.visits.items() if visit.outcome != "invalid"
    }
    values = {number: visit.value(metric.name) for number, visit in visits.items()}
    if not values:
        return f"{side.label} has no valid profile block"
    missing = [number for number, value in values.items() if value is None]
    if missing:
        why = visits[missing[0]].why_missing(metric.name)
        return f"there is no value for {side.label} at block {missing[0]} ({why})"
    if metric.scale == "ratio" and min(value for value in values.values() if value is not None) <= 0:
        return f"a ratio needs positive values, and {side.label} has {metric.title} at or below zero"
    return float(transformed(metric, values).mean())


def decision(found: Iterable[Case]) -> Outcome:
    """Worse in one metric is worse; a pass takes all of them."""
    outcomes = {case.outcome for case in found}
    words: tuple[Outcome, ...] = ("worse", "inconclusive", "pass")
    return next(word for word in words if word in outcomes)
