"""How often a sweep that stops trials early loses its best one, by simulation.

Prints the table of docs/tuning.md. What goes on is decided by the functions that a search uses. A trial's final score is
standard normal; its score at a comparison has a given correlation with the final one, and with that at other comparisons
the product of those between them (scores get nearer to the final one step by step).

    PYTHONPATH=src python benchmarks/prune_simulation.py [--repetitions 2000] [--seed 1]
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.config.sweep import Prune, Sweep
from assay.config.trials import sweep_epochs, trials_by_rung
from assay.sweep.model import Trial
from assay.sweep.read import rank
from assay.sweep.rungs import going_on

EPOCHS = 27
PLANS = ((9, (9,), 3), (27, (9,), 3), (27, (3, 9), 3), (27, (9,), 2), (27, (6, 13), 2))
"""Trials, epochs after which they are compared, reduction factor."""
CORRELATIONS = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Row:
    """lost: share of searches that stop the trial which would have been the best. short: by how much the selected one falls
    short of it, in standard deviations between trials. fewer: the same of a search that trains as many trials to the end as
    the epochs are enough for."""

    lost: float
    short: float
    fewer: float


def scores(trials: int, correlations: Sequence[float], generator: np.random.Generator) -> NDArray[np.float64]:
    """`[comparisons + 1, trials]`; the last row is final. correlations: of each comparison with the next score."""
    rows = [generator.standard_normal(trials)]
    for one in reversed(correlations):
        noise = generator.standard_normal(trials)
        rows.append(one * rows[-1] + math.sqrt(1 - one**2) * noise)
    return np.array(rows[::-1])


def selected(found: NDArray[np.float64], counts: Sequence[int]) -> int:
    """The trial that a search ends with. counts: trials at each comparison, and to the end."""
    numbers = list(range(found.shape[1]))
    for row, count in zip(found[:-1], counts[1:], strict=True):
        compared = [
            Trial(number=number, point={}, runs=[], score=float(row[number]), loss=0.0) for number in numbers
        ]
        numbers = going_on(sorted(compared, key=lambda trial: rank(trial, maximise=True)), count)
    return max(numbers, key=lambda number: found[-1][number])


def sweep_of(trials: int, after: Sequence[int], factor: int) -> Sweep:
    prune = Prune(after=list(after), reduction_factor=factor)
    return Sweep(trials=trials, space={"training.clip_norm": [1.0, 2.0]}, prune=prune)


def simulate(
    sweep: Sweep, correlations: Sequence[float], repetitions: int, generator: np.random.Generator
) -> Row:
    counts = trials_by_rung(sweep, "a")
    whole = max(1, sweep_epochs(sweep, "a", EPOCHS) // EPOCHS)
    lost, short, fewer = [], [], []
    for _ in range(repetitions):
        found = scores(counts[0], correlations, generator)
        final = found[-1]
        chosen = selected(found, counts)
        lost.append(chosen != int(final.argmax()))
        short.append(final.max() - final[chosen])
        fewer.append(final.max() - final[:whole].max())
    return Row(*(float(np.mean(values)) for values in (lost, short, fewer)))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(
        "| trials | compared after, of 27 | one in | epochs | correlation | best lost | falls short | fewer trials |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for trials, after, factor in PLANS:
        sweep = sweep_of(trials, after, factor)
        share = sweep_epochs(sweep, "a", EPOCHS) / (trials * EPOCHS)
        for one in CORRELATIONS:
            generator = np.random.default_rng([arguments.seed, trials, factor, *after, round(100 * one)])
            row = simulate(sweep, [one] * len(after), arguments.repetitions, generator)
            told = f"{100 * row.lost:.0f}% | {row.short:.2f} | {row.fewer:.2f}"
            print(
                f"| {trials} | {', '.join(map(str, after))} | {factor} | {100 * share:.0f}% | {one:g} | {told} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
