"""Prove the repeated confidence intervals by simulation: coverage over all looks, and at the look at which it stops.

Prints the table of docs/statistics.md. The function simulated is the one that comparisons use, with fewer random sign patterns
in place of all, which holds the level alike. Against it the BCa interval of the seeds at hand, which knows of one look.

    PYTHONPATH=src python benchmarks/looks_intervals.py [--repetitions 400] [--seed 1]
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from verdict_simulation import ALPHA, DISTRIBUTIONS, Floats

from assay.comparison import statistics
from assay.comparison.repeated import repeated_interval
from assay.comparison.sequential import Schedule

RESAMPLES, PATTERNS = 1000, 299
SCHEDULES = (
    Schedule((8, 12, 16), "obrien-fleming"),
    Schedule((8, 12, 16), "pocock"),
    Schedule((10, 20, 30), "pocock"),
)
MEAN = 0.7
"""True difference, in standard deviations between pairs. Coverage at all looks does not depend on it; where it stops does."""


@dataclass(frozen=True)
class Row:
    """Shares of data sets, and median widths at the last look. stop: at the first look whose interval excludes 0, or the last."""

    repeated_all: float
    repeated_stop: float
    bca_all: float
    bca_stop: float
    repeated_width: float
    bca_width: float


def simulate(schedule: Schedule, differences: Floats, truth: float) -> Row:
    """differences: `[data sets, all pairs]`, of that true mean."""
    looks = schedule.looks
    repeated = np.array(
        [
            [repeated_interval(one[:look], schedule, ALPHA, patterns=PATTERNS) for look in looks]
            for one in differences
        ]
    )
    ends = [
        statistics.bca_interval(differences[:, :look], confidence=1 - ALPHA, resamples=RESAMPLES)
        for look in looks
    ]
    bca = np.stack([np.stack(one, axis=-1) for one in ends], axis=1)
    found = []
    for intervals in (repeated, bca):
        low, high = intervals[..., 0], intervals[..., 1]
        holds = (low <= truth) & (truth <= high)
        stops = (low > 0) | (high < 0)
        stops[:, -1] = True
        at_stop = holds[np.arange(len(holds)), stops.argmax(axis=1)]
        found.append((holds.all(axis=1).mean(), at_stop.mean(), np.nanmedian((high - low)[:, -1])))
    (a, b, c), (d, e, f) = found
    return Row(float(a), float(b), float(d), float(e), float(c), float(f))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(
        "| looks | spending | differences | repeated: all looks | where it stops | BCa: all looks | where it stops | width |"
    )
    print("|---|---|---|--:|--:|--:|--:|--:|")
    for schedule in SCHEDULES:
        for name, draw in DISTRIBUTIONS.items():
            generator = np.random.default_rng([arguments.seed, *schedule.looks])
            differences = draw(generator, (arguments.repetitions, schedule.looks[-1])) + MEAN
            row = simulate(schedule, differences, MEAN)
            shares = (row.repeated_all, row.repeated_stop, row.bca_all, row.bca_stop)
            told = " | ".join(f"{100 * share:.1f}%" for share in shares)
            looks = ", ".join(map(str, schedule.looks))
            width = f"{row.repeated_width / row.bca_width:.2f}"
            print(f"| {looks} | {schedule.spending} | {name} | {told} | {width} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
