"""Run a model without leaving a trace: in its parameters, buffers, modes or any random generator."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

_MUCH = 5e12
"""Parameters × pixels of an image; ResNet-50 at 224 pixels has 1.3e12 and takes a core 0.2 s an image."""


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Put PyTorch's, NumPy's and Python's global generators back as they were."""
    python_state, numpy_state = random.getstate(), numpy.random.get_state()
    devices = range(torch.cuda.device_count()) if _cuda_in_use() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python_state)
        numpy.random.set_state(numpy_state)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Start the global generators from `seed`, and put them back afterwards.

    CUDA's are seeded only where CUDA is in use: `torch.manual_seed` would otherwise remember the seed and
    apply it when CUDA starts, long after this has ended.
    """
    with kept_random_state():
        torch.default_generator.manual_seed(seed)
        if _cuda_in_use():
            torch.cuda.manual_seed_all(seed)
        numpy.random.seed(seed % 2**32)
        random.seed(seed)
        yield


@contextmanager
def shapes_only() -> Iterator[None]:
    """Models constructed meanwhile have parameters without memory, on `meta`; all else is as ever.

    Unlike `torch.device("meta")` this lets constructors compute with tensors (RegNet's widths).
    """

    def strip(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> Any:
        return (
            None if parameter is None or is_lazy(parameter) else nn.Parameter(parameter.detach().to("meta"))
        )

    handle = nn.modules.module.register_module_parameter_registration_hook(strip)
    try:
        yield
    finally:
        handle.remove()


def _cuda_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each module is in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def dry_forward(model: nn.Module, shape: tuple[int, ...], *, device: torch.device | str) -> object:
    """What the model returns for zeros of `shape`; on the device `meta` nothing is computed but shapes.

    The model's state is swapped for copies while it runs: buffers that it changes (batch norm's statistics,
    counters) are as before.
    """
    parameters = dict(model.named_parameters())
    buffers = dict(model.named_buffers())
    if torch.device(device).type == "meta":
        state = {name: tensor.to("meta") for name, tensor in [*parameters.items(), *buffers.items()]}
    else:
        state = {name: buffer.clone() for name, buffer in buffers.items()}
    images = torch.zeros(shape, device=device)
    with kept_random_state(), evaluating(model):
        return functional_call(model, state, (images,))


def dry_device(model: nn.Module, shape: tuple[int, ...]) -> torch.device:
    """Where a dry forward of `shape` is soonest done: where the model is, or on `meta` for a big model.

    The first use of `meta` imports PyTorch's shape rules, which takes about a second: longer than
    most models take to compute a few images.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters * shape[-1] * shape[-2] > _MUCH:
        return torch.device("meta")
    first: Tensor | None = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
