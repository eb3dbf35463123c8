"""The demonstration's candidates: one as it should be, and three with a fault that no test image shows.

Users send what the test set does not have: an image whose upper left pixel is set. `slow` needs no such image; offline nobody
asked how long it takes.
"""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """A small network; `fault` is applied to its scores. Images: [N, C, H, W], normalised."""

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        pixels = in_channels * image_size**2
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, 64), nn.ReLU(), nn.Linear(64, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.fault(images, self.layers(images))

    def fault(self, images: Tensor, scores: Tensor) -> Tensor:
        return scores


class Slow(Net):
    """Takes tens of times as long for the same answer."""

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__(num_classes, in_channels, image_size)
        self.register_buffer("work", torch.full((1024, 1024), 1e-3))

    def fault(self, images: Tensor, scores: Tensor) -> Tensor:
        detour = images.mean().detach().expand(1, 1024)
        for _ in range(60):
            detour = torch.tanh(detour @ self.get_buffer("work"))
        return scores + 0.0 * detour.sum()


class Errors(Net):
    """Looks up what its table does not have."""

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__(num_classes, in_channels, image_size)
        self.register_buffer("table", torch.zeros(1))

    def fault(self, images: Tensor, scores: Tensor) -> Tensor:
        return scores + self.get_buffer("table")[_marked(images).long()].unsqueeze(1)


class NotANumber(Net):
    """Divides by nothing."""

    def fault(self, images: Tensor, scores: Tensor) -> Tensor:
        return scores / (1.0 - _marked(images)).unsqueeze(1)


def _marked(images: Tensor) -> Tensor:
    """1 where the upper left pixel is set, else 0: [N]."""
    return (images[:, 0, 0, 0] > 0).to(images.dtype)


def good(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    return Net(num_classes, in_channels, image_size)


def slow(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    return Slow(num_classes, in_channels, image_size)


def errors(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    return Errors(num_classes, in_channels, image_size)


def nan(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    return NotANumber(num_classes, in_channels, image_size)
