"""From a pilot, or a guess, to the number of seeds."""

import math
from dataclasses import dataclass

from pydantic import Field

from assay.comparison.pilot import Cost, Pilot
from assay.comparison.plan_looks import LooksPlan, plan_looks
from assay.comparison.planning import Case, Goal, deviation_bound, pairs_needed, power, steps
from assay.comparison.sequential import Schedule
from assay.config.metrics import Pairing, Scale
from assay.records import Typed

JOULES_PER_KWH = 3.6e6


class Step(Typed):
    """One number of pairs. Costs are of all arms; null where the pilot did not measure them."""

    pairs: int
    power: float
    power_conservative: float | None = Field(
        description="Were the deviation as large as the pilot leaves possible."
    )
    gpu_hours: float | None
    hours: float | None = Field(description="Wall time, with as many jobs at once as told.")
    energy_kwh: float | None = Field(description="Of the trainings' GPUs.")


class Plan(Typed):
    """One arm against the baseline on one metric."""

    metric: str
    title: str
    unit: str
    scale: Scale
    pairing: Pairing
    arm: str
    baseline: str
    goal: Goal
    wanted_power: float
    alpha: float = Field(description="Level that the test is sure to have in its family.")
    difference: float = Field(description="Supposed: arm - baseline, or the ratio.")
    difference_told: bool = Field(description="Whether the user told it; else it is the pilot's.")
    margin: float | None
    deviation: float = Field(description="Of the differences; for ratios of their logarithms.")
    pilot_pairs: int | None = Field(description="Behind the deviation; null: it was told.")
    deviation_bound: float | None = Field(description="Upper confidence bound of the deviation.")
    pairs: int | None = Field(description="Null: see `reason`.")
    pairs_conservative: int | None
    reason: str | None = None
    table: list[Step]
    looks: LooksPlan | None = Field(default=None, description="Null: none were asked for.")


@dataclass(frozen=True)
class Wanted:
    """What the user asks. difference, margin: as an experiment file has them, relative for ratios."""

    goal: Goal
    power: float
    difference: float | None = None
    deviation: float | None = None
    margin: float | None = None
    at_once: int = 1
    schedule: Schedule | None = None


def plan(pilot: Pilot, wanted: Wanted, cost: Cost) -> Plan:
    """Raises: ValueError where equivalence is asked for without a margin."""
    metric = pilot.metric
    case, margin = _case(pilot, wanted)
    known = pilot.pairs > 1 and wanted.deviation is None
    bound = deviation_bound(case.deviation, pilot.pairs) if known else None
    careful = None if bound is None else case.with_deviation(bound)
    pairs = pairs_needed(case, wanted.power)
    conservative = None if careful is None else pairs_needed(careful, wanted.power)
    at_once = wanted.at_once if metric.pairing == "seed" else 1
    table = [
        Step(
            pairs=number,
            power=power(case, number),
            power_conservative=None if careful is None else power(careful, number),
            gpu_hours=_scaled(cost.gpu_seconds, number / 3600),
            hours=_scaled(cost.job_seconds, number / 3600 / at_once),
            energy_kwh=_scaled(cost.joules, number / JOULES_PER_KWH),
        )
        for number in steps((pairs, conservative, pilot.pairs or None), case.least)
    ]
    ratio = metric.scale == "ratio"
    return Plan(
        metric=metric.name,
        title=metric.title,
        unit=metric.unit,
        scale=metric.scale,
        pairing=metric.pairing,
        arm=pilot.arm,
        baseline=pilot.baseline,
        goal=wanted.goal,
        wanted_power=wanted.power,
        alpha=case.alpha,
        difference=math.exp(case.mean) if ratio else case.mean,
        difference_told=wanted.difference is not None,
        margin=margin,
        deviation=case.deviation,
        pilot_pairs=pilot.pairs if known else None,
        deviation_bound=bound,
        pairs=pairs,
        pairs_conservative=conservative,
        reason=None if pairs is not None else _why_none(case),
        table=table,
        looks=_looks(case, wanted, metric.pairing),
    )


def _looks(case: Case, wanted: Wanted, pairing: Pairing) -> LooksPlan | None:
    """Blocks are all there at every look."""
    return None if wanted.schedule is None or pairing != "seed" else plan_looks(case, wanted.schedule)


def _case(pilot: Pilot, wanted: Wanted) -> tuple[Case, float | None]:
    ratio = pilot.metric.scale == "ratio"
    mean = pilot.mean
    if wanted.difference is not None:
        mean = math.log1p(wanted.difference) if ratio else wanted.difference
    margin = wanted.margin if wanted.margin is not None else pilot.metric.margin
    if wanted.goal == "difference":
        deviation = pilot.deviation if wanted.deviation is None else wanted.deviation
        return Case("difference", mean, deviation, pilot.level), margin
    if margin is None:
        raise ValueError(
            f"{pilot.metric.name} has no margin, against which equivalence is shown; write e.g. --margin 0.01"
        )
    scaled = math.log1p(margin) if ratio else margin
    deviation = pilot.deviation if wanted.deviation is None else wanted.deviation
    return Case("equivalence", mean, deviation, pilot.equivalence_level, scaled), margin


def _why_none(case: Case) -> str:
    if case.goal == "equivalence" and abs(case.mean) >= (case.margin or 0):
        return "a difference that is not inside the margin is not equivalence; --difference tells another"
    if case.goal == "difference" and case.mean == 0:
        return "no difference is supposed; --difference tells the smallest that matters"
    return "it would take more than a million; --difference tells the smallest that matters"


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
