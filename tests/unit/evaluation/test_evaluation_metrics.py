"""Metrics against scikit-learn and against cases worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score

from assay.evaluation import metrics


@pytest.fixture(params=[(200, 3, 0), (500, 10, 1), (31, 40, 2)], ids=str)
def case(request):
    """Probabilities that know something, and labels of which some classes may be missing."""
    count, classes, seed = request.param
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    scores = random.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    return probabilities, labels


def test_agrees_with_scikit_learn(case):
    probabilities, labels = case
    classes = range(probabilities.shape[1])
    guesses = probabilities.argmax(1)
    assert metrics.accuracy(probabilities, labels) == accuracy_score(labels, guesses)
    assert metrics.macro_f1(probabilities, labels) == pytest.approx(
        f1_score(labels, guesses, average="macro"), abs=1e-12
    )
    losses = metrics.cross_entropy(np.log(probabilities), labels)
    assert losses.mean() == pytest.approx(log_loss(labels, probabilities, labels=classes), rel=1e-12)
    if len(classes) > 5:
        assert metrics.top_accuracy(probabilities, labels) == pytest.approx(
            top_k_accuracy_score(labels, probabilities, k=5, labels=classes)
        )


def test_top_five_needs_more_than_five_classes():
    assert metrics.top_accuracy(np.full((2, 5), 0.2), np.array([0, 1])) is None


def test_equally_probable_classes_count_once_and_the_first_comes_first():
    uniform = np.full((10, 10), 0.1)
    assert metrics.top_accuracy(uniform, np.arange(10)) == 0.5
    assert (
        metrics.top_accuracy(uniform, np.arange(10), k=1) == metrics.accuracy(uniform, np.arange(10)) == 0.1
    )


def test_loss_stays_finite_where_a_probability_underflows():
    assert metrics.cross_entropy(np.array([[-1000.0, 0.0]]), np.array([0])).tolist() == [1000.0]


def test_accuracy_per_class_and_null_for_a_class_without_examples():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    first, second, third = metrics.per_class(probabilities, np.array([0, 1, 1]), ["a", "b", "c"])
    assert (first.count, first.correct, first.accuracy) == (1, 1, 1.0)
    assert (second.count, second.correct, second.accuracy) == (2, 1, 0.5)
    assert (third.name, third.count, third.accuracy) == ("c", 0, None)


def test_calibration_error_worked_out_by_hand():
    """Two predictions at 0.9, one right; two at 0.62, both right: ECE = (2·0.4 + 2·0.38) / 4."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.62, 0.38], [0.38, 0.62]])
    bins = metrics.reliability(probabilities, np.array([0, 1, 0, 1]))
    assert metrics.calibration_error(bins) == pytest.approx(0.39)
    held = {index: (one.count, one.accuracy) for index, one in enumerate(bins) if one.count}
    assert held == {13: (2, 0.5), 9: (2, 1.0)}


def test_bins_are_open_below_and_closed_above():
    """Guo et al.: ((m-1)/M, m/M]. A confidence on an edge belongs to the lower bin, certainty to the last."""
    probabilities = np.array([[1.0, 0.0], [0.6, 0.4]])
    bins = metrics.reliability(probabilities, np.array([0, 0]), bins=10)
    assert [index for index, one in enumerate(bins) if one.count] == [5, 9]
    assert (bins[0].lower, bins[-1].upper) == (0.0, 1.0)


def test_calibrated_predictions_have_a_small_error_and_overconfident_ones_theirs():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1.0, 40_000)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = (random.uniform(size=40_000) > confidence).astype(np.int64)
    assert metrics.calibration_error(metrics.reliability(probabilities, labels)) < 0.01
    certain = np.stack([np.ones(40_000), np.zeros(40_000)], axis=1)
    assert metrics.calibration_error(metrics.reliability(certain, labels)) == pytest.approx(0.25, abs=0.01)
