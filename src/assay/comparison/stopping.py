"""Whether an experiment that is looked at several times is decided, and how that is told."""

from collections.abc import Sequence

from assay.comparison.model import MetricResult, Sequential
from assay.comparison.question import Question
from assay.comparison.sequential import ENUMERATED, PATTERNS, LookResult, Schedule
from assay.config.looks import NAMES


def looked(question: Question, metrics: Sequence[MetricResult], *, valid: bool) -> Sequential | None:
    """Null where it is looked once.

    Further seeds decide nothing where every contrast on the first metric that is paired by seed has its verdict, or cannot
    have one: a pair is missing, or the comparison is invalid.
    """
    schedule = Schedule.of(question.comparison)
    if schedule is None:
        return None
    by_seed = [metric for metric in metrics if metric.pairing == "seed"]
    seeds = max((len(arm.values) for metric in by_seed for arm in metric.arms.values()), default=0)
    if seeds not in schedule.looks:
        return None
    first = [*by_seed[0].contrasts, *by_seed[0].between]
    open_ones = [contrast for contrast in first if contrast.verdict == "inconclusive" and contrast.pairs]
    decided = not valid or not open_ones
    return Sequential(
        looks=list(schedule.looks),
        spending=schedule.spending,
        look=schedule.looks.index(seeds) + 1,
        seeds=seeds,
        alpha_spent=schedule.spent(seeds, question.alpha),
        decided=decided,
        stopped_early=decided and seeds < schedule.looks[-1],
    )


def of_looks(sequential: Sequential | None) -> list[str]:
    """What a reader of the numbers has to know."""
    if sequential is None:
        return []
    which = f"look {sequential.look} of {len(sequential.looks)}, {sequential.seeds} of {sequential.looks[-1]} seeds"
    if not sequential.stopped_early:
        return [f"{which}: p-values and intervals of differences allow for all looks"]
    return [
        f"{which}: stopped early, because the first metric is decided; p-values and intervals of differences allow for "
        "all looks, estimates do not: a difference that ends an experiment early is overstated on average"
    ]


def method(schedule: Schedule, looks: int) -> str:
    way = "exact" if schedule.looks[-1] <= ENUMERATED else f"{PATTERNS} random patterns"
    return (
        f"group-sequential sign-flip, two-sided, {way}, {NAMES[schedule.spending]} spending, "
        f"look {looks} of {len(schedule.looks)}"
    )


def open_looks(looks: Sequence[LookResult], schedule: Schedule | None) -> list[str]:
    """Why nothing is claimed yet at a look that is not the last."""
    if not looks or schedule is None or looks[-1].pairs == schedule.looks[-1]:
        return []
    last = looks[-1]
    following = schedule.looks[len(looks)]
    need = "nothing can be significant" if last.boundary is None else f"p must be at most {last.boundary:.2g}"
    return [
        f"at look {len(looks)} of {len(schedule.looks)} {need}, and p is {last.p:.2g}; the next look is after {following} seeds"
    ]
