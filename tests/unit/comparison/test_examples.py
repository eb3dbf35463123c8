"""Statistics of shared test examples against scipy, statsmodels, enumeration and simulation."""

import itertools

import numpy as np
import pytest

from assay.comparison import examples


@pytest.mark.parametrize(("arm", "baseline"), [(0, 5), (3, 9), (7, 7), (1, 0), (120, 80), (3000, 3200)])
def test_mcnemar_is_statsmodels(arm: int, baseline: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    p, mid_p = examples.mcnemar(arm, baseline)
    assert p == pytest.approx(mcnemar([[9, arm], [baseline, 9]], exact=True).pvalue)
    assert examples.mcnemar(baseline, arm) == (p, mid_p)
    totals = np.repeat([1, -1, 0], [arm, baseline, 50]).astype(np.int64)
    assert examples.whole_examples_p(totals) == pytest.approx(p, rel=1e-6)


def test_mid_p_counts_half_of_the_observed_probability() -> None:
    from scipy.stats import binom

    for arm, baseline in ((0, 5), (3, 9), (7, 7)):
        n, least = arm + baseline, min(arm, baseline)
        expected = 2 * (binom.cdf(least - 1, n, 0.5) + binom.pmf(least, n, 0.5) / 2)
        assert examples.mcnemar(arm, baseline)[1] == pytest.approx(expected)
    assert examples.mcnemar(0, 0) == (1, 1)


@pytest.mark.parametrize("seed", range(6))
def test_whole_examples_by_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    totals = rng.integers(-3, 5, 11) * (1 + seed % 2)
    sums = np.array(list(itertools.product([1, -1], repeat=11))) @ totals
    expected = (np.abs(sums) >= abs(totals.sum())).mean()
    assert examples.whole_examples_p(totals.astype(np.int64)) == pytest.approx(expected)


def test_whole_examples_of_many_and_of_one_sign() -> None:
    from scipy.stats import norm

    totals = np.random.default_rng(1).integers(-10, 11, 5000)
    z = abs(totals.sum()) / np.sqrt((totals**2).sum())
    assert examples.whole_examples_p(totals) == pytest.approx(2 * norm.sf(z), rel=0.01)
    assert examples.whole_examples_p(np.zeros(10, np.int64)) == 1
    assert examples.whole_examples_p(np.full(10, 3, np.int64)) == pytest.approx(2**-9)
    assert 0 < examples.whole_examples_p(np.full(5000, 3, np.int64)) < 1e-9


def test_pooling_does_not_count_an_example_for_each_seed() -> None:
    """Ten seeds that say the same are as good as one."""
    once = np.repeat([1, -1], [9, 3]).astype(np.int64)
    assert examples.whole_examples_p(10 * once) == pytest.approx(examples.whole_examples_p(once))


def test_mean_squares_are_those_of_the_analysis_of_variance() -> None:
    import pandas
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    differences = np.random.default_rng(2).integers(-1, 2, (4, 9)).astype(float)
    found = examples.crossed(differences)
    seed, example = np.indices(differences.shape)
    frame = pandas.DataFrame({"d": differences.ravel(), "s": seed.ravel(), "e": example.ravel()})
    squares = anova_lm(ols("d ~ C(s) + C(e)", frame).fit())["mean_sq"]
    assert squares.to_list() == pytest.approx(
        [found.square_seeds, found.square_examples, found.square_interaction]
    )


def test_components_are_unbiased() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(400):
        d = rng.normal(size=(5, 1)) * 0.5 + rng.normal(size=40) + rng.normal(size=(5, 40)) * 2
        found.append(examples.crossed(d).variances)
    assert np.mean(found, axis=0) == pytest.approx([0.25, 1, 4], rel=0.1)


def test_error_is_that_of_the_pigeonhole_bootstrap_less_its_excess() -> None:
    """Owen (2007): resampling rows and columns gives V_s/S + V_e/E + 3 V/(S E), the last too large by 2 V/(S E)."""
    rng = np.random.default_rng(4)
    d = rng.normal(size=(12, 1)) * 0.3 + rng.normal(size=80) * 0.5 + rng.normal(size=(12, 80))
    found = examples.crossed(d)
    rows = rng.multinomial(12, [1 / 12] * 12, size=4000) / 12
    columns = rng.multinomial(80, [1 / 80] * 80, size=4000) / 80
    pigeonhole = np.einsum("rs,se,re->r", rows, d, columns, optimize=True).var()
    excess = 2 * found.variances[2] / d.size
    assert found.error_for_both()[0] ** 2 == pytest.approx(pigeonhole - excess, rel=0.15)


def test_error_for_both_is_never_less_than_for_one() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        found = examples.crossed(rng.integers(-1, 2, (rng.integers(2, 5), rng.integers(2, 9))).astype(float))
        least = max(found.error_for_seeds()[0], found.error_for_examples()[0])
        assert found.error_for_both()[0] >= least * (1 - 1e-12)
        low, high = examples.interval_for_both(found, confidence=0.9)
        for error in (found.error_for_seeds(), found.error_for_examples()):
            ends = examples.t_interval(found.mean, *error, confidence=0.9)
            assert low <= ends[0] <= ends[1] <= high


def test_interval_of_t_is_scipys() -> None:
    from scipy.stats import t

    low, high = examples.t_interval(1.0, 0.3, 3.7, confidence=0.9)
    assert (low, high) == pytest.approx(t.interval(0.9, 3.7, loc=1, scale=0.3))


def test_bootstrap_over_examples_is_scipys() -> None:
    from scipy.stats import bootstrap

    means = np.random.default_rng(6).integers(-1, 2, 300) / 3
    found = examples.bootstrap_over_examples(means, confidence=0.95, resamples=10_000)
    expected = bootstrap((means,), np.mean, method="percentile", rng=np.random.default_rng(1))
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.006)
    assert examples.bootstrap_over_examples(means, confidence=0.95, resamples=10_000) == found
