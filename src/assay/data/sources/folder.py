"""Folders of images in ImageNet's layout.

PATH/train/CLASS/*.jpg  and, if there, PATH/val (or validation)/CLASS/*.jpg and PATH/test/CLASS/*.jpg
PATH/CLASS/*.jpg        without splits
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assay.config.schema import Data
from assay.data.images import EXTENSIONS, decode, decoding_threads
from assay.data.sources.base import DataError, Images, Labels, Source
from assay.data.store import SplitName

SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}


@dataclass
class FolderPart:
    """Images that are decoded when they are read."""

    root: Path
    paths: list[str]
    """Relative to `root`."""
    labels: Labels
    size: int
    checksums: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file that was read."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.size, self.size, 3

    def read(self, indices: NDArray[np.int64]) -> Images:
        result = np.empty((len(indices), *self.shape), np.uint8)

        def load(row: int) -> None:
            name = self.paths[indices[row]]
            path = self.root / name
            try:
                content = path.read_bytes()
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from None
            self.checksums[name] = sha256(content).hexdigest()
            result[row] = decode(content, path, self.size)

        with ThreadPoolExecutor(decoding_threads()) as pool:
            for _ in pool.map(load, range(len(indices))):
                pass
        return result

    def name(self, index: int) -> str:
        return str(self.root / self.paths[index])


def load_folder(settings: Data) -> Source:
    """Raises: DataError for missing settings or folders, classes that differ, files that are no images."""
    if settings.path is None:
        raise DataError("data.path: a folder needs it; write the folder that holds train/CLASS/ or CLASS/")
    if settings.image_size is None:
        raise DataError("data.image_size: a folder needs it; write e.g. image_size: 224")
    root = Path(settings.path)
    if not root.is_dir():
        raise DataError(f"data.path: {root}: no such folder")
    folders = _split_folders(root)
    classes = _subfolders(folders["train"])
    if not classes:
        raise DataError(f"{folders['train']}: no class folders; expected {folders['train']}/CLASS/IMAGE.jpg")
    warnings: list[str] = []
    parts = {
        split: _part(root, folder, classes, settings.image_size, warnings)
        for split, folder in folders.items()
    }
    return Source(parts, classes, lambda: _checksums(parts), in_memory=False, warnings=warnings)


def _split_folders(root: Path) -> dict[SplitName, Path]:
    if not (root / "train").is_dir():
        return {"train": root}
    found: dict[SplitName, Path] = {}
    for name in _subfolders(root):
        if name not in SPLIT_FOLDERS:
            raise DataError(
                f"{root / name}: beside train/ only val/, validation/ and test/ are known; move it away"
            )
        if SPLIT_FOLDERS[name] in found:
            raise DataError(f"{root}: holds both val/ and validation/; remove one of them")
        found[SPLIT_FOLDERS[name]] = root / name
    return found


def _part(root: Path, folder: Path, classes: list[str], size: int, warnings: list[str]) -> FolderPart:
    """One split's files, sorted by class and path."""
    unknown = sorted(set(_subfolders(folder)) - set(classes))
    if unknown:
        raise DataError(f"{folder / unknown[0]}: a class that train/ lacks; add it there or remove it")
    paths: list[str] = []
    counts: list[int] = []
    others: list[str] = []
    for name in classes:
        files = _files(folder / name)
        images = [path for path in files if path.suffix.lower() in EXTENSIONS]
        others += [str(path.relative_to(root)) for path in files if path.suffix.lower() not in EXTENSIONS]
        paths += [str(path.relative_to(root)) for path in images]
        counts.append(len(images))
    if others:
        warnings.append(f"{len(others)} files are no images and were left out, e.g. {others[0]}")
    labels = np.repeat(np.arange(len(classes)), counts).astype(np.int64)
    return FolderPart(root, paths, labels, size)


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    """All files below a folder that are not hidden, in a fixed order."""
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if not name.startswith(".")
    )


def _checksums(parts: Mapping[SplitName, FolderPart]) -> dict[str, str]:
    """Per split the SHA-256 of its files' list as `sha256sum` writes it: they are too many to name."""
    return {
        f"{split} files": sha256(
            "".join(f"{part.checksums[name]}  {name}\n" for name in part.paths).encode()
        ).hexdigest()
        for split, part in parts.items()
    }
