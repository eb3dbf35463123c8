"""Bayesian estimation against Student's t, numerical integration, and its own promises."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from assay.comparison import bayes
from assay.comparison.terminal import text

Make = Callable[..., Any]
MLP = [0.968, 0.967, 0.970, 0.966, 0.969, 0.968]
CNN = [0.987, 0.985, 0.989, 0.986, 0.984, 0.990]
ASKED = {"comparison": {"bayesian": True}}


@pytest.mark.parametrize("n", [3, 6, 30])
def test_for_normal_differences_it_is_students_interval(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """With degrees of freedom without end, uniform in centre and logarithm of the scale: t with n - 1."""
    from scipy.stats import t

    monkeypatch.setattr(bayes, "_freedoms", lambda: np.array([1e7]))
    d = np.random.default_rng(n).normal(size=n) + 0.5
    found = bayes.estimate(d)
    exact = t(n - 1, d.mean(), d.std(ddof=1) / np.sqrt(n))
    width = exact.ppf(0.975) - exact.ppf(0.025)
    assert [found.quantile(0.025), found.quantile(0.975)] == pytest.approx(
        exact.interval(0.95), abs=0.01 * width
    )
    assert found.above(0) == pytest.approx(exact.sf(0), abs=0.003)


def test_heavy_tails_by_numerical_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.integrate import quad
    from scipy.stats import t

    monkeypatch.setattr(bayes, "_freedoms", lambda: np.array([2.0]))
    d = np.array([0.1, 0.3, 0.2, 0.25, 3.0, 0.15])
    logs = np.linspace(-7, 7, 1401) + np.log(d.std(ddof=1))

    def density(centre: float) -> float:
        likelihood = t.pdf((d[:, None] - centre) / np.exp(logs), 2).prod(axis=0) * np.exp(-d.size * logs)
        return float(likelihood.sum())

    total = quad(density, -30, 30, points=[0, 0.2, 0.5, 3], limit=100)[0]
    above = quad(density, 0.2, 30, points=[0.5, 3], limit=100)[0]
    assert bayes.estimate(d).above(0.2) == pytest.approx(above / total, abs=0.01)


def test_one_outlier_does_not_carry_it_away() -> None:
    d = np.array([0.1, 0.3, 0.2, 0.25, 0.22, 0.15, 0.18, 9.0])
    assert 0.1 < bayes.estimate(d).median < 0.35
    assert d.mean() > 1


def test_values_that_occur_again_and_again() -> None:
    """Accuracies are counts over examples, and their differences repeat."""
    found = bayes.estimate(np.array([0.01, 0.01, 0.01, 0.01, 0.01, 0.02]))
    assert 0.0099 < found.median < 0.0125
    assert found.above(0) > 0.95
    assert np.isfinite(found.weights).all()


def test_units_and_sign_change_nothing() -> None:
    d = np.random.default_rng(1).normal(size=7) + 0.3
    one, milli, turned = bayes.estimate(d), bayes.estimate(1000 * d), bayes.estimate(-d)
    assert milli.median == pytest.approx(1000 * one.median)
    assert turned.median == pytest.approx(-one.median, abs=0.002)
    assert turned.above(0) == pytest.approx(1 - one.above(0), abs=0.002)
    assert one.weights.sum() == pytest.approx(1)


def test_it_stands_beside_the_verdict(make: Make) -> None:
    settings = {"metrics": [{"name": "accuracy", "margin": 0.005}]}
    values = {"accuracy": {"mlp": MLP, "cnn": CNN}}
    made = make(values, **settings)
    without = made.compare().metrics[0].contrasts[0]
    assert without.posterior is None
    made = make(values, **settings, **ASKED)
    contrast = made.compare().metrics[0].contrasts[0]
    assert contrast.model_copy(update={"posterior": None}) == without
    found = contrast.posterior
    assert found.median == pytest.approx(0.0188, abs=0.001)
    assert found.better > 0.999
    assert found.better_beyond_margin + found.within_margin + found.worse_beyond_margin == pytest.approx(1)
    assert (
        "Bayesian estimation, top-1 accuracy: cnn is better than mlp with probability > 99.9%, by more than "
        "0.5 percentage points with > 99.9%; the two are within it with < 0.1%."
        in text(made.folder, width=400)
    )


def test_lower_is_better_and_ratios(make: Make) -> None:
    values = {
        "latency_ms": {"mlp": [2.0, 2.1, 1.9, 2.05, 2.0, 1.95], "cnn": [1.0, 1.1, 1.02, 0.97, 1.0, 1.0]}
    }
    made = make(values, **ASKED, metrics=[{"name": "latency_ms", "margin": 0.1}])
    contrast = made.compare().metrics[0].contrasts[0]
    assert contrast.verdict == "better"
    assert contrast.posterior.better > 0.99
    assert contrast.posterior.better_beyond_margin > 0.99
    assert contrast.posterior.median == pytest.approx(contrast.estimate, abs=0.02)
    assert contrast.posterior.interval.low < contrast.estimate < contrast.posterior.interval.high


@pytest.mark.parametrize(
    ("seeds", "reason"), [(2, "fewer than three pairs (2)"), (6, "all differences are the same")]
)
def test_what_cannot_be_estimated_is_null(make: Make, seeds: int, reason: str) -> None:
    made = make({"accuracy": {"mlp": MLP[:seeds], "cnn": MLP[:seeds]}}, **ASKED)
    found = made.compare().metrics[0].contrasts[0].posterior
    assert (found.reason, found.median, found.better) == (reason, None, None)


def test_a_broken_contract_withholds_it(make: Make) -> None:
    made = make({"accuracy": {"mlp": MLP, "cnn": CNN}}, **ASKED)
    made.edit("cnn", 1, "evaluate", lambda record: record.update(data_sha256="1" * 64))
    assert made.compare().metrics[0].contrasts[0].posterior is None
