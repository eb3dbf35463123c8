"""An evaluation's numbers, computed again from its predictions: a record is believed only where both agree.

A prediction's probabilities are stored in single precision and its numbers were computed in double precision. So a
recorded number may differ from a recomputed one by rounding, and, where an example lies on an edge of a bin or two
classes are equally probable to single precision, by that example's share: bounds are given for each.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.data.store import labels_path
from assay.evaluation import metrics
from assay.evaluation.table import ANEW, FILE, Table, read
from assay.records import Record, RecordError, Typed

_ROUNDING = 1e-6
"""Relative, of single precision, with room for a sum of many."""
_LEAST_LOG = 80.0
"""Nats: the probability of a larger loss is too small for single precision."""
_TOP = 5

_RESTORE = f"put back the record that the evaluation left, or {ANEW}"

Bounds = tuple[float, float]


class Recomputation:
    """Checks evaluations that share one test split per data set. data: the prepared data's folder, if it is there."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._splits: dict[str | None, tuple[NDArray[np.int64], str]] = {}
        """By the data's checksum: labels, and the file that has them."""

    def check(self, path: Path, record: Record, trained: Record | None) -> Table:
        """Hold a completed evaluation against the predictions beside it, which it returns, and the training that it names.

        Raises: RecordError naming file, key, what is recorded, what was found and what to do.
        """
        if trained is not None and trained.weights_sha256 != record.weights_sha256:
            raise RecordError(
                f"{path}: weights_sha256: is {record.weights_sha256}, and the training of this run left "
                f"{trained.weights_sha256}: these are another run's predictions; {ANEW}"
            )
        file = path.with_name(FILE)
        table = read(file)
        if table.sha256 != record.predictions_sha256:
            raise RecordError(
                f"{file}: its SHA-256 is {table.sha256}, and {path.name} beside it says {record.predictions_sha256} "
                f"(predictions_sha256): it is not what the evaluation left; {ANEW}"
            )
        _consistent(file, table)
        self._same_split(file, table, record.data_sha256)
        for key, recorded, (low, high) in _numbers(path, record, table):
            if recorded is None or not low <= recorded <= high:
                raise RecordError(
                    f"{path}: {key}: is {'null' if recorded is None else repr(recorded)}, and {FILE} beside it gives "
                    f"{(low + high) / 2:.10g}; {_RESTORE}"
                )
        _check_details(path, record, table)
        return table

    def _same_split(self, file: Path, table: Table, data: str | None) -> None:
        labels, source = self._splits.get(data) or self._labels(file, table)
        self._splits[data] = labels, source
        if len(labels) != len(table.labels):
            raise RecordError(
                f"{file}: holds {len(table.labels):,} examples, and {source} {len(labels):,}: it is of another split "
                f"or data set; {ANEW}"
            )
        differing = np.flatnonzero(labels != table.labels)
        if len(differing):
            first = differing[0]
            raise RecordError(
                f"{file}: label: is {table.labels[first]} for example {first}, and {source} has {labels[first]}: "
                f"it is of another split or data set; {ANEW}"
            )

    def _labels(self, file: Path, table: Table) -> tuple[NDArray[np.int64], str]:
        """Those of the prepared data; where records alone are at hand, of the first run that is read."""
        stored = labels_path(self._data, "test")
        if not stored.exists():
            return table.labels, str(file)
        try:
            labels = np.load(stored, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise RecordError(f"{stored}: cannot be read ({error}); {ANEW}") from None
        return labels, str(stored)


def _consistent(file: Path, table: Table) -> None:
    """Each column says the same of an example as its probabilities. Raises: RecordError."""
    p, rows = table.probabilities, np.arange(len(table.labels))
    classes = p.shape[1]
    for name, column in (("label", table.labels), ("prediction", table.guesses)):
        _refuse(file, name, (column < 0) | (column >= classes), f"is not one of {classes} classes")
    highest = p.max(axis=1, initial=0.0)
    _refuse(file, "probabilities", ~(np.abs(p.sum(axis=1, dtype=np.float64) - 1) < 1e-3), "do not sum to 1")
    _refuse(file, "prediction", p[rows, table.guesses] != highest, "is not the most probable class")
    _refuse(file, "confidence", table.confidence != highest, "is not the highest probability")
    _refuse(file, "correct", table.correct != (table.guesses == table.labels), "is not prediction = label")
    with np.errstate(divide="ignore"):
        losses = -np.log(p[rows, table.labels].astype(np.float64))
    near = np.isclose(losses, table.losses, rtol=_ROUNDING, atol=10 * _ROUNDING)
    tiny = (losses > _LEAST_LOG) & (table.losses > _LEAST_LOG)
    _refuse(file, "loss", ~(near | tiny), "is not minus the logarithm of the label's probability")


def _refuse(file: Path, column: str, wrong: NDArray[np.bool_], what: str) -> None:
    if wrong.any():
        raise RecordError(f"{file}: {column}: {what} for example {int(np.flatnonzero(wrong)[0])}; {ANEW}")


def _numbers(path: Path, record: Record, table: Table) -> Iterator[tuple[str, float | None, Bounds]]:
    """Key, recorded value and the bounds that predictions give, for each number that they determine."""
    bounds = _bounds(table)
    count = len(table.labels)
    for name, measurement in record.metrics.items():
        if name not in bounds:
            continue
        expected = bounds[name]
        if expected is not None:
            yield f"metrics.{name}", measurement.value, expected
        elif measurement.value is not None:
            raise RecordError(
                f"{path}: metrics.{name}: is {measurement.value!r}, and with the few classes of {FILE} beside it there "
                f"is none (null); {_RESTORE}"
            )
        if expected is not None and measurement.count is not None:
            yield f"metrics.{name}.count", float(measurement.count), (count, count)


def _bounds(table: Table) -> dict[str, Bounds | None]:
    """Lowest and highest value that a number can have by these predictions; None: it is not defined."""
    p, labels = table.probabilities, table.labels
    count, classes = p.shape
    loss = float(table.losses.mean(dtype=np.float64))
    bins = metrics.reliability_of(table.confidence.astype(np.float64), table.correct.astype(np.float64))
    near = 2 * len(_near_an_edge(table.confidence)) / count
    top: Bounds | None = None
    if classes > _TOP:
        own = p[np.arange(count), labels][:, None]
        above, level = (p > own).sum(axis=1), (p >= own).sum(axis=1) - 1
        top = _around((level < _TOP).sum() / count, (above < _TOP).sum() / count)
    return {
        "accuracy": _around(float(table.correct.mean())),
        "top5_accuracy": top,
        "loss": (loss - _ROUNDING * (1 + loss), loss + _ROUNDING * (1 + loss)),
        "macro_f1": _around(metrics.macro_f1_of(table.guesses, labels, classes)),
        "calibration_error": (
            (error := metrics.calibration_error(bins)) - near - _ROUNDING,
            error + near + _ROUNDING,
        ),
    }


def _around(low: float, high: float | None = None) -> Bounds:
    """With room for the order of a sum in double precision."""
    return float(low) - 1e-12, float(low if high is None else high) + 1e-12


def _near_an_edge(confidence: NDArray[np.float32]) -> NDArray[np.int64]:
    """Inner edges, from 1, at which rounding decides an example's bin: one entry per such example."""
    scaled = confidence.astype(np.float64) * metrics.BINS
    edges = np.rint(scaled).astype(np.int64)
    near = np.abs(scaled - edges) < metrics.BINS * _ROUNDING
    return np.asarray(edges[near & (edges > 0) & (edges < metrics.BINS)])


def _check_details(path: Path, record: Record, table: Table) -> None:
    """Accuracy by class and by confidence, where the record has them."""
    names = [one.get("name", "") for one in record.details.get("per_class") or []]
    if names:
        names += [""] * (table.probabilities.shape[1] - len(names))
        _compare(path, record, "per_class", metrics.per_class_of(table.guesses, table.labels, names), set())
    if record.details.get("reliability"):
        found = metrics.reliability_of(table.confidence.astype(np.float64), table.correct.astype(np.float64))
        edges = _near_an_edge(table.confidence).tolist()
        _compare(path, record, "reliability", found, {place for edge in edges for place in (edge - 1, edge)})


def _compare(path: Path, record: Record, key: str, found: Sequence[Typed], loose: set[int]) -> None:
    """Line by line; `loose`: lines in which rounding decides."""
    recorded = record.details[key]
    expected = [one.model_dump() for one in found]
    if len(recorded) != len(expected):
        raise RecordError(
            f"{path}: details.{key}: has {len(recorded)} lines, and {FILE} beside it gives {len(expected)}; {_RESTORE}"
        )
    for place, (one, other) in enumerate(zip(recorded, expected, strict=True)):
        if place in loose:
            continue
        for name, value in other.items():
            if not _close(one.get(name), value):
                raise RecordError(
                    f"{path}: details.{key}.{place}.{name}: is {one.get(name)!r}, and {FILE} beside it gives "
                    f"{value!r}; {_RESTORE}"
                )


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, float | int) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
    return bool(one == other)
