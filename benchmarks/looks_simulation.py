"""Prove the sequential design by simulation: false verdicts over all looks, power, and how many seeds it takes.

Prints the table of docs/planning.md. The functions simulated are the ones that comparisons use.

    PYTHONPATH=src python benchmarks/looks_simulation.py [--repetitions 1000] [--seed 1]
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from verdict_simulation import ALPHA, DISTRIBUTIONS, Floats

from assay.comparison import statistics
from assay.comparison.sequential import Schedule, SequentialTest

RESAMPLES = 2000
SCHEDULES = (
    Schedule((8, 12, 16), "obrien-fleming"),
    Schedule((8, 12, 16), "pocock"),
    Schedule((10, 20, 30), "obrien-fleming"),
    Schedule((10, 20, 30), "pocock"),
)


@dataclass(frozen=True)
class Row:
    """Shares of data sets, and mean numbers of pairs at which they stop."""

    test: float
    """The sequential test is significant at some look."""
    verdict: float
    """`better` or `worse` at the look at which the experiment stops."""
    pairs: float
    fixed: float
    """Verdict of one look at all pairs."""
    naive: float
    """Some look is significant by the test of one look, which is no valid test."""


def simulate(schedule: Schedule, differences: Floats) -> Row:
    """differences: `[data sets, all pairs]`."""
    looks = [SequentialTest(one, schedule).at(ALPHA) for one in differences]
    crossed = np.array([[look.crossed for look in one] for one in looks])
    single = np.array([[look.p <= ALPHA for look in one] for one in looks])
    found = np.zeros(crossed.shape, dtype=bool)
    for number, pairs in enumerate(schedule.looks):
        low, high = statistics.bca_interval(differences[:, :pairs], confidence=1 - ALPHA, resamples=RESAMPLES)
        found[:, number] = crossed[:, : number + 1].any(axis=1) & ((low > 0) | (high < 0))
    stops = np.where(found.any(axis=1), found.argmax(axis=1), len(schedule.looks) - 1)
    low, high = statistics.bca_interval(differences, confidence=1 - ALPHA, resamples=RESAMPLES)
    once = (statistics.sign_flip_p(differences) <= ALPHA) & ((low > 0) | (high < 0))
    return Row(
        test=float(crossed.any(axis=1).mean()),
        verdict=float(found.any(axis=1).mean()),
        pairs=float(np.array(schedule.looks)[stops].mean()),
        fixed=float(once.mean()),
        naive=float(single.any(axis=1).mean()),
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000, help="data sets per line")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation")
    arguments = parser.parse_args(argv)
    print("| looks | spending | differences | mean | test | verdict | mean seeds | verdict of one look at all "
          "| each look at 5% |")  # fmt: skip
    print("|---|---|---|--:|--:|--:|--:|--:|--:|")
    for schedule in SCHEDULES:
        for name, draw in DISTRIBUTIONS.items():
            for mean in (0.0, 1.0) if name == "normal" else (0.0,):
                rng = np.random.default_rng([arguments.seed, *schedule.looks])
                row = simulate(schedule, draw(rng, (arguments.repetitions, schedule.looks[-1])) + mean)
                shares = [f"{100 * share:.1f}%" for share in (row.test, row.verdict, row.fixed, row.naive)]
                numbers = [shares[0], shares[1], f"{row.pairs:.1f}", shares[2], shares[3]]
                looks = ", ".join(map(str, schedule.looks))
                print(
                    f"| {looks} | {schedule.spending} | {name} | {mean:g} sd | {' | '.join(numbers)} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
