"""Medians, their intervals and percentiles."""

import numpy as np
import pytest
from scipy.stats import binom

from assay.profiling.exchange import KEPT_SAMPLES, thinned
from assay.profiling.summarise import median_interval, percentiles, summarise


@pytest.mark.parametrize("count", [6, 9, 30, 101, 1000])
def test_interval_is_the_narrowest_that_the_binomial_law_allows(count):
    lower, upper, level = median_interval(list(range(1, count + 1)), 0.95)
    depth = int(lower)
    assert upper == count + 1 - depth
    assert level == pytest.approx(1 - 2 * binom.cdf(depth - 1, count, 0.5))
    assert level >= 0.95
    assert 1 - 2 * binom.cdf(depth, count, 0.5) < 0.95


def test_too_few_samples_have_no_interval():
    assert median_interval([1.0] * 5, 0.95) is None
    assert summarise([1.0, 2.0, 3.0]).interval is None


@pytest.mark.parametrize("count", [10, 31])
def test_interval_covers_the_true_median_as_often_as_it_says(count):
    """Of a skewed distribution: 4,000 simulated visits."""
    random = np.random.default_rng(0)
    samples = random.lognormal(size=(4000, count))
    found = [median_interval(row.tolist(), 0.95) for row in samples]
    covered = np.mean([lower <= 1.0 <= upper for lower, upper, _ in found])
    assert covered == pytest.approx(found[0][2], abs=0.012)


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (5, {"p50"}),
        (99, {"p50"}),
        (100, {"p50", "p90"}),
        (200, {"p50", "p90", "p95"}),
        (999, {"p50", "p90", "p95"}),
        (1000, {"p50", "p90", "p95", "p99"}),
    ],
)
def test_percentiles_are_told_only_where_ten_samples_lie_beyond(count, told):
    samples = np.random.default_rng(count).normal(size=count).tolist()
    found = percentiles(samples)
    assert set(found) == told
    for name, value in found.items():
        assert value == pytest.approx(np.percentile(samples, int(name[1:])))


def test_thinning_keeps_order_and_ends_with_a_bounded_number():
    assert thinned([3.0, 1.0]) == [3.0, 1.0]
    kept = thinned([float(value) for value in range(12_345)])
    assert len(kept) == KEPT_SAMPLES
    assert kept == sorted(kept)
    assert kept[0] == 0 and kept[-1] > 12_300
