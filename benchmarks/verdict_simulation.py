"""Prove the verdict by simulation: coverage, false verdicts and power, by distribution and number of seeds.

Prints the tables of docs/statistics.md. The functions simulated are the ones that comparisons use.

    PYTHONPATH=src python benchmarks/verdict_simulation.py [--repetitions 4000] [--seed 1]
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from assay.comparison import bayes, examples, ranking, statistics
from assay.comparison.multiplicity import adjusted_chains, holm

Floats = NDArray[np.float64]
ALPHA = 0.05
RESAMPLES = 2000
SEEDS = (3, 6, 10, 30)

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    # All have mean 0 and standard deviation 1.
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed (exponential)": lambda rng, shape: rng.exponential(size=shape) - 1,
    "heavy tails (Student t, 3)": lambda rng, shape: rng.standard_t(3, size=shape) / np.sqrt(3),
}


@dataclass(frozen=True)
class Row:
    """Shares of repetitions."""

    coverage: float
    """BCa interval holds the true mean."""
    test: float
    """Sign-flip p <= alpha though the mean is zero."""
    verdict: float
    """`better` or `worse` though the mean is zero."""
    equivalence: float
    """`equivalent` though the difference is exactly the margin (one standard deviation)."""
    power: float
    """`better` where the mean is one standard deviation."""


def simulate(distribution: str, n: int, *, repetitions: int, seed: int) -> Row:
    differences = DISTRIBUTIONS[distribution](np.random.default_rng([seed, n]), (repetitions, n))
    low, high = statistics.bca_interval(differences, confidence=1 - ALPHA, resamples=RESAMPLES)
    rejected = statistics.sign_flip_p(differences) <= ALPHA
    # The interval moves with the data, and so the interval of data moved by one is [low + 1, high + 1].
    found = (statistics.sign_flip_p(differences + 1) <= ALPHA) & (low + 1 > 0)
    return Row(
        coverage=float(((low <= 0) & (high >= 0)).mean()),
        test=float(rejected.mean()),
        verdict=float((rejected & ((low > 0) | (high < 0))).mean()),
        equivalence=float((statistics.equivalence_p(differences + 1, 1.0) <= ALPHA).mean()),
        power=float(found.mean()),
    )


FAMILIES = ("chains", "holm over all", "unadjusted")


def families(n: int, arms: int, metrics: int, *, repetitions: int, seed: int) -> dict[str, dict[str, float]]:
    """Family-wise error, and shares of claims, of a family with `arms` x `metrics` hypotheses.

    Error: the last metric is null for all arms, the others differ by two standard deviations, so that
    the chains get there. Claims: the share of all hypotheses claimed where all differ by two.
    Arms share the baseline's noise; metrics of a run are correlated by one half.
    """
    rng = np.random.default_rng([seed, n, arms, metrics])
    shape = (repetitions, arms, metrics, n)
    common = rng.normal(size=(repetitions, 1, 1, n)) + rng.normal(size=(repetitions, 1, metrics, n))
    noise = (common + rng.normal(size=(repetitions, arms, 1, n)) + rng.normal(size=shape)) / 2
    null = np.zeros((arms, metrics), dtype=bool)
    null[:, -1] = True
    result: dict[str, dict[str, float]] = {name: {} for name in FAMILIES}
    for case, mean in (("error", np.where(null, 0.0, 2.0)), ("claims", np.full(null.shape, 2.0))):
        p = statistics.sign_flip_p(noise + mean[..., None])
        adjusted = {
            "chains": np.array([adjusted_chains(one.tolist()) for one in p]),
            "holm over all": np.array([holm(one.ravel().tolist()) for one in p]).reshape(p.shape),
            "unadjusted": p,
        }
        for name, values in adjusted.items():
            claimed = values <= ALPHA
            share = claimed[:, null].any(axis=-1).mean() if case == "error" else claimed.mean()
            result[name][case] = float(share)
    return result


SCORED = 300
"""Test examples of each data set."""


def _effects(distribution: str) -> Callable[[np.random.Generator, int], Floats]:
    """Seeds, examples and their interaction drawn from one distribution: `[S, E]`, mean 0."""
    draw = DISTRIBUTIONS[distribution]
    return lambda rng, seeds: (
        0.05 * draw(rng, (seeds, 1)) + 0.5 * draw(rng, (1, SCORED)) + draw(rng, (seeds, SCORED))
    )


def _right_or_wrong(spread: float) -> Callable[[np.random.Generator, int], Floats]:
    """Accuracy of two arms that are alike, about 80%; seeds move an arm's ability with this standard deviation."""

    def arm(rng: np.random.Generator, seeds: int, easy: Floats) -> NDArray[np.bool_]:
        own, luck = rng.normal(size=SCORED), rng.normal(size=(seeds, SCORED))
        right: NDArray[np.bool_] = (
            1.5 + easy + 0.6 * own + 0.6 * luck + spread * rng.normal(size=(seeds, 1)) > 0
        )
        return right

    def draw(rng: np.random.Generator, seeds: int) -> Floats:
        easy = rng.normal(size=SCORED)
        return arm(rng, seeds, easy).astype(np.float64) - arm(rng, seeds, easy)

    return draw


