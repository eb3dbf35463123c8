"""What a model has to fit: the data's images and classes."""

from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True)
class Inputs:
    """Images of one shape and the number of classes to tell apart. `size` is (height, width) in pixels."""

    NAMES: ClassVar[tuple[str, ...]] = ("num_classes", "in_channels", "image_size")

    channels: int
    size: tuple[int, int]
    classes: int

    def __str__(self) -> str:
        height, width = self.size
        return f"{height}×{width}×{self.channels}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width), as PyTorch's convolutions take images."""
        return (self.channels, *self.size)

    def with_side(self, side: int) -> "Inputs":
        return replace(self, size=(side, side))
