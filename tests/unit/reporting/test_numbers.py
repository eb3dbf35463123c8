import math

import pytest

from assay.reporting import numbers
from assay.reporting.samples import median_spread


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.97933, "fraction", "97.93%"),
        (None, "ms", "–"),
        (0.023151, "ms", "0.0232 ms"),
        (354_321.0, "samples/s", "354,000 samples/s"),
        (17_226.0, "count", "17,226"),
        (25_557_032.0, "count", "25.6 M"),
        (4.089e9, "FLOP", "4.09 GFLOP"),
        (7_300.0, "s", "2.03 h"),
        (0.0, "ms", "0 ms"),
    ],
)
def test_quantity(value: float | None, unit: str, text: str) -> None:
    assert numbers.quantity(value, unit) == text


@pytest.mark.parametrize(
    ("value", "text"), [(9.996, "10.0"), (0.0009999, "0.00100"), (123_456.0, "123,000"), (1e-9, "1.00e−09")]
)
def test_significant(value: float, text: str) -> None:
    assert numbers.significant(value) == text


def test_minus_signs_are_true_and_zero_has_none() -> None:
    assert numbers.plain(-1.25, 1, sign=True) == "−1.2"
    assert numbers.plain(-0.0001, 2, sign=True) == "0.00"


def test_decimals_show_two_digits_of_the_uncertainty() -> None:
    assert numbers.decimals_for(97.93, 0.31) == 2
    assert numbers.decimals_for(97.93, 3.1) == 1
    assert numbers.decimals_for(97.93, 31) == 0


def test_ratio_is_percent_near_one_and_times_beyond() -> None:
    assert numbers.ratio(1.485) == "+48.5%"
    assert numbers.ratio(4.54) == "×4.54"
    assert numbers.ratio(0.223) == "×0.223"


@pytest.mark.parametrize(("p", "text"), [(0.0001, "p < 0.001"), (0.03125, "p = 0.031"), (0.25, "p = 0.25")])
def test_p(p: float, text: str) -> None:
    assert numbers.p_statement(p) == text


def test_span() -> None:
    assert numbers.span([3, 0, 1, 2, 8]) == "0–3, 8"


def test_interval_of_the_median_has_the_coverage_that_it_claims() -> None:
    """Six values reach 96.9% with their range; five cannot reach 95%, and claim none."""
    six = median_spread([1, 2, 3, 4, 5, 6], 0.95)
    assert (six.low, six.high) == (1, 6)
    assert six.confidence == pytest.approx(1 - 2 / 2**6)
    assert median_spread([1, 2, 3, 4, 5], 0.95).confidence is None
    hundred = median_spread(list(range(100)), 0.95)
    k = int(hundred.low) + 1
    below = sum(math.comb(100, i) for i in range(k)) / 2**100
    assert hundred.confidence == pytest.approx(1 - 2 * below)
    assert 1 - 2 * below >= 0.95 > 1 - 2 * (below + math.comb(100, k) / 2**100)