CROSSED: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    **{name: _effects(name) for name in DISTRIBUTIONS},
    "right or wrong, seeds alike": _right_or_wrong(0.0),
    "right or wrong, seeds differ": _right_or_wrong(0.1),
    "right or wrong, seeds differ much": _right_or_wrong(0.3),
}
CROSSED_SEEDS = (2, 3, 6, 10, 30)


def coverage_of_both(name: str, seeds: int, *, repetitions: int, seed: int) -> tuple[float, float, float]:
    """Shares of intervals that hold the mean difference over all seeds and all examples, which is zero.

    Those for other seeds, for other examples, and for both; seeds and examples are both drawn anew each time.
    """
    rng = np.random.default_rng([seed, seeds])
    held = np.zeros(3)
    for _ in range(repetitions):
        found = examples.crossed(CROSSED[name](rng, seeds))
        ends = [
            examples.t_interval(found.mean, *error, confidence=1 - ALPHA)
            for error in (found.error_for_seeds(), found.error_for_examples())
        ]
        ends.append(examples.interval_for_both(found, confidence=1 - ALPHA))
        held += [low <= 0 <= high for low, high in ends]
    return tuple((held / repetitions).tolist())


def pooled_error(seeds: int, *, repetitions: int, seed: int) -> tuple[float, float]:
    """False alarms of arms that are alike at every seed, on examples drawn anew: of the test with examples as the unit, and
    of McNemar's test over counts added up over seeds."""
    rng = np.random.default_rng([seed, seeds])
    draw = CROSSED["right or wrong, seeds alike"]
    alarms = np.zeros(2)
    for _ in range(repetitions):
        whole = draw(rng, seeds).astype(np.int64)
        added, _ = examples.mcnemar(int((whole > 0).sum()), int((whole < 0).sum()))
        alarms += [examples.whole_examples_p(whole.sum(axis=0)) <= ALPHA, added <= ALPHA]
    ours, naive = (alarms / repetitions).tolist()
    return ours, naive


RANKED = {
    "four alike": (0.0, 0.0, 0.0, 0.0),
    "two alike, two apart": (0.0, 0.0, 1.0, 2.0),
    "all apart": (0.0, 1.0, 2.0, 3.0),
}


@dataclass(frozen=True)
class RankRow:
    """Shares of repetitions, of all pairs of four arms."""

    error: float
    """Some pair that is alike is told apart, or some pair the wrong way round."""
    claims: float
    """Of the pairs that differ, the share told apart; 0 where none does."""
    coverage: float
    """The ranks of all arms are inside their sets; arms that are alike have all the ranks that they share."""
    width: float
    """Ranks in a set, on average."""


def ranks(case: str, distribution: str, n: int, *, repetitions: int, seed: int) -> RankRow:
    """Arms' values at a seed share half of their variance."""
    rng = np.random.default_rng([seed, n])
    means = np.array(RANKED[case])
    draw = DISTRIBUTIONS[distribution]
    pairs = list(combinations(range(4), 2))
    common, own = draw(rng, (repetitions, 1, n)), draw(rng, (repetitions, 4, n))
    differences = ranking.pair_differences(means[:, None] + (common + own) / np.sqrt(2))
    truth = np.array([np.sign(means[i] - means[j]) for i, j in pairs])
    best = 1 + (means[None, :] > means[:, None]).sum(axis=1)
    worst = 4 - (means[None, :] < means[:, None]).sum(axis=1)
    found = np.zeros(4)
    tests = zip(differences.mean(axis=-1), statistics.sign_flip_p(differences), strict=True)
    for seen, p in tests:
        told = np.array(holm(p.tolist())) <= ALPHA
        wrong = told & (np.sign(seen) != truth)
        low, high = ranking.sets_from_tests(seen, p, 4, ALPHA)
        claims = (told & ~wrong)[truth != 0].mean() if truth.any() else 0.0
        held = ((low <= best) & (worst <= high)).all()
        found += [wrong.any(), claims, held, (high - low + 1).mean()]
    return RankRow(*(found / repetitions).tolist())


