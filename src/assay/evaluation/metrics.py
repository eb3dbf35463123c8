"""How good predicted probabilities are.

Throughout: `probabilities` float64 [N, C] whose rows sum to 1, `labels` int64 [N], N ≥ 1. The predicted class
is the most probable one, the first of several.
"""

import numpy as np
from numpy.typing import NDArray

from assay.records import Typed

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""


class ClassAccuracy(Typed):
    """How one class fared. `accuracy` is null for a class without examples."""

    name: str
    count: int
    correct: int
    accuracy: float | None


class ReliabilityBin(Typed):
    """Predictions with `lower` < confidence <= `upper`; means are null where there are none."""

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


def predicted(probabilities: Floats) -> Integers:
    """int64 [N]: the most probable class."""
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def accuracy(probabilities: Floats, labels: Integers) -> float:
    """Share of examples whose label is the predicted class."""
    return float(np.mean(predicted(probabilities) == labels))


def top_accuracy(probabilities: Floats, labels: Integers, k: int = 5) -> float | None:
    """Share of examples whose label is among the k most probable classes; None unless there are more than k.

    Of equally probable classes the first comes first, so that k = 1 is `accuracy`.
    """
    classes = probabilities.shape[1]
    if classes <= k:
        return None
    own = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(classes) < labels[:, None]
    ahead = (probabilities > own) | ((probabilities == own) & earlier)
    return float(np.mean(ahead.sum(axis=1) < k))


def cross_entropy(log_probabilities: Floats, labels: Integers) -> Floats:
    """float64 [N]: minus the natural logarithm of the label's probability, in nats.

    It takes logarithms because those of very small probabilities survive where the probabilities are 0.
    """
    return np.asarray(-log_probabilities[np.arange(len(labels)), labels])


def macro_f1(probabilities: Floats, labels: Integers) -> float:
    """Mean over classes of F1 = 2·TP / (2·TP + FP + FN) (van Rijsbergen 1979, chapter 7).

    The mean is over the classes that occur among labels or predictions, as scikit-learn's default.
    """
    return macro_f1_of(predicted(probabilities), labels, probabilities.shape[1])


def macro_f1_of(guesses: Integers, labels: Integers, classes: int) -> float:
    """The same from predicted classes, int64 [N]."""
    hits = np.bincount(labels[guesses == labels], minlength=classes)
    total = np.bincount(labels, minlength=classes) + np.bincount(guesses, minlength=classes)
    occurring = total > 0
    return float(np.mean(2 * hits[occurring] / total[occurring]))


def per_class(probabilities: Floats, labels: Integers, names: list[str]) -> list[ClassAccuracy]:
    """Examples, hits and accuracy (recall) of each class, in the order of `names`."""
    return per_class_of(predicted(probabilities), labels, names)


def per_class_of(guesses: Integers, labels: Integers, names: list[str]) -> list[ClassAccuracy]:
    """The same from predicted classes, int64 [N]."""
    counts = np.bincount(labels, minlength=len(names))
    hits = np.bincount(labels[guesses == labels], minlength=len(names))
    return [
        ClassAccuracy(name=name, count=count, correct=hit, accuracy=hit / count if count else None)
        for name, count, hit in zip(names, counts.tolist(), hits.tolist(), strict=True)
    ]


def reliability(probabilities: Floats, labels: Integers, bins: int = BINS) -> list[ReliabilityBin]:
    """Confidence (probability of the predicted class) against accuracy, in bins of equal width.

    Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks", section 2: bin m of M
    holds the confidences in ((m-1)/M, m/M].
    """
    correct = predicted(probabilities) == labels
    return reliability_of(probabilities.max(axis=1), correct.astype(np.float64), bins)


def reliability_of(confidence: Floats, correct: Floats, bins: int = BINS) -> list[ReliabilityBin]:
    """The same from each example's confidence and whether it is correct (1 or 0), both float64 [N]."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    confidences = np.bincount(place, weights=confidence, minlength=bins)
    corrects = np.bincount(place, weights=correct, minlength=bins)
    return [
        ReliabilityBin(
            lower=float(edges[m]),
            upper=float(edges[m + 1]),
            count=int(counts[m]),
            confidence=float(confidences[m] / counts[m]) if counts[m] else None,
            accuracy=float(corrects[m] / counts[m]) if counts[m] else None,
        )
        for m in range(bins)
    ]


def calibration_error(bins: list[ReliabilityBin]) -> float:
    """Expected calibration error: mean gap between accuracy and confidence, weighted by the bins' counts.

    Guo et al. 2017, equation 3.
    """
    total = sum(one.count for one in bins)
    gaps = (
        one.count * abs(one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    )
    return sum(gaps) / total
