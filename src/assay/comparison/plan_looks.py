"""What looks are worth: power, and how many pairs an experiment takes that stops where it is decided."""

import numpy as np
from pydantic import Field

from assay.comparison import statistics
from assay.comparison.planning import Case
from assay.comparison.sequential import Bools, Schedule, SequentialTest
from assay.comparison.statistics import Floats
from assay.config.looks import Spending
from assay.records import Typed

REPETITIONS = 400
_PATTERNS = 1999
_RESAMPLES = 1000
_SEED = 20_251_123


class LooksPlan(Typed):
    """Shares of simulated experiments; means of the pairs at which they stop."""

    looks: list[int]
    spending: Spending
    power: float
    decided: list[float] = Field(description="Share that has its verdict at this look or before.")
    mean_pairs: float = Field(description="Were all as supposed.")
    mean_pairs_under_null: float = Field(description="Were there nothing to be shown.")


def plan_looks(case: Case, schedule: Schedule, *, repetitions: int = REPETITIONS) -> LooksPlan:
    draws = np.random.default_rng(_SEED).normal(size=(repetitions, schedule.looks[-1]))
    found = shown(case, schedule, case.mean + case.deviation * draws)
    nothing = 0.0 if case.goal == "difference" else case.margin or 0.0
    none = shown(case, schedule, nothing + case.deviation * draws)
    return LooksPlan(
        looks=list(schedule.looks),
        spending=schedule.spending,
        power=float(found.any(axis=1).mean()),
        decided=[float(found[:, : look + 1].any(axis=1).mean()) for look in range(len(schedule.looks))],
        mean_pairs=mean_pairs(schedule, found),
        mean_pairs_under_null=mean_pairs(schedule, none),
    )


def shown(case: Case, schedule: Schedule, differences: Floats) -> Bools:
    """Whether the verdict at each look is the one that `case` is to show: `[data sets, looks]`.

    differences: `[data sets, all pairs]`, in the order in which pairs are added. A difference is one of either sign.
    """
    if case.goal == "equivalence":
        assert case.margin is not None
        below = _crossed(case.margin - differences, schedule, case.alpha, two_sided=False)
        return below & _crossed(case.margin + differences, schedule, case.alpha, two_sided=False)
    crossed = _crossed(differences, schedule, case.alpha, two_sided=True)
    for number, pairs in enumerate(schedule.looks):
        low, high = statistics.bca_interval(
            differences[:, :pairs], confidence=1 - case.alpha, resamples=_RESAMPLES
        )
        crossed[:, number] &= (low > 0) | (high < 0)
    return crossed


def mean_pairs(schedule: Schedule, found: Bools) -> float:
    """Of data sets that stop at the first look that shows it, or at the last."""
    stops = np.where(found.any(axis=1), found.argmax(axis=1), len(schedule.looks) - 1)
    return float(np.array(schedule.looks)[stops].mean())


def _crossed(differences: Floats, schedule: Schedule, alpha: float, *, two_sided: bool) -> Bools:
    """Whether a look so far has crossed: `[data sets, looks]`."""
    tests = (SequentialTest(one, schedule, two_sided=two_sided, patterns=_PATTERNS) for one in differences)
    at_looks: Bools = np.array([[look.crossed for look in test.at(alpha)] for test in tests], dtype=bool)
    return np.logical_or.accumulate(at_looks, axis=1)