def credible(distribution: str, n: int, *, repetitions: int, seed: int) -> tuple[float, float, float]:
    """Bayesian estimation where the mean is zero: coverage of the credible interval, the shares of P(better) above 97.5%,
    and of P(within the margin) above 95% where the mean is exactly the margin, one standard deviation."""
    differences = DISTRIBUTIONS[distribution](np.random.default_rng([seed, n]), (repetitions, n))
    found = np.zeros(3)
    for one in differences:
        estimate = bayes.estimate(one)
        held = estimate.quantile(ALPHA / 2) <= 0 <= estimate.quantile(1 - ALPHA / 2)
        # The centre less one margin: inside are -2 to 0.
        within = estimate.above(-2) - estimate.above(0)
        found += [held, estimate.above(0) > 1 - ALPHA / 2, within > 1 - ALPHA]
    return tuple((found / repetitions).tolist())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=4000, help="data sets per line")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation")
    arguments = parser.parse_args(argv)
    print("| differences | seeds | BCa coverage | test, no difference | verdict, no difference "
          "| equivalent at the margin | power at 1 sd |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|--:|")
    for distribution in DISTRIBUTIONS:
        for n in SEEDS:
            row = simulate(distribution, n, repetitions=arguments.repetitions, seed=arguments.seed)
            numbers = (row.coverage, row.test, row.verdict, row.equivalence, row.power)
            print(
                f"| {distribution} | {n} | " + " | ".join(f"{100 * x:.1f}%" for x in numbers) + " |",
                flush=True,
            )
    print("\n| seeds | arms | metrics | procedure | family-wise error | claims of true differences |")
    print("|--:|--:|--:|---|--:|--:|")
    for n, arms, metrics in ((6, 1, 3), (10, 1, 3), (10, 3, 3)):
        outcome = families(n, arms, metrics, repetitions=arguments.repetitions, seed=arguments.seed)
        for name in FAMILIES:
            error, claims = outcome[name]["error"], outcome[name]["claims"]
            print(
                f"| {n} | {arms} | {metrics} | {name} | {100 * error:.1f}% | {100 * claims:.1f}% |",
                flush=True,
            )
    print(
        "\n| differences on shared examples | seeds | interval for other seeds | for other examples | for both |"
    )
    print("|---|--:|--:|--:|--:|")
    for name in CROSSED:
        for n in CROSSED_SEEDS:
            shares = coverage_of_both(name, n, repetitions=arguments.repetitions, seed=arguments.seed)
            print(f"| {name} | {n} | " + " | ".join(f"{100 * x:.1f}%" for x in shares) + " |", flush=True)
    print("\n| seeds | examples as the unit | counts added up over seeds |")
    print("|--:|--:|--:|")
    for n in (1, 3, 6, 30):
        ours, naive = pooled_error(n, repetitions=arguments.repetitions, seed=arguments.seed)
        print(f"| {n} | {100 * ours:.1f}% | {100 * naive:.1f}% |", flush=True)
    print("\n| four arms, all pairs | differences | seeds | wrong claims | claims of true differences "
          "| rank sets hold | ranks in a set |")  # fmt: skip
    print("|---|---|--:|--:|--:|--:|--:|")
    for case in RANKED:
        for distribution in DISTRIBUTIONS if case == "four alike" else ("normal",):
            for n in (7, 8, 10, 30):
                line = ranks(case, distribution, n, repetitions=arguments.repetitions, seed=arguments.seed)
                shares = " | ".join(f"{100 * x:.1f}%" for x in (line.error, line.claims, line.coverage))
                print(f"| {case} | {distribution} | {n} | {shares} | {line.width:.1f} |", flush=True)
    print("\n| differences | seeds | credible interval holds the mean | P(better) > 97.5%, no difference "
          "| P(within) > 95% at the margin |")  # fmt: skip
    print("|---|--:|--:|--:|--:|")
    for distribution in DISTRIBUTIONS:
        for n in SEEDS:
            shares = credible(
                distribution, n, repetitions=max(1, arguments.repetitions // 8), seed=arguments.seed
            )
            print(
                f"| {distribution} | {n} | " + " | ".join(f"{100 * x:.1f}%" for x in shares) + " |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
