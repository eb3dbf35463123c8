"""Statistics of differences on shared test examples: seeds by examples. `docs/statistics.md` derives each.

A difference is a matrix `[S, E]`, float64: at each of S seeds, on each of E test examples, what the arm scored
less what the baseline did. For accuracy its entries are -1, 0 and 1. Only `scipy.special` is imported, and late.
"""

import math
from dataclasses import dataclass

import numpy as np

from assay.comparison.statistics import Floats, Integers

_SEED = 20_250_602
_NEGLIGIBLE = 1e-18
"""Probabilities below it are not followed; what is left out counts against the claim."""


# --- two sources of variance --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crossed:
    """Analysis of variance of a crossed design, seeds by examples, one difference a cell (Cornfield and Tukey 1956).

    d_se = mean + seed_s + example_e + interaction_se. Expected mean squares, without any normal distribution:
    E V_seed + V_interaction, S V_example + V_interaction, V_interaction.
    """

    seeds: int
    examples: int
    mean: float
    square_seeds: float
    square_examples: float
    square_interaction: float

    @property
    def variances(self) -> tuple[float, float, float]:
        """Of seeds, examples and their interaction: unbiased estimates, none below zero."""
        rest = self.square_interaction
        seeds = max(0.0, self.square_seeds - rest) / self.examples
        return seeds, max(0.0, self.square_examples - rest) / self.seeds, rest

    def error_for_seeds(self) -> tuple[float, float]:
        """Standard error of the mean for new seeds on these examples, and its degrees of freedom."""
        return math.sqrt(self.square_seeds / (self.seeds * self.examples)), self.seeds - 1

    def error_for_examples(self) -> tuple[float, float]:
        """The same for new examples and these seeds' models."""
        return math.sqrt(self.square_examples / (self.seeds * self.examples)), self.examples - 1

    def error_for_both(self) -> tuple[float, float]:
        """The same for new seeds and new examples; degrees of freedom by Satterthwaite (1946); some difference is not zero.

        Variance of the mean: V_seed / S + V_example / E + V_interaction / (S E), with variances not below zero, so
        that it is never less than that for new seeds or new examples alone.
        """
        seeds, examples, rest = self.variances
        cells = self.seeds * self.examples
        total = (seeds * self.examples + examples * self.seeds + rest) / cells
        squares = (
            self.square_seeds**2 / (self.seeds - 1)
            + self.square_examples**2 / (self.examples - 1)
            + self.square_interaction**2 / ((self.seeds - 1) * (self.examples - 1))
        )
        return math.sqrt(total), (total * cells) ** 2 / squares


def crossed(differences: Floats) -> Crossed:
    """Mean squares of `[S, E]`, two of each at least."""
    seeds, examples = differences.shape
    assert seeds > 1
    assert examples > 1
    mean = float(differences.mean())
    by_seed, by_example = differences.mean(axis=1) - mean, differences.mean(axis=0) - mean
    rest = differences - mean
    rest -= by_seed[:, None]
    rest -= by_example
    return Crossed(
        seeds,
        examples,
        mean,
        square_seeds=examples * float(by_seed @ by_seed) / (seeds - 1),
        square_examples=seeds * float(by_example @ by_example) / (examples - 1),
        square_interaction=float(np.vdot(rest, rest)) / ((seeds - 1) * (examples - 1)),
    )


def interval_for_both(found: Crossed, *, confidence: float) -> tuple[float, float]:
    """For new seeds and new examples: never narrower than for new seeds or new examples alone.

    With two or three seeds more degrees of freedom could outweigh the greater error.
    """
    errors = found.error_for_both(), found.error_for_seeds(), found.error_for_examples()
    ends = [t_interval(found.mean, *error, confidence=confidence) for error in errors]
    return min(low for low, _ in ends), max(high for _, high in ends)


def t_interval(mean: float, error: float, freedom: float, *, confidence: float) -> tuple[float, float]:
    """mean ± t error."""
    from scipy.special import stdtrit

    t = float(stdtrit(freedom, (1 + confidence) / 2))
    return mean - t * error, mean + t * error


# --- right and wrong on the same examples -------------------------------------------------------------------


def mcnemar(arm_only: int, baseline_only: int) -> tuple[float, float]:
    """Two-sided p of McNemar's (1947) exact test, and its mid-p, from the examples that one of two models gets right.

    Under no difference each of these examples is one or the other with probability one half. p is twice the smaller
    tail, at most 1; mid-p counts half of the observed probability (Lancaster 1961; Fagerland, Lydersen and Laake 2013).
    """
    from scipy.special import bdtr, gammaln

    n, least = arm_only + baseline_only, min(arm_only, baseline_only)
    if n == 0:
        return 1.0, 1.0
    observed = math.exp(gammaln(n + 1) - gammaln(least + 1) - gammaln(n - least + 1) - n * math.log(2))
    tail = float(bdtr(least, n, 0.5))
    return min(1.0, 2 * tail), min(1.0, 2 * tail - observed)


def whole_examples_p(totals: Integers) -> float:
    """Two-sided exact p of no difference over all seeds' models, test examples being the unit.

    totals: int64 `[E]`: seeds at which the arm alone is right, less those at which the baseline alone is. Each example
    keeps or turns its sign as a whole, so that what the seeds share of it is not counted S times. With one seed it is
    McNemar's exact test. The distribution of the sum is exact: examples with the same |total| j add j times a
    symmetric binomial.
    """
    sizes, counts = np.unique(np.abs(totals[totals != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    step = int(np.gcd.reduce(sizes))
    density, left_out = np.ones(1), 0.0
    # density[i] is the probability of the sum (i - middle) * step; sums are symmetric about zero.
    for size, count in zip((sizes // step).tolist(), counts.tolist(), strict=True):
        heads, shares = _half_binomial(count)
        left_out += 1 - float(shares.sum())
        wider = np.zeros(len(density) + 2 * size * int(heads[-1] - heads[0]))
        for place, share in zip((heads - heads[0]).tolist(), shares.tolist(), strict=True):
            wider[2 * size * place : 2 * size * place + len(density)] += share * density
        ends = int(np.argmax(wider > _NEGLIGIBLE))
        density = wider[ends : len(wider) - ends]
        left_out += 2 * float(wider[:ends].sum())
    middle = (len(density) - 1) // 2
    least = abs(int(totals.sum())) // step
    if least > middle:
        return max(left_out, _NEGLIGIBLE)
    tail = float(density[middle + least :].sum())
    return min(1.0, 2 * tail + max(0.0, left_out)) if least else 1.0


def _half_binomial(count: int) -> tuple[Integers, Floats]:
    """Numbers of heads among `count` fair coins that are not negligible, symmetric, and their probabilities."""
    from scipy.special import gammaln

    heads = np.arange(count + 1)
    logs = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1) - count * math.log(2)
    kept = logs >= math.log(_NEGLIGIBLE)
    return heads[kept], np.exp(logs[kept])


def bootstrap_over_examples(means: Floats, *, confidence: float, resamples: int) -> tuple[float, float]:
    """Percentile interval of the mean from resampled examples, for these seeds' models.

    means: float64 `[E]`, differences averaged over seeds. Equal values are drawn together, as a multinomial, which is
    the same distribution: a difference in accuracy has at most 2 S + 1 values.
    """
    values, counts = np.unique(means, return_counts=True)
    draws = np.random.default_rng(_SEED).multinomial(len(means), counts / len(means), size=resamples)
    low, high = np.quantile(draws @ values / len(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
