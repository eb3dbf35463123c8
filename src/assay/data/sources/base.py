"""What a source gives: images and labels by part, readable in any order and in bounded memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from assay.data.store import SplitName

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class DataError(ValueError):
    """A data set that cannot be used. The text names the file or setting and what to do instead."""


class Part(Protocol):
    """Images with labels: one split, or what is still to be divided."""

    @property
    def labels(self) -> Labels:
        """int64 [N]."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""

    def read(self, indices: NDArray[np.int64]) -> Images:
        """uint8 [len(indices), H, W, C]."""

    def name(self, index: int) -> str:
        """The image as a user knows it."""


@dataclass(frozen=True)
class ArrayPart:
    """Images in memory, or mapped into it."""

    images: Images
    labels: Labels
    title: str
    names: Callable[[int], str] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def read(self, indices: NDArray[np.int64]) -> Images:
        return self.images[indices]

    def name(self, index: int) -> str:
        return self.names(index) if self.names else f"{self.title} image {index}"


@dataclass(frozen=True)
class Subset:
    """Some images of another part, in the given order."""

    part: Part
    indices: NDArray[np.int64]

    @property
    def labels(self) -> Labels:
        return self.part.labels[self.indices]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.part.shape

    def read(self, indices: NDArray[np.int64]) -> Images:
        return self.part.read(self.indices[indices])

    def name(self, index: int) -> str:
        return self.part.name(int(self.indices[index]))


@dataclass(frozen=True)
class Source:
    """A data set before it is divided. `parts` always has `train`; splits that it lacks are taken from that.

    published: the splits are those of a published data set, kept as they are even where they overlap.
    in_memory: reading an image again costs nothing.
    checksums: SHA-256 of the source's files, asked for after everything was read.
    """

    parts: Mapping[SplitName, Part]
    classes: list[str]
    checksums: Callable[[], dict[str, str]] = dict
    published: bool = False
    in_memory: bool = True
    warnings: list[str] = field(default_factory=list)
