"""What a record of evaluation says of its predictions."""

from assay.evaluation import metrics
from assay.evaluation.table import Predictions
from assay.records import Measurement

UNITS = {
    "accuracy": "fraction",
    "top5_accuracy": "fraction",
    "loss": "nats",
    "macro_f1": "fraction",
    "calibration_error": "fraction",
}


def measurements(found: Predictions | None) -> dict[str, Measurement]:
    """Over the test split; values are null where there are no predictions."""
    values: dict[str, float | None] = dict.fromkeys(UNITS)
    if found is not None:
        p, labels = found.probabilities, found.labels
        values = {
            "accuracy": metrics.accuracy(p, labels),
            "top5_accuracy": metrics.top_accuracy(p, labels, 5),
            "loss": float(found.losses.mean()),
            "macro_f1": metrics.macro_f1(p, labels),
            "calibration_error": metrics.calibration_error(metrics.reliability(p, labels)),
        }
    count = None if found is None else len(found.labels)
    return {
        name: Measurement(unit=UNITS[name], value=value, count=None if value is None else count)
        for name, value in values.items()
    }


def details(found: Predictions, classes: list[str]) -> dict[str, object]:
    """Accuracy by class, in the order of `classes`, and by confidence."""
    p, labels = found.probabilities, found.labels
    return {
        "per_class": [one.model_dump() for one in metrics.per_class(p, labels, classes)],
        "reliability": [one.model_dump() for one in metrics.reliability(p, labels)],
    }
