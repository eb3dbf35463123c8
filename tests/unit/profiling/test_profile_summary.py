"""Medians, their intervals and percentiles."""

import time

import numpy as np
import pytest
from scipy.stats import binom

from assay.profiling.exchange import KEPT_SAMPLES, thinned
from assay.profiling.summarise import autocorrelation, median_interval, percentiles, summarise


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


def series(count: int, length: int, memory: float) -> np.ndarray:
    """Autoregressive series [count, length] with median 0: each value keeps `memory` of the one before."""
    noise = np.random.default_rng(3).normal(size=(count, length + 200))
    values = np.zeros_like(noise)
    for step in range(1, length + 200):
        values[:, step] = memory * values[:, step - 1] + noise[:, step]
    return values[:, 200:]


def coverage(rows: np.ndarray, *, adjusted: bool) -> float:
    found = [
        median_interval(row.tolist(), 0.95, autocorrelation(row.tolist()) if adjusted else 1.0)
        for row in rows
    ]
    return float(np.mean([one[0] <= 0 <= one[1] for one in found if one is not None]))


def test_interval_of_samples_that_follow_each_other_is_as_wide_as_it_must_be():
    """As if independent, an interval of 95% would hold the median in four cases of ten."""
    rows = series(400, 1000, 0.9)
    assert coverage(rows, adjusted=False) < 0.5
    assert coverage(rows, adjusted=True) > 0.93
    independent = series(400, 1000, 0.0)
    assert coverage(independent, adjusted=True) > 0.93
    assert np.median([autocorrelation(row.tolist()) for row in independent]) < 1.2


@pytest.mark.parametrize("kind", ["drift", "shift"])
def test_a_series_that_does_not_settle_has_no_interval(kind):
    """Each sample alone is precise; the median of what goes on changing is not known at all."""
    steady = np.random.default_rng(0).normal(1, 0.001, 1000)
    moving = steady + (np.linspace(0, 1, 1000) if kind == "drift" else np.repeat([0, 1], 500))
    assert summarise(steady.tolist()).width < 0.001
    assert summarise(moving.tolist()).interval is None
    assert summarise(moving.tolist()).width is None


def test_a_few_outliers_and_equal_samples_are_no_matter():
    samples = [1.0] * 200
    assert summarise(samples).interval == (1.0, 1.0)
    assert summarise(samples).width == 0
    samples[50:53] = [100.0] * 3
    assert summarise(samples).interval == (1.0, 1.0)


def test_summary_of_many_samples_takes_no_time():
    samples = np.random.default_rng(0).lognormal(size=100_000).tolist()
    began = time.process_time()
    assert summarise(samples).width < 0.05
    assert time.process_time() - began < 10
