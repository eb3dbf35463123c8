"""Decoding and resizing single images with Pillow."""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assay.data.sources.base import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"})


def decode(content: bytes, path: Path, size: int) -> NDArray[np.uint8]:
    """An image file as RGB, shorter side resized to `size`, central square: uint8 [size, size, 3].

    Raises: DataError naming the file that is damaged, no image, or of more than 8 bits a channel.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode[0] in "IF":
                raise DataError(
                    f"{path}: more than 8 bits a channel (mode {image.mode}); convert it to 8 bits"
                )
            return np.asarray(fit(image.convert("RGB"), size))
    except DataError:
        raise
    except Exception as error:  # Pillow raises many types for damaged files
        raise DataError(
            f"{path}: damaged or no image ({type(error).__name__}); replace or remove it"
        ) from None


def fit(image: "Image", size: int) -> "Image":
    """Shorter side to `size`, bilinear with antialiasing, then the central square, as usual for ImageNet."""
    from PIL.Image import Resampling

    width, height = image.size
    short = min(width, height)
    wide, tall = int(size * width / short), int(size * height / short)
    if (wide, tall) != (width, height):
        image = image.resize((wide, tall), Resampling.BILINEAR)
    left, top = round((wide - size) / 2), round((tall - size) / 2)
    return image.crop((left, top, left + size, top + size))


def resized(images: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """uint8 [N, H, W, C] to [N, size, size, C]; each channel on its own, as Pillow does it for RGB."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    from PIL import Image

    result: NDArray[np.uint8] = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for index, image in enumerate(images):
        for channel in range(images.shape[3]):
            plane = Image.fromarray(np.ascontiguousarray(image[:, :, channel]))
            result[index, :, :, channel] = np.asarray(fit(plane, size))
    return result


def decoding_threads() -> int:
    """Threads for decoding: Pillow releases the interpreter while it works."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
