"""Looks at a growing number of seeds: what share of the error rate may be used up to each."""

import math
from statistics import NormalDist
from typing import Literal

Spending = Literal["obrien-fleming", "pocock"]
NAMES: dict[Spending, str] = {"obrien-fleming": "O'Brien-Fleming type", "pocock": "Pocock type"}


def spent(spending: Spending, information: float, alpha: float) -> float:
    """Lan and DeMets's (1983) spending functions, two-sided.

    O'Brien and Fleming's type: 2 - 2 Phi(z_{1-alpha/2} / sqrt(t)); Pocock's type: alpha ln(1 + (e - 1) t).
    information: the share t of all seeds, up to 1, where all of alpha is spent.
    """
    if information >= 1:
        return alpha
    if spending == "pocock":
        return alpha * math.log1p((math.e - 1) * information)
    z = NormalDist().inv_cdf(1 - alpha / 2) / math.sqrt(information)
    return math.erfc(z / math.sqrt(2))


def idle(looks: list[int], spending: Spending, alpha: float) -> list[int]:
    """The looks at which no two-sided sign-flip test can be significant: its smallest p is 2^(1 - seeds)."""
    return [look for look in looks if spent(spending, look / looks[-1], alpha) < 2.0 ** (1 - look)]
