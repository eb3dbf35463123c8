"""Predictions per example: computed, held, and written as Parquet."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import nn

from assay.config.arm import Execution
from assay.data.batches import Batch
from assay.evaluation.metrics import Floats, Integers, cross_entropy, predicted
from assay.records import write_atomically
from assay.training.execution import autocast
from assay.training.outcomes import Diverged


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


@torch.no_grad()
def predict(
    model: nn.Module, batches: Iterable[Batch], count: int, classes: int, execution: Execution
) -> Predictions:
    """Run the model in evaluation mode over all batches.

    Probabilities are the softmax of the scores in float64. Raises: Diverged naming the first bad example.
    """
    model.eval()
    found = Predictions(np.empty(count, np.int64), np.empty((count, classes)), np.empty(count))
    for batch in batches:
        with autocast(execution, batch.images.device):
            scores = model(batch.images)
        logs = torch.log_softmax(scores.double(), dim=1).cpu().numpy()
        finite = np.isfinite(scores.float().cpu().numpy()).all(axis=1)
        if not finite.all():
            raise Diverged(f"scores are not finite for test example {batch.indices[~finite][0]}")
        labels = batch.labels.cpu().numpy()
        found.labels[batch.indices] = labels
        found.probabilities[batch.indices] = np.exp(logs)
        found.losses[batch.indices] = cross_entropy(logs, labels)
    return found


def write(predictions: Predictions, path: Path, *, threads: int) -> None:
    """Write `path` whole or not at all: one row per example in order, compressed with zstd.

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
