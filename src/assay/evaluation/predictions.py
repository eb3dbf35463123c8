"""What a model predicts for each example of a split."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from assay.config.arm import Execution
from assay.data.batches import Batch
from assay.evaluation.metrics import cross_entropy
from assay.evaluation.table import Predictions
from assay.training.execution import autocast
from assay.training.outcomes import Diverged


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
