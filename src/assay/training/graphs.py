"""A model whose kernels are recorded once as CUDA graphs and then replayed (execution.cuda_graphs).

A recording holds for one shape of the images. What recording does besides (warm-up passes that change the statistics of
batch norm and draw random numbers) is undone, so that a training computes what it would without.

Read in PyTorch's documentation ("CUDA graphs") and source (2.9), not seen on a GPU yet.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from assay.training.outcomes import first_line, out_of_memory

_WARMUP_PASSES = 3
"""Before a recording, so that libraries choose their kernels and take their workspaces outside it."""

_Key = tuple[torch.Size, torch.dtype, tuple[int, ...]]


class Recorded(nn.Module):
    """Calls `model`, by replaying the last recording where shape and layout are the same. It shares its weights.

    In training mode with gradients, forward and backward are recorded; else the forward pass. Scores are overwritten
    by the next call in training; elsewhere they are a copy.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._training: tuple[_Key, nn.Module] | None = None
        self._inference: tuple[_Key, Callable[[Tensor], Tensor]] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Raises: ValueError for a model that cannot be recorded."""
        key = (images.shape, images.dtype, images.stride())
        if self.model.training and torch.is_grad_enabled():
            if self._training is None or self._training[0] != key:
                self._training = None  # its memory goes before the next is taken
                with _undisturbed(self.model), _refusal():
                    self._training = key, _record_training(self.model, images)
            scores: Tensor = self._training[1](images)
            return scores
        if self._inference is None or self._inference[0] != key:
            self._inference = None
            with _undisturbed(self.model), _refusal():
                self._inference = key, _record_inference(self.model, images)
        return self._inference[1](images)


class _Body(nn.Module):
    """The model under another name: `make_graphed_callables` puts its own `forward` in the place of that of its argument."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.model(images)
        return scores


def _record_training(model: nn.Module, images: Tensor) -> nn.Module:
    body = _Body(model)
    torch.cuda.make_graphed_callables(
        body, (images.clone(),), num_warmup_iters=_WARMUP_PASSES, allow_unused_input=True
    )
    return body


def _record_inference(model: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    static = images.clone()
    here, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        for _ in range(_WARMUP_PASSES):
            model(static)
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores: Tensor = model(static)

    def replay(images: Tensor) -> Tensor:
        static.copy_(images)
        graph.replay()
        return scores.clone()

    return replay


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Buffers and the GPU's random numbers go on from where they were; buffers stay at their addresses."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    random = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, kept in before:
                buffer.copy_(kept)
        if random is not None:
            torch.cuda.set_rng_state(random)


@contextmanager
def _refusal() -> Iterator[None]:
    """Raises: ValueError in place of what a recording fails by, unless memory ran out."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        if out_of_memory(error):
            raise
        raise ValueError(
            f"execution.cuda_graphs: this model cannot be recorded: {first_line(error)}; write `cuda_graphs: false`"
        ) from error
