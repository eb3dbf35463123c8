"""Augmentation of whole batches: drawn on the CPU from the run's own streams, applied on any device.

Draws are made in pixels of the *stored* image and do not depend on the model's image size, so two arms at
the same seed get the same draws whatever size they ask for. Each kind of change has a stream of its own:
switching one on does not shift the others.

Order: flip, crop (padded or resized), normalise, resize, erase, mix.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.config.arm import Augmentation
from assay.data.streams import stream

Integers = NDArray[np.int64]

CROP_RATIO = (3 / 4, 4 / 3)
"""Aspect ratios of resized crops (Szegedy et al. 2015)."""
ERASE_SCALE, ERASE_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)
"""Share of the area and aspect ratio of erased rectangles (Zhong et al. 2017)."""
ATTEMPTS = 10


@dataclass(frozen=True)
class Draws:
    """Every random choice made for one batch. Boxes are (top, left, height, width) in stored pixels."""

    flips: NDArray[np.bool_] | None = None
    """[B]"""
    offsets: Integers | None = None
    """[B, 2]: top and left of the crop within the padded image."""
    crops: Integers | None = None
    """[B, 4]: boxes that are resized to the whole image."""
    erased: Integers | None = None
    """[B, 4]: boxes that are blanked; height 0: none."""
    mixup: NDArray[np.float64] | None = None
    """[1]: weight of the image itself; the rest is its predecessor's in the batch."""
    cutmix: Integers | None = None
    """[4]: box that is taken from the predecessor in the batch."""

    def digest(self, indices: Integers) -> bytes:
        """SHA-256 over the examples' indices and every draw."""
        digest = sha256(indices.tobytes())
        for field in fields(self):
            value: NDArray[Any] | None = getattr(self, field.name)
            if value is not None:
                digest.update(f"{field.name}{value.shape}".encode())
                digest.update(value.tobytes())
        return digest.digest()

    def of(self, rows: Integers) -> "Draws":
        """The draws for some images of the batch; what holds for the whole batch stays."""
        own = {
            name: value[rows]
            for name in ("flips", "offsets", "crops", "erased")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **own)


NOTHING = Draws()


def draw(
    augmentation: Augmentation, count: int, height: int, width: int, *, seed: int, epoch: int, step: int
) -> Draws:
    """The draws for one batch of `count` images of `height` x `width` stored pixels."""

    def random(kind: int) -> np.random.Generator:
        return stream(seed, "augmentation", epoch, step, kind)

    mixup = cutmix = None
    if augmentation.mixup or augmentation.cutmix:
        mixup, cutmix = _draw_mix(random(4), augmentation, height, width)
    return Draws(
        flips=random(0).random(count) < augmentation.horizontal_flip
        if augmentation.horizontal_flip
        else None,
        offsets=random(1).integers(0, 2 * augmentation.crop_padding + 1, (count, 2))
        if augmentation.crop_padding
        else None,
        crops=_draw_crops(random(2), count, height, width, augmentation.resized_crop)
        if augmentation.resized_crop
        else None,
        erased=_draw_erased(random(3), count, height, width, augmentation.random_erasing)
        if augmentation.random_erasing
        else None,
        mixup=mixup,
        cutmix=cutmix,
    )


def _draw_boxes(
    random: np.random.Generator,
    count: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Integers, NDArray[np.bool_]]:
    """Boxes [count, 4] of random area and aspect (width / height), and whether one of the attempts fitted."""
    area = height * width * random.uniform(*scale, (count, ATTEMPTS))
    aspect = np.exp(random.uniform(np.log(ratio[0]), np.log(ratio[1]), (count, ATTEMPTS)))
    place = random.random((count, 2))
    heights, widths = np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = fits.argmax(1)[:, None]
    sides = np.concatenate(
        [np.take_along_axis(heights, first, 1), np.take_along_axis(widths, first, 1)], axis=1
    )
    corners = np.floor(place * (np.array([height, width]) - sides + 1))
    return np.concatenate([corners, sides], axis=1).astype(np.int64), np.asarray(fits.any(1))


def _draw_crops(
    random: np.random.Generator, count: int, height: int, width: int, scale: tuple[float, float]
) -> Integers:
    """Random resized crops; where no attempt fits, the largest central box within the allowed ratios."""
    boxes, fitted = _draw_boxes(random, count, height, width, scale, CROP_RATIO)
    tall = min(height, round(width / CROP_RATIO[0]))
    wide = min(width, round(height * CROP_RATIO[1]))
    boxes[~fitted] = (height - tall) // 2, (width - wide) // 2, tall, wide
    return boxes


def _draw_erased(
    random: np.random.Generator, count: int, height: int, width: int, probability: float
) -> Integers:
    chosen = random.random(count) < probability
    boxes, fitted = _draw_boxes(random, count, height, width, ERASE_SCALE, ERASE_RATIO)
    boxes[~(chosen & fitted)] = 0
    return boxes


def _draw_mix(
    random: np.random.Generator, augmentation: Augmentation, height: int, width: int
) -> tuple[NDArray[np.float64] | None, Integers | None]:
    """Mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019) for the whole batch; if both, one by chance."""
    if augmentation.mixup and (not augmentation.cutmix or random.random() < 0.5):
        return random.beta(augmentation.mixup, augmentation.mixup, 1), None
    half = 0.5 * np.sqrt(1 - random.beta(augmentation.cutmix, augmentation.cutmix))
    sides = np.array([height, width])
    centre = np.floor(random.random(2) * sides)
    low = np.clip(np.floor(centre - half * sides), 0, sides)
    high = np.clip(np.floor(centre + half * sides), 0, sides)
    return None, np.concatenate([low, high - low]).astype(np.int64)


