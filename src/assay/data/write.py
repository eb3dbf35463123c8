"""Writing one split of the store, in bounded memory."""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib.format import write_array_header_2_0
from numpy.typing import NDArray

from assay.data.sources.base import Images, Part
from assay.data.store import images_path, labels_path

CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Written:
    """What was learnt on the way: enough for every check without reading the split again."""

    part: Part
    digests: NDArray[np.void]
    """128-bit BLAKE2 of each image's pixels."""
    sums: NDArray[np.int64]
    """[C], of all pixels."""
    squares: NDArray[np.int64]
    """[C], of all pixels' squares."""

    def moments(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel of images scaled to [0, 1], from exact integer sums."""
        height, width, _ = self.part.shape
        count = len(self.digests) * height * width
        mean = [int(total) / count / 255 for total in self.sums]
        spread = [
            (max(count * int(square) - int(total) ** 2, 0) ** 0.5) / count / 255
            for total, square in zip(self.sums, self.squares, strict=True)
        ]
        return mean, spread


def write_split(folder: Path, name: str, part: Part) -> Written:
    """Write the two files of a split, reading the images in chunks."""
    count, shape = len(part.labels), part.shape
    per_chunk = max(1, CHUNK_BYTES // int(np.prod(shape)))
    digests, sums, squares = [], np.zeros(shape[2], np.int64), np.zeros(shape[2], np.int64)
    with images_path(folder, name).open("wb") as file:
        _write_header(file, np.dtype(np.uint8), (count, *shape))
        for start in range(0, count, per_chunk):
            images = np.ascontiguousarray(part.read(np.arange(start, min(start + per_chunk, count))))
            file.write(images.data)
            if per_chunk < count:
                print(f"{name}: {start + len(images)} of {count} images", flush=True)
            digests.append(pixel_digests(images))
            for channel in range(shape[2]):
                levels = np.bincount(images[..., channel].reshape(-1), minlength=256)
                sums[channel] += levels @ np.arange(256)
                squares[channel] += levels @ np.arange(256) ** 2
    with labels_path(folder, name).open("wb") as file:
        _write_header(file, np.dtype(np.int64), (count,))
        file.write(np.ascontiguousarray(part.labels, np.int64).data)
    return Written(part, np.concatenate(digests) if digests else np.empty(0, "V16"), sums, squares)


def _write_header(file: BinaryIO, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    write_array_header_2_0(file, header)


def pixel_digests(images: Images) -> NDArray[np.void]:
    """128-bit BLAKE2 of each image: V16 [N]."""
    joined = b"".join(blake2b(image.data, digest_size=16).digest() for image in images)
    return np.frombuffer(joined, "V16")
