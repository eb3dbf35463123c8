"""How often `assay reproduce` calls an honest rerun different, and a changed one, by what was learnt.

    python benchmarks/reproduction_simulation.py [--experiments 2000]

Differences of two arms by seed, drawn twice: archived, and anew with luck of its own. `outside`: one mean lies outside of the
other's BCa interval, which alone would be no sign. `told apart`: a paired t-test says so too, which is what counts. Rows with
a change: all differences anew are moved by so many of their standard deviations. 95% intervals, level 0.05, one estimate.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from assay.archive.reproduction import changed_p
from assay.comparison.statistics import bca_interval

SEEDS = (4, 6, 10, 30)
CONFIDENCE = 0.95


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiments", type=int, default=2000)
    experiments = parser.parse_args().experiments
    rng = np.random.default_rng(1)
    print("| differences | change | seeds | outside | told apart |")
    print("|---|--:|--:|--:|--:|")
    for name, change in (("normal", 0.0), ("Student's t, 3 df", 0.0), ("normal", 1.0), ("normal", 3.0)):
        for seeds in SEEDS:
            size = (2, experiments, seeds)
            draws = rng.normal(size=size) if name == "normal" else rng.standard_t(3, size=size)
            draws[1] += change
            outside, apart = shares(draws)
            print(f"| {name} | {change:g} | {seeds} | {outside:.1%} | {apart:.1%} |", flush=True)


def shares(draws: np.ndarray) -> tuple[float, float]:
    """Of differences [2, experiments, seeds]: how often a mean is outside of the other's interval, and told apart."""
    one, other = draws.mean(axis=-1)
    (low, high), (least, most) = (bca_interval(part, confidence=CONFIDENCE, resamples=1000) for part in draws)
    outside = (one < least) | (one > most) | (other < low) | (other > high)
    found = [
        changed_p(*({str(seed): float(value) for seed, value in enumerate(row)} for row in pair))
        for pair in zip(*draws, strict=True)
    ]
    apart = outside & np.array([p is not None and p <= 1 - CONFIDENCE for p in found])
    return float(outside.mean()), float(apart.mean())


if __name__ == "__main__":
    main()
