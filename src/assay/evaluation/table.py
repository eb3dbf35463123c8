"""Predictions per example: held, written as Parquet, and read again."""

import os
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.evaluation.metrics import Floats, Integers, predicted
from assay.records import RecordError, write_atomically

FILE = "predictions.parquet"
ANEW = "remove its folder and run the experiment again"


@dataclass(frozen=True)
class Predictions:
    """What a model says about a split, in the split's order."""

    labels: Integers
    """int64 [N]."""
    probabilities: Floats
    """float64 [N, C]."""
    losses: Floats
    """float64 [N]: cross-entropy in nats."""

    @classmethod
    def none(cls, classes: int) -> "Predictions":
        """Of no examples."""
        return cls(np.empty(0, np.int64), np.empty((0, classes), np.float64), np.empty(0, np.float64))


@dataclass(frozen=True)
class Table:
    """`predictions.parquet` as it was read."""

    sha256: str
    labels: Integers
    """int64 [N]."""
    guesses: Integers
    """int64 [N]: the predicted class."""
    confidence: NDArray[np.float32]
    """[N]: probability of the predicted class."""
    losses: NDArray[np.float32]
    """[N]: cross-entropy in nats."""
    correct: NDArray[np.bool_]
    """[N]."""
    probabilities: NDArray[np.float32]
    """[N, C]."""


def write(predictions: Predictions, path: Path, *, threads: int) -> str:
    """Write `path` whole or not at all: one row per example in order, compressed with zstd. Returns its SHA-256.

    Columns: index, label, prediction (int64), confidence, loss (float32), correct (bool), probabilities
    (list<float32>, one per class).
    """
    os.environ.setdefault("POLARS_MAX_THREADS", str(threads))
    import polars

    guesses = predicted(predictions.probabilities)
    probabilities = predictions.probabilities.astype(np.float32)
    frame = polars.DataFrame(
        {
            "index": np.arange(len(guesses), dtype=np.int64),
            "label": predictions.labels,
            "prediction": guesses,
            "confidence": probabilities.max(axis=1),
            "loss": predictions.losses.astype(np.float32),
            "correct": guesses == predictions.labels,
            "probabilities": polars.Series(
                probabilities, dtype=polars.Array(polars.Float32, probabilities.shape[1])
            ).arr.to_list(),
        }
    )
    content = BytesIO()
    frame.write_parquet(content, compression="zstd")
    write_atomically(path, content.getvalue())
    return sha256(content.getvalue()).hexdigest()


def read(path: Path) -> Table:
    """What `write` left. Raises: RecordError naming the file and what is wrong with it."""
    import polars

    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: no predictions ({error.strerror}); {ANEW}") from None
    try:
        frame = polars.read_parquet(BytesIO(content))
    except polars.exceptions.PolarsError as error:
        first = str(error).partition("\n")[0]
        raise RecordError(f"{path}: is not a whole Parquet file ({first}); {ANEW}") from None
    found, expected = dict(frame.schema), dict(_schema(polars))
    if found != expected:
        name = next(name for name in (*expected, *found) if found.get(name) != expected.get(name))
        raise RecordError(
            f"{path}: {name}: is {found.get(name, 'missing')}, not {expected.get(name, 'a column')}; {ANEW}"
        )
    widths = frame["probabilities"].list.len().unique().to_list()
    if not widths or len(widths) > 1 or any(frame.null_count().row(0)):
        raise RecordError(f"{path}: not every example has all its values; {ANEW}")
    if not np.array_equal(frame["index"].to_numpy(), np.arange(len(frame))):
        raise RecordError(f"{path}: index: the examples are not those of the split, in order; {ANEW}")
    flat = frame["probabilities"].explode().to_numpy()
    return Table(
        sha256=sha256(content).hexdigest(),
        labels=frame["label"].to_numpy(),
        guesses=frame["prediction"].to_numpy(),
        confidence=frame["confidence"].to_numpy(),
        losses=frame["loss"].to_numpy(),
        correct=frame["correct"].to_numpy(),
        probabilities=flat.reshape(len(frame), widths[0]),
    )


def _schema(polars: Any) -> dict[str, Any]:
    return {
        "index": polars.Int64,
        "label": polars.Int64,
        "prediction": polars.Int64,
        "confidence": polars.Float32,
        "loss": polars.Float32,
        "correct": polars.Boolean,
        "probabilities": polars.List(polars.Float32),
    }
