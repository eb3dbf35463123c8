"""How often the interval of a visit's median holds the median, where samples follow each other.

python benchmarks/median_interval.py

Autoregressive series: each value keeps a share of the one before. `as if independent` is the interval from order
statistics alone; `adjusted` is the one that records carry. `none`: share of series for which no interval was given,
because there is not enough in them; they count for neither.
"""

import numpy as np

from assay.profiling.summarise import autocorrelation, median_interval

SERIES = 1000


def main() -> None:
    print("| kept of the one before | samples | as if independent | adjusted | none |")
    print("|--:|--:|--:|--:|--:|")
    for kept in (0.0, 0.5, 0.9, 0.99):
        for length in (30, 100, 1000):
            rows = series(length, kept)
            plain, _ = coverage(rows, adjusted=False)
            adjusted, none = coverage(rows, adjusted=True)
            print(f"| {kept:g} | {length} | {plain:.1%} | {adjusted:.1%} | {none:.1%} |")


def series(length: int, kept: float) -> np.ndarray:
    """[SERIES, length] values of median 0."""
    noise = np.random.default_rng(0).normal(size=(SERIES, length + 500))
    values = np.zeros_like(noise)
    for step in range(1, length + 500):
        values[:, step] = kept * values[:, step - 1] + noise[:, step]
    return values[:, 500:]


def coverage(rows: np.ndarray, *, adjusted: bool) -> tuple[float, float]:
    """Share of the intervals that hold 0, and share of the series without one."""
    lists = [row.tolist() for row in rows]
    found = [median_interval(row, 0.95, (autocorrelation(row) or 1.0) if adjusted else 1.0) for row in lists]
    told = [one for one in found if one is not None]
    return float(np.mean([one[0] <= 0 <= one[1] for one in told])), 1 - len(told) / len(found)


if __name__ == "__main__":
    main()
