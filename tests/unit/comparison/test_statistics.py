"""Statistics against hand-computed cases, SciPy, statsmodels and degenerate data."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from assay.comparison import statistics as s

SKEWED = np.array([0.3, 0.1, 2.4, 0.7, -0.2, 0.9, 0.5, 1.4, 0.05, 0.6])
reals = st.floats(-100, 100, allow_nan=False).map(lambda x: round(x, 6))


def test_sign_flip_by_hand() -> None:
    # Of the 8 sums ±1±2±3, |sum| >= 6 at two; for (1, 2, -3) the sum 0 is reached by all.
    assert s.sign_flip_p(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert s.sign_flip_p(np.array([1.0, 2.0, -3.0])) == 1
    # 1+2+4 with the 1 flipped: |sum| >= 5 at 5, 7 and their negatives.
    assert s.sign_flip_p(np.array([-1.0, 2.0, 4.0])) == 4 / 8


@pytest.mark.parametrize(("n", "p"), [(1, 1), (2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125), (10, 2 / 1024)])
def test_smallest_p_of_n_pairs(n: int, p: float) -> None:
    differences = np.linspace(0.01, 0.02, n)
    assert s.sign_flip_p(differences) == p == s.minimum_p(differences)


def test_zero_differences_cannot_count_as_evidence() -> None:
    differences = np.array([0.1, 0.1, 0.2, 0.1, 0.3, 0.0])
    assert s.sign_flip_p(differences) == 0.0625 == s.minimum_p(differences)
    assert s.sign_flip_p(np.zeros(6)) == 1 == s.minimum_p(np.zeros(6))


def test_ties_between_decimals_are_ties() -> None:
    # 0.1 + 0.2 != 0.3 in binary: in exact arithmetic |sum| >= 0.6 at the two extremes only ...
    assert s.sign_flip_p(np.array([0.1, 0.2, 0.3])) == 0.25
    # ... and the observed sum 0.0 is tied by everything.
    assert s.sign_flip_p(np.array([0.1, 0.2, -0.3])) == 1.0


@pytest.mark.parametrize("n", [4, 8, 10])
@pytest.mark.parametrize("alternative", ["two-sided", "less"])
def test_sign_flip_is_scipys(n: int, alternative: str) -> None:
    from scipy.stats import permutation_test

    differences = SKEWED[:n]
    theirs = permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative=alternative
    ).pvalue
    ours = s.sign_flip_p(differences) if alternative == "two-sided" else s.sign_flip_p_less(differences)
    assert ours == pytest.approx(theirs)


def test_monte_carlo_agrees_with_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = float(s.sign_flip_p(SKEWED - 0.3))
    monkeypatch.setattr(s, "ENUMERATED_PAIRS", 5)
    drawn = float(s.sign_flip_p(SKEWED - 0.3))
    assert drawn == float(s.sign_flip_p(SKEWED - 0.3)), "not the same at every call"
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact / s.MONTE_CARLO_FLIPS))
    assert drawn * (s.MONTE_CARLO_FLIPS + 1) == pytest.approx(round(drawn * (s.MONTE_CARLO_FLIPS + 1)))


def test_monte_carlo_p_is_never_zero() -> None:
    assert s.sign_flip_p(np.linspace(1, 2, 40)) == 1 / (s.MONTE_CARLO_FLIPS + 1)


def test_batches_are_rows() -> None:
    rows = np.stack([SKEWED, -SKEWED, SKEWED - 0.6])
    assert s.sign_flip_p(rows).tolist() == [float(s.sign_flip_p(row)) for row in rows]
    low, high = s.bca_interval(rows, confidence=0.95, resamples=2000)
    for i, row in enumerate(rows):
        one = s.bca_interval(row, confidence=0.95, resamples=2000)
        assert (low[i], high[i]) == pytest.approx((float(one[0]), float(one[1])))


@pytest.mark.parametrize("n", [6, 10, 40])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bca_is_scipys_with_the_same_draws(n: int, confidence: float) -> None:
    from scipy.stats import bootstrap

    differences = np.random.default_rng(n).exponential(size=n)
    theirs = bootstrap(
        (differences,),
        np.mean,
        confidence_level=confidence,
        n_resamples=5000,
        method="BCa",
        rng=np.random.default_rng(s._SEED),
    ).confidence_interval
    low, high = s.bca_interval(differences, confidence=confidence, resamples=5000)
    # Draws that repeat the sample tie with its mean; SciPy leaves such ties to rounding.
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=(1e-9 if n > 10 else 0.02) * width)
    assert high == pytest.approx(theirs.high, abs=(1e-9 if n > 10 else 0.02) * width)


@pytest.mark.parametrize("differences", [[0.1], [0.1, 0.2], [0.2] * 6, [0.0] * 6, [0.1 + 0.2, 0.3, 0.3]])
def test_no_interval_where_there_is_none(differences: list[float]) -> None:
    low, high = s.bca_interval(np.array(differences), confidence=0.95, resamples=1000)
    assert np.isnan(low)
    assert np.isnan(high)
    assert np.isnan(s.standardised_mean(np.array(differences)))


def test_standardised_mean_by_hand() -> None:
    # mean 2, sd 1, n = 3: J(2) = gamma(1) / (sqrt(1) gamma(1/2)) = 1/sqrt(pi).
    assert s.standardised_mean(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / math.sqrt(math.pi))
    # The usual approximation J = 1 - 3 / (4 f - 1).
    many = np.random.default_rng(0).normal(1, 2, 40)
    assert s.standardised_mean(many) == pytest.approx(
        many.mean() / many.std(ddof=1) * (1 - 3 / 155), rel=1e-4
    )


def test_probability_above() -> None:
    from scipy.stats import binomtest

    value, low, high = s.probability_above(np.array([1.0, 2, 3, 4, 5, -1]), confidence=0.95)
    theirs = binomtest(5, 6).proportion_ci(0.95, "exact")
    assert (value, low, high) == pytest.approx((5 / 6, theirs.low, theirs.high))
    assert s.probability_above(np.zeros(4), confidence=0.95)[0] == 0.5
    value, low, high = s.probability_above(np.ones(6), confidence=0.95)
    assert (value, high) == (1, 1)
    assert low == pytest.approx(0.025 ** (1 / 6))


def test_equivalence_by_hand() -> None:
    # All six inside the margin on both sides: 1/64 on either side.
    assert s.equivalence_p(np.array([0.1, -0.1, 0.05, 0.0, 0.02, -0.03]), 0.5) == 1 / 64
    assert s.equivalence_p(np.zeros(5), 0.1) == 1 / 32
    # At the margin itself nothing is shown.
    assert s.equivalence_p(np.full(6, 0.5), 0.5) == 1
    assert s.equivalence_p(np.full(6, -0.5), 0.5) == 1
    assert s.equivalence_p(np.full(6, 0.7), 0.5) == 1


def test_equivalence_is_near_the_t_tests() -> None:
    from scipy.stats import ttest_1samp

    differences = np.random.default_rng(5).normal(0.1, 1, 15)
    theirs = max(
        ttest_1samp(differences, 0.8, alternative="less").pvalue,
        ttest_1samp(differences, -0.8, alternative="greater").pvalue,
    )
    assert s.equivalence_p(differences, 0.8) == pytest.approx(theirs, rel=0.3)


@pytest.mark.parametrize(
    ("alpha", "sides", "pairs"), [(0.05, 2, 6), (0.05, 1, 5), (0.025, 2, 7), (0.25, 2, 3)]
)
def test_fewest_pairs(alpha: float, sides: int, pairs: int) -> None:
    assert s.pairs_for_any_verdict(alpha, sides=sides) == pairs
    assert sides * 2.0**-pairs <= alpha < sides * 2.0 ** -(pairs - 1)


def test_planned_pairs() -> None:
    from statsmodels.stats.power import TTestPower

    for effect in (0.3, 0.5, 0.9):
        theirs = math.ceil(TTestPower().solve_power(effect_size=effect, alpha=0.05, power=0.8))
        ours = s.pairs_for_difference(-effect, 1, alpha=0.05)
        assert ours is not None
        assert abs(ours - theirs) <= 1
    assert s.pairs_for_difference(5, 1, alpha=0.05) == 6
    assert s.pairs_for_difference(0, 1, alpha=0.05) is None
    assert s.pairs_for_difference(1e-6, 1, alpha=0.05) is None
    assert s.pairs_for_equivalence(0.6, 1, 0.5, alpha=0.05) is None
    assert s.pairs_for_equivalence(0.0, 0.001, 0.5, alpha=0.05) == 5


def test_noether_as_published() -> None:
    """Bouthillier et al. (2021): 29 runs for P(A > B) = 0.75, alpha = beta = 0.05."""
    assert s.noether_runs(0.75, alpha=0.05, power=0.95) == 29


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.integers(3, 9), elements=reals))
def test_swapping_arms_negates(differences: np.ndarray) -> None:
    assert s.sign_flip_p(differences) == s.sign_flip_p(-differences)
    low, high = s.bca_interval(differences, confidence=0.95, resamples=1000)
    other_low, other_high = s.bca_interval(-differences, confidence=0.95, resamples=1000)
    scale = float(np.abs(differences).max())
    assert low == pytest.approx(-other_high, abs=1e-9 * scale, nan_ok=True)
    assert high == pytest.approx(-other_low, abs=1e-9 * scale, nan_ok=True)
    assert s.standardised_mean(differences) == pytest.approx(-s.standardised_mean(-differences), nan_ok=True)
    assert s.equivalence_p(differences, 1.0) == s.equivalence_p(-differences, 1.0)
    above, low_p, high_p = s.probability_above(differences, confidence=0.95)
    below, other_low_p, other_high_p = s.probability_above(-differences, confidence=0.95)
    assert (above, low_p, high_p) == pytest.approx((1 - below, 1 - other_high_p, 1 - other_low_p))


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, st.integers(3, 9), elements=reals), st.floats(0.001, 1000))
def test_units_do_not_matter(differences: np.ndarray, factor: float) -> None:
    assert s.sign_flip_p(differences) == s.sign_flip_p(differences * factor)
    low, high = s.bca_interval(differences, confidence=0.95, resamples=1000)
    scaled = s.bca_interval(differences * factor, confidence=0.95, resamples=1000)
    scale = float(np.abs(differences).max()) * factor
    assert float(scaled[0]) == pytest.approx(low * factor, abs=1e-6 * scale, nan_ok=True)
    assert float(scaled[1]) == pytest.approx(high * factor, abs=1e-6 * scale, nan_ok=True)


def test_noise_floor_by_hand() -> None:
    # Mean 2, sd 1; t of 2 degrees of freedom at 0.975 is 4.302653.
    floor = s.noise_floor(np.array([1.0, 2.0, 3.0]), 3, alpha=0.05)
    assert floor == pytest.approx(2 + 4.302653 * math.sqrt(2 / 3), rel=1e-6)
    assert s.noise_floor(np.array([1.0, 2.0, 3.0]), 6, alpha=0.05) == pytest.approx(
        2 + 4.302653 * math.sqrt(1 / 3 + 1 / 6), rel=1e-6
    )


def test_noise_floor_is_the_prediction_interval_that_statsmodels_has() -> None:
    from statsmodels.api import OLS

    found = OLS(SKEWED, np.ones_like(SKEWED)).fit().get_prediction([[1.0]])
    low, high = found.conf_int(obs=True, alpha=0.1)[0]
    assert s.noise_floor(SKEWED, 1, alpha=0.1) == pytest.approx(max(abs(low), abs(high)))


def test_noise_floor_of_nothing_and_of_too_little() -> None:
    assert s.noise_floor(np.zeros(6), 6, alpha=0.05) == 0
    assert s.noise_floor(np.full(6, -0.2), 6, alpha=0.05) == pytest.approx(0.2), (
        "what sets them apart throughout"
    )
    assert np.isnan(s.noise_floor(np.array([0.1, 0.2]), 6, alpha=0.05))
    assert s.noise_floor(np.zeros((4, 5, 6)), 6, alpha=0.05).shape == (4, 5)


@given(arrays(np.float64, st.integers(3, 12), elements=reals), st.integers(1, 50))
def test_noise_floor_properties(differences: np.ndarray, pairs: int) -> None:
    floor = float(s.noise_floor(differences, pairs, alpha=0.05))
    mean = abs(float(differences.mean()))
    tolerance = 1e-9 * (1 + float(np.abs(differences).max()))
    assert floor >= mean - tolerance, "an arm is within its own floor"
    assert s.noise_floor(-differences, pairs, alpha=0.05) == pytest.approx(floor), (
        "which self is which is nothing"
    )
    assert s.noise_floor(differences * 3, pairs, alpha=0.05) == pytest.approx(3 * floor)
    assert s.noise_floor(differences, pairs + 1, alpha=0.05) <= floor + tolerance
    assert s.noise_floor(differences, pairs, alpha=0.01) >= floor - tolerance


def test_a_zero_floor_does_not_show_that_nothing_ever_differs() -> None:
    # (1 - share)^6 = 0.05: six pairs without a difference are as likely as that.
    assert s.most_that_differ(0, 6, alpha=0.05) == pytest.approx(1 - 0.05 ** (1 / 6))
    assert s.most_that_differ(6, 6, alpha=0.05) == 1
