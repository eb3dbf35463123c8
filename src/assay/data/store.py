"""The memory-mapped store: uint8 images and labels per split, and the manifest that vouches for them.

data/manifest.json
data/{train,validation,test}.images.npy     uint8 [N, H, W, C]
data/{train,validation,test}.labels.npy     int64 [N]
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from assay.records import Typed

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
MANIFEST = "manifest.json"


class StoreError(ValueError):
    """A store that is missing, incomplete or not what its manifest says."""


class SplitSummary(Typed):
    """What one split holds."""

    count: int = Field(description="Number of images.")
    sha256: str = Field(description="SHA-256 of the bytes of the images' file followed by the labels' file.")
    class_counts: list[int] = Field(description="Number of images per class, in the order of `classes`.")


class Manifest(Typed):
    """What a store holds and what it was made from. The same data give the same manifest, byte for byte."""

    schema_version: Literal[1] = 1
    source: str
    image_shape: tuple[int, int, int] = Field(description="Height, width, channels.")
    classes: list[str]
    mean: list[float] = Field(description="Per channel, of the training images scaled to [0, 1].")
    std: list[float] = Field(description="Per channel, of the training images scaled to [0, 1].")
    splits: dict[SplitName, SplitSummary]
    sources: dict[str, str] = Field(
        default={}, description="SHA-256 of each source file, or of a folder's list."
    )
    warnings: list[str] = Field(default=[], description="What a reader of results should know.")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises: StoreError naming the file and what is wrong with it."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise StoreError(
                f"{path}: no such manifest; run the experiment, which prepares the data"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise StoreError(
                f"{path}: {where}: {first['msg']}; remove the folder and run the experiment again"
            ) from None


@dataclass(frozen=True)
class Split:
    """Images and labels of one split, read from disk only where touched."""

    images: NDArray[np.uint8]
    """uint8 [N, H, W, C], C-contiguous, read-only."""
    labels: NDArray[np.int64]
    """int64 [N], read-only."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Store:
    """An opened store."""

    folder: Path
    manifest: Manifest
    splits: dict[SplitName, Split]

    def split(self, name: SplitName) -> Split:
        return self.splits[name]

    def verify(self) -> None:
        """Read every byte and compare with the manifest.

        Raises: StoreError naming the split's files and both checksums.
        """
        for name, summary in self.manifest.splits.items():
            found = split_sha256(self.folder, name)
            if found != summary.sha256:
                raise StoreError(
                    f"{images_path(self.folder, name)} or {labels_path(self.folder, name).name}: changed "
                    f"since it was prepared: SHA-256 is {found}, the manifest says {summary.sha256}; "
                    f"remove the folder and run the experiment again"
                )


def images_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.images.npy"


def labels_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.labels.npy"


def split_sha256(folder: Path, name: str) -> str:
    """SHA-256 over the images' file followed by the labels' file."""
    digest = sha256()
    for path in (images_path(folder, name), labels_path(folder, name)):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def open_store(folder: Path) -> Store:
    """Open a store and check shapes, types and sizes against its manifest (contents: `Store.verify`).

    Raises: StoreError naming the file and what is wrong with it.
    """
    manifest = Manifest.read(folder / MANIFEST)
    missing = [name for name in SPLITS if name not in manifest.splits]
    if missing:
        raise StoreError(
            f"{folder / MANIFEST}: splits: no {missing[0]!r}; remove the folder and run the experiment again"
        )
    splits = {name: _open_split(folder, name, manifest) for name in SPLITS}
    return Store(folder=folder, manifest=manifest, splits=splits)


def _open_split(folder: Path, name: SplitName, manifest: Manifest) -> Split:
    count = manifest.splits[name].count
    images = _open_array(images_path(folder, name), np.dtype(np.uint8), (count, *manifest.image_shape))
    labels = _open_array(labels_path(folder, name), np.dtype(np.int64), (count,))
    return Split(images=images, labels=labels)


def _open_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array = open_memmap(path, mode="r")
    except FileNotFoundError:
        raise StoreError(f"{path}: no such file; remove the folder and run the experiment again") from None
    except (ValueError, OSError) as error:
        raise StoreError(
            f"{path}: not a whole .npy file ({error}); remove the folder and run the experiment again"
        ) from None
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise StoreError(
            f"{path}: holds {array.dtype} {list(array.shape)}, the manifest says {dtype} {list(shape)} "
            f"in C order; remove the folder and run the experiment again"
        )
    if path.stat().st_size != array.offset + array.nbytes:
        raise StoreError(f"{path}: {path.stat().st_size} bytes, expected {array.offset + array.nbytes}")
    return array
