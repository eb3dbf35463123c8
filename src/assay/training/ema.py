"""Exponential moving average of weights."""

from copy import deepcopy

import torch
from torch import nn


class EMA:
    """A second copy of the model: average <- decay * average + (1 - decay) * weights after every update.

    Buffers (statistics of batch norm) are copied as they are.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = deepcopy(model).requires_grad_(False).eval()
        self._decay = decay
        self._averages: list[torch.Tensor] = list(self.model.parameters())
        self._weights: list[torch.Tensor] = list(model.parameters())
        self._copies = list(self.model.buffers())
        self._buffers = list(model.buffers())

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(self._averages, self._weights, 1 - self._decay)
        for copy, buffer in zip(self._copies, self._buffers, strict=True):
            copy.copy_(buffer)