def on_device(numbers: Integers, device: torch.device) -> Tensor:
    """A few numbers for the device, which is not waited for.

    A plain copy from pageable memory returns only when a GPU has done all that it was given before, and then the GPU
    waits for the next step. From pinned memory it need not; PyTorch keeps that until the copy is through.
    """
    found = torch.from_numpy(numbers)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found.to(device)


def flip_and_crop(images: Tensor, draws: Draws, padding: int) -> Tensor:
    """Left-right flips, then random crops of the zero-padded images: uint8 [B, H, W, C], same shape.

    The flipped images are put last, so that one flip serves them all; the gather of the crop (or of whole
    images) then puts every image back to its place. Crops are gathered by rows of W * C bytes out of a view
    in which every such row of the padded batch, from any pixel on, is one index.
    """
    if draws.flips is None and draws.offsets is None:
        return images
    place = None
    if draws.flips is not None:
        order = np.argsort(draws.flips, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        images = images.index_select(0, on_device(order, images.device))
        kept = len(order) - int(draws.flips.sum())
        parts = (images[:kept], images[kept:].flip(2))
    else:
        parts = (images, images[:0])
    if draws.offsets is None:
        assert place is not None
        return torch.cat(parts).index_select(0, on_device(place, images.device))
    return _crop(parts, draws.offsets, np.arange(len(images)) if place is None else place, padding)


def _crop(parts: tuple[Tensor, Tensor], offsets: Integers, place: Integers, padding: int) -> Tensor:
    first, second = parts
    count, (height, width, channels) = len(first) + len(second), first.shape[1:]
    tall, wide = height + 2 * padding, width + 2 * padding
    padded = first.new_zeros((count, tall, wide, channels))
    inside = padded[:, padding : padding + height, padding : padding + width]
    inside[: len(first)] = first
    inside[len(first) :] = second
    rows = padded.as_strided((count * tall * wide - width + 1, width * channels), (channels, 1))
    start = on_device((place * tall + offsets[:, 0]) * wide + offsets[:, 1], first.device)
    step = torch.arange(height, device=first.device) * wide
    return rows.index_select(0, (start[:, None] + step).flatten()).view(count, height, width, channels)


def resize(images: Tensor, boxes: Integers, height: int, width: int) -> Tensor:
    """Cut a box out of each image and resize it, bilinear with antialiasing as Pillow does it.

    images: float [B, C, H, W]; boxes: int64 [B or 1, 4] (top, left, height, width). Returns [B, C, height, width].
    """
    top, left, tall, wide = on_device(boxes, images.device).to(torch.float32).unbind(1)
    rows = _weights(top, tall, images.shape[2], height)
    columns = _weights(left, wide, images.shape[3], width)
    with _full_precision(images.device):
        return rows[:, None] @ images @ columns[:, None].mT


def _weights(start: Tensor, length: Tensor, source: int, target: int) -> Tensor:
    """Triangle filter [B, target, source]: `length` pixels from `start` on become `target` pixels."""
    start, length = start[:, None, None], length[:, None, None]
    scale = length / target
    centres = start + (torch.arange(target, device=start.device)[:, None] + 0.5) * scale
    pixels = torch.arange(source, device=start.device) + 0.5
    weights = (1 - (pixels - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixels > start) & (pixels < start + length))
    return weights / weights.sum(2, keepdim=True)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Images are resized in full precision whatever an arm chose for its model: arms get the same pixels."""
    matmul = torch.backends.cuda.matmul
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda" or not matmul.allow_tf32:
            yield
            return
        matmul.allow_tf32 = False
        try:
            yield
        finally:
            matmul.allow_tf32 = True


def erase(images: Tensor, boxes: Integers, stored: tuple[int, int]) -> Tensor:
    """Blank one box per image with 0, the mean of normalised images, in place: float [B, C, H, W]."""
    scaled = on_device(_scale(boxes, stored, images.shape[2:]), images.device)
    top, left, height, width = scaled.T[:, :, None].unbind()
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    inside_rows = (rows >= top) & (rows < top + height)
    inside_columns = (columns >= left) & (columns < left + width)
    return images.masked_fill_((inside_rows[:, :, None] & inside_columns[:, None])[:, None], 0.0)


def mix(
    images: Tensor, labels: Tensor, draws: Draws, classes: int, stored: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Mixup or CutMix with the predecessor in the batch: images [B, C, H, W] and targets [B, classes]."""
    if draws.mixup is not None:
        weight = float(draws.mixup[0])
        images = torch.lerp(images.roll(1, 0), images, weight)
    else:
        assert draws.cutmix is not None
        weight = 1 - int(draws.cutmix[2] * draws.cutmix[3]) / (stored[0] * stored[1])
        top, left, height, width = _scale(draws.cutmix, stored, images.shape[2:]).tolist()
        box = (slice(None), slice(None), slice(top, top + height), slice(left, left + width))
        images[box] = images[box].roll(1, 0)
    certain = (labels[:, None] == torch.arange(classes, device=labels.device)).to(torch.float32)
    return images, torch.lerp(certain.roll(1, 0), certain, weight)


def _scale(boxes: Integers, stored: tuple[int, int], shape: tuple[int, ...]) -> Integers:
    """Boxes [..., 4] in stored pixels, rounded to the pixels of an image of another size."""
    if tuple(shape) == tuple(stored):
        return boxes
    factor = np.array(shape) / np.array(stored)
    low = np.rint(boxes[..., :2] * factor)
    high = np.rint((boxes[..., :2] + boxes[..., 2:]) * factor)
    return np.concatenate([low, high - low], axis=-1).astype(np.int64)
