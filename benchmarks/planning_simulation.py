"""Prove `assay plan` by simulation: whether the number of seeds that it tells has the power that was wanted.

Prints the tables of docs/planning.md. Fresh data sets go through the functions that comparisons use, with their own number
of sign patterns and resamples.

    PYTHONPATH=src python benchmarks/planning_simulation.py [--repetitions 2000] [--seed 1]
"""

import argparse
import sys
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from verdict_simulation import DISTRIBUTIONS, Floats

from assay.comparison import statistics
from assay.comparison.planning import ASSURANCE, Case, deviation_bound, pairs_needed, power

ALPHA = 0.05
RESAMPLES = 2000


def shown(case: Case, differences: Floats) -> float:
    """Share of data sets `[..., n]` in which the verdict says what `case` is to show."""
    if case.goal == "equivalence":
        assert case.margin is not None
        return float((statistics.equivalence_p(differences, case.margin) <= case.alpha).mean())
    low, _ = statistics.bca_interval(differences, confidence=1 - case.alpha, resamples=RESAMPLES)
    return float(((statistics.sign_flip_p(differences) <= case.alpha) & (low > 0)).mean())


def reached(case: Case, pairs: int, distribution: str, *, repetitions: int, seed: int) -> float:
    """Power of the verdict at `pairs`, of data sets that the plan has not seen."""
    draws = DISTRIBUTIONS[distribution](np.random.default_rng([seed, pairs]), (repetitions, pairs))
    return shown(case, case.mean + case.deviation * draws)


def assured(case: Case, pilot: int, wanted: float, *, pilots: int, seed: int) -> tuple[float, float]:
    """Share of pilots whose number has the power that was wanted: planned with their deviation, and with its bound.

    Both numbers by the normal approximation, which is quick; their power by the simulation.
    """
    deviations = np.random.default_rng([seed, pilot]).normal(size=(pilots, pilot)).std(axis=-1, ddof=1)
    true = cache(lambda pairs: power(case, pairs) >= wanted)

    def holds(deviation: float) -> bool:
        pairs = statistics.pairs_for_difference(case.mean, deviation, alpha=case.alpha, power=wanted)
        return pairs is None or pairs > 300 or true(pairs)

    plain = np.mean([holds(float(s)) for s in deviations])
    bound = np.mean([holds(deviation_bound(float(s), pilot)) for s in deviations])
    return float(plain), float(bound)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000, help="data sets per line")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation")
    arguments = parser.parse_args(argv)
    print("| to show | wanted power | seeds | " + " | ".join(DISTRIBUTIONS) + " |")
    print("|---|--:|--:|" + "--:|" * len(DISTRIBUTIONS))
    for wanted in (0.8, 0.9):
        for goal, size in (
            *(("difference", size) for size in (2.0, 1.2, 0.9, 0.7, 0.5)),
            *(("equivalence", size) for size in (1.5, 1.0, 0.7)),
        ):
            if goal == "difference":
                case, what = Case("difference", size, 1.0, ALPHA), f"difference of {size:g} sd"
            else:
                case, what = Case("equivalence", 0.0, 1.0, ALPHA, size), f"equivalence, margin {size:g} sd"
            pairs = pairs_needed(case, wanted)
            assert pairs is not None
            found = [
                reached(case, pairs, name, repetitions=arguments.repetitions, seed=arguments.seed)
                for name in DISTRIBUTIONS
            ]
            numbers = " | ".join(f"{100 * share:.1f}%" for share in found)
            print(f"| {what} | {100 * wanted:g}% | {pairs} | {numbers} |", flush=True)
    print(f"\n| seeds of the pilot | with its deviation | with the upper {100 * ASSURANCE:g}% bound |")
    print("|--:|--:|--:|")
    for pilot in (3, 6, 10, 20):
        shares = assured(Case("difference", 0.7, 1.0, ALPHA), pilot, 0.8, pilots=2000, seed=arguments.seed)
        print(f"| {pilot} | " + " | ".join(f"{100 * share:.0f}%" for share in shares) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
