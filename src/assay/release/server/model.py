"""A bundle's model, made fast, warmed, and held against the outputs that it gave when it was measured."""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assay.release.bundle.read import Bundle

# Over a request's body, which nobody may write to; no network does: the first thing that it does is to scale.
warnings.filterwarnings("ignore", message=".*not writable", category=UserWarning)

Forward = Callable[[Tensor], Tensor]
_WARM_UP = 20
"""Forward passes of one sample before the first request: PyTorch's graphs are specialised in the first ones."""


class WrongModel(ValueError):
    """A model that does not give the outputs that its bundle promises."""


@dataclass(frozen=True)
class Model:
    """A model that was checked. `scores` is not to be called by two threads at once."""

    forward: Forward
    device: str
    form: str
    """How it runs: `frozen` (a traced graph with constants folded in) or `eager`."""
    passed_over: str | None
    """Why it is not frozen."""
    deviation: float
    """Largest |score - expected| over the golden inputs and over batch sizes."""
    seconds: float
    """Median of a forward pass of one sample, after warm-up."""

    def scores(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [N, classes] for float32 [N, H, W, C] with values from 0 to 255."""
        return _run(self.forward, samples, self.device)


def load_model(bundle: Bundle, device: str = "cpu") -> Model:
    """Build, freeze, warm and compare.

    Raises: WrongModel where not even the plain network gives the expected outputs; ValueError where it cannot be built.
    """
    inputs, expected = bundle.golden()
    passed_over = None
    for form, make in (("frozen", _frozen), ("eager", _eager)):
        try:
            forward = make(bundle, device)
            scores = _by_batches(forward, inputs, device)
        except ValueError:
            raise
        except Exception as error:
            if form == "eager":
                raise
            passed_over = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        problem = next((p for one in scores if (p := bundle.problem(one)) is not None), None)
        if problem is None:
            deviation = max(float(np.abs(one.astype(np.float64) - expected).max()) for one in scores)
            seconds = _warm(forward, inputs[:1], device)
            return Model(forward, device, form, passed_over, deviation, seconds)
        if form == "eager":
            raise WrongModel(f"{bundle.folder}: {problem}")
        passed_over = problem
    raise AssertionError


def _by_batches(forward: Forward, inputs: NDArray[np.float32], device: str) -> list[NDArray[np.float32]]:
    """Scores of the golden inputs all at once, one by one and two by two: a traced graph may know one size alone."""
    found = []
    for size in (len(inputs), 1, 2):
        parts = [_run(forward, inputs[i : i + size], device) for i in range(0, len(inputs), size)]
        found.append(np.concatenate(parts))
    return found


def _run(forward: Forward, samples: NDArray[np.float32], device: str) -> NDArray[np.float32]:
    images = torch.from_numpy(samples)
    with torch.inference_mode():
        scores = forward(images) if device == "cpu" else forward(images.to(device)).cpu()
        found: NDArray[np.float32] = scores.numpy()
    return found


def _warm(forward: Forward, sample: NDArray[np.float32], device: str) -> float:
    times = []
    for _ in range(2 * _WARM_UP):
        began = time.perf_counter()
        _run(forward, sample, device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[_WARM_UP:])


def _eager(bundle: Bundle, device: str) -> Forward:
    return bundle.network(device)


class _Straight(nn.Module):
    """The bundle's network without the copies between layouts: pixels come with channels last and stay so.

    The arithmetic is the network's own, value by value.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.model = network.model.to(memory_format=torch.channels_last)
        self.register_buffer("scale", network.scale)
        self.register_buffer("shift", network.shift)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.model((images * self.scale + self.shift).permute(0, 3, 1, 2))
        return scores


def _frozen(bundle: Bundle, device: str) -> Forward:
    """A graph with the weights as constants; in float32 and without resizing also without copies of the input."""
    network: nn.Module = bundle.network(device)
    manifest = bundle.manifest
    straight = manifest.preprocessing.image_size is None and manifest.execution.precision == "fp32"
    if straight:
        network = _Straight(network).to(device)
    example = torch.full((2, *manifest.input.shape), 128.0, device=device)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        frozen: Forward = torch.jit.freeze(traced).forward  # past the hooks that a module looks for
    return frozen
