"""Golden inputs, the scores that the model must give for them, and how far arithmetic alone may move those.

The expected scores are computed in float64, so they are, to float32, the same on every machine. What the arm's own
precision makes of them is measured here in batches of several sizes, in which libraries add in other orders. Other
processors, GPUs and numbers of threads add in yet other orders: the tolerance is ten times what was measured here, and
at least what rounding each of a few dozen operations once may do. A wrong weight, channel order or normalisation is orders
of magnitude beyond it.
"""

import copy
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.config.arm import Execution
from assay.release.bundle.manifest import Golden
from assay.release.bundle.network import Network

MOST = 32
MOST_BYTES = 16 * 2**20
FACTOR = 10
"""Of the measured deviation."""
ROUNDINGS = 64
"""Of the arithmetic's smallest step, relative to the largest score, for fp32; 8 of the coarser ones."""
_LEAST = 1e-6
"""Scale of scores that are all about 0."""
STEPS = {"fp32": 2.0**-23, "tf32": 2.0**-10, "fp16": 2.0**-10, "bf16": 2.0**-7}


def golden_of(network: Network, images: NDArray[np.uint8]) -> tuple[Golden, dict[str, Tensor]]:
    """The golden check and the content of its file, of images [N, H, W, C].

    Raises: ValueError for scores that are not finite.
    """
    inputs = torch.from_numpy(np.array(images))
    with torch.inference_mode():
        singles = torch.cat([network(inputs[place : place + 1]) for place in range(len(inputs))])
        together = [network(inputs), singles, *_halves(network, inputs)]
        arithmetic, exact = _exact(network, inputs, singles)
    if not torch.isfinite(exact).all():
        raise ValueError("the model's scores for the golden inputs are not finite: it cannot be released")
    expected = exact.float()
    measured = max(float((scores.double() - exact).abs().max()) for scores in together)
    scale = float(exact.abs().max())
    if tolerance(measured, scale, network.execution) > max(scale, _LEAST) / 2:
        raise ValueError(
            f"the model's scores for the golden inputs, {scale:.3g} at most, differ by {measured:.3g} between batches of "
            "different sizes: it does not give the same image the same scores, and cannot be checked; look for "
            "randomness or statistics of the batch in its evaluation mode"
        )
    golden = Golden(
        count=len(inputs),
        tolerance=tolerance(measured, scale, network.execution),
        measured=measured,
        reference=arithmetic,
        scale=scale,
    )
    return golden, {"inputs": inputs, "outputs": expected.contiguous()}


def tolerance(measured: float, scale: float, execution: Execution) -> float:
    """A power of two, so that measurements that differ a little between machines give the same."""
    step = STEPS["tf32" if execution.tf32 and execution.precision == "fp32" else execution.precision]
    roundings = ROUNDINGS if step == STEPS["fp32"] else 8
    bound = max(FACTOR * measured, roundings * step * max(scale, _LEAST))
    return float(2.0 ** math.ceil(math.log2(bound)))


def most_images(bytes_each: int) -> int:
    return max(1, min(MOST, MOST_BYTES // max(1, bytes_each)))


def _halves(network: Network, inputs: Tensor) -> list[Tensor]:
    middle = len(inputs) // 2
    return [torch.cat([network(inputs[:middle]), network(inputs[middle:])])] if middle else []


def _exact(network: Network, inputs: Tensor, instead: Tensor) -> tuple[str, Tensor]:
    """In float64; a model that insists on float32 is taken one sample at a time as it is."""
    try:
        scores = copy.deepcopy(network.model).double()(network.prepared(inputs).double())
    except RuntimeError:
        return "float32", instead.double()
    return ("float64", scores) if scores.dtype == torch.float64 else ("float32", instead.double())
