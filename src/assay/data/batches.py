"""Batches of a split: shuffled and augmented for training, in order for evaluation.

The random choices come from the streams of the run alone and are made on the CPU; pixels are gathered,
changed and normalised as whole batches on the device. On a GPU a split that fits in a third of the free
memory is kept there; a larger one is gathered on the CPU by a thread that is two batches ahead.

Several processes that train one model share each batch: every one draws for the whole batch and makes its own
rows of it, so that the batch and its digest do not depend on their number.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.config.arm import Augmentation
from assay.data.augment import NOTHING, Draws, draw, erase, flip_and_crop, mix, on_device, resize
from assay.data.store import Split
from assay.data.streams import stream

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """One batch, or a process's share of one, on the device. It owns its memory."""

    images: Tensor
    """float32 [B, C, H, W], normalised."""
    labels: Tensor
    """int64 [B]."""
    targets: Tensor | None
    """float32 [B, classes] where mixup or CutMix mixed labels, else None."""
    indices: Indices
    """int64 [B]: positions of the examples in the split."""
    digest: bytes
    """SHA-256 over the whole batch's indices and draws: equal for arms that are paired."""


class Batches:
    """Batches of one split.

    mean, std: per channel in [0, 1] units. image_size: side to which images are resized, from the central
    square where the stored image is not square; None: as stored. resident: whether all images are kept on
    the device; None: on a GPU where they fit. rank, ranks: which share of each batch is made here, of how many.
    `staged` says whether batches travel to the device one by one.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        device: torch.device | str,
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int | None = None,
        channels_last: bool = False,
        resident: bool | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size}; write 1 or more")
        self.device = torch.device(device)
        self.batch_size = min(batch_size, len(split))
        self._rank, self._ranks, self._share = rank, ranks, max(1, self.batch_size // ranks)
        self.count = len(split)
        self._images = _as_tensor(split.images)
        self._labels = torch.from_numpy(np.array(split.labels)).to(self.device)
        self._stored = (int(split.images.shape[1]), int(split.images.shape[2]))
        self._size = self._stored if image_size is None else (image_size, image_size)
        self._channels_last = channels_last
        if resident is None:
            resident = self.device.type != "cuda" or _fits(split.images.nbytes, self.device)
        self.staged = not resident
        if resident:
            self._images = self._images.to(self.device)
        spread = torch.tensor([value or 1.0 for value in std], dtype=torch.float64)
        centre = torch.tensor(mean, dtype=torch.float64)
        pixels = self._stored[0] * self._stored[1] if channels_last else 1
        self._scale = (1 / (255 * spread)).float().repeat(pixels).to(self.device)
        self._shift = (-centre / spread).float().repeat(pixels).to(self.device)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; a split smaller than one batch is one batch."""
        return self.count // self.batch_size

    def epoch(
        self,
        seed: int,
        epoch: int,
        augmentation: Augmentation,
        *,
        classes: int,
        first_step: int = 0,
        passed: Callable[[str], None] = lambda _: None,
    ) -> Iterator[Batch]:
        """One epoch in the run's own order, from `first_step` on; a last partial batch is dropped.

        passed: called for each batch once it is `gathered`, and again once it is `transferred` to the device.

        Raises: ValueError for a batch that its processes cannot share evenly.
        """
        rows = self._rows(before=bool(augmentation.mixup or augmentation.cutmix))
        order = stream(seed, "order", epoch).permutation(self.count)

        def indices(step: int) -> Indices:
            return order[step * self.batch_size : (step + 1) * self.batch_size]

        def drawn(step: int) -> Draws:
            return draw(augmentation, self.batch_size, *self._stored, seed=seed, epoch=epoch, step=step)

        steps = range(first_step, self.steps_per_epoch)
        return self._serve(steps, indices, drawn, augmentation.crop_padding, classes, rows, passed)

    def _rows(self, *, before: bool) -> Indices | None:
        """Which images of a batch are made here; None: all.

        before: put the image before them first, as their first one is mixed with it. The first image's is the last.
        """
        if self._ranks == 1:
            return None
        if self.batch_size % self._ranks:
            raise ValueError(
                f"training.batch_size: a batch has {self.batch_size} images ({self.count} are there), which {self._ranks} "
                f"processes cannot share; write `batch_size: {self.batch_size // self._ranks * self._ranks or self._ranks}`, "
                "or fewer `execution.devices`"
            )
        first = self._rank * self._share
        return np.arange(first - before, first + self._share) % self.batch_size

    def sequential(self) -> Iterator[Batch]:
        """All examples once, in order and unchanged; the last batch may be smaller.

        Several processes take turns: together they get every example once.
        """

        def indices(step: int) -> Indices:
            return np.arange(step * self._share, min((step + 1) * self._share, self.count))

        steps = range(self._rank, -(-self.count // self._share), self._ranks)
        return self._serve(steps, indices, lambda _: NOTHING, 0, 0, None)

    def _serve(
        self,
        steps: range,
        indices: Callable[[int], Indices],
        drawn: Callable[[int], Draws],
        padding: int,
        classes: int,
        rows: Indices | None,
        passed: Callable[[str], None] = lambda _: None,
    ) -> Iterator[Batch]:
        def gather(step: int) -> tuple[Indices, Tensor]:
            chosen = indices(step)
            return chosen, self._gather(chosen if rows is None else chosen[rows])

        for step, (chosen, images) in zip(steps, self._ahead(gather, steps), strict=True):
            draws = drawn(step)
            digest = draws.digest(chosen)
            if rows is not None:
                chosen, draws = chosen[rows], draws.of(rows)
            passed("gathered")
            images = images.to(self.device, non_blocking=True)
            passed("transferred")
            images = flip_and_crop(images, draws, padding)
            images = self._finish(images, draws)
            labels = self._labels.index_select(0, on_device(chosen, self.device))
            targets = None
            if draws.mixup is not None or draws.cutmix is not None:
                images, targets = mix(images, labels, draws, classes, self._stored)
                if rows is not None:  # the first one only served the second
                    images, labels, targets, chosen = images[1:], labels[1:], targets[1:], chosen[1:]
            yield Batch(images, labels, targets, chosen, digest)

    def _ahead(
        self, gather: Callable[[int], tuple[Indices, Tensor]], steps: range
    ) -> Iterator[tuple[Indices, Tensor]]:
        """The gathered batches in order; where they must travel to the device, two are made in advance."""
        if not self.staged:
            yield from map(gather, steps)
            return
        pending: deque[Future[tuple[Indices, Tensor]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            try:
                for step in steps:
                    pending.append(pool.submit(gather, step))
                    if len(pending) > 2:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _gather(self, indices: Indices) -> Tensor:
        """uint8 [B, H, W, C], on the device where the images are resident, else in pinned memory for it."""
        chosen = on_device(indices, self._images.device)
        if not self.staged:
            return self._images.index_select(0, chosen)
        shape = (len(indices), *self._images.shape[1:])
        pinned = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        return torch.index_select(self._images, 0, chosen, out=pinned)

    def _finish(self, images: Tensor, draws: Draws) -> Tensor:
        """Normalise uint8 [B, H, W, C], resize and erase: float32 [B, C, height, width]."""
        count, height, width, channels = images.shape
        if self._channels_last:
            flat = images.view(count, -1).to(torch.float32).mul_(self._scale).add_(self._shift)
            result = flat.view(count, height, width, channels).permute(0, 3, 1, 2)
        else:
            planes = images.permute(0, 3, 1, 2).contiguous().view(count, channels, -1).to(torch.float32)
            planes.mul_(self._scale[:, None]).add_(self._shift[:, None])
            result = planes.view(count, channels, height, width)
        if draws.crops is not None:
            result = resize(result, draws.crops, *self._size)
        elif self._size != self._stored:
            side = min(height, width)
            box = np.array([[(height - side) // 2, (width - side) // 2, side, side]])
            result = resize(result, box, *self._size)
        if draws.erased is not None:
            result = erase(result, draws.erased, self._stored)
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        return result.contiguous(memory_format=layout)


def _as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """The array as a tensor over the same memory, which is only ever read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable", category=UserWarning)
        return torch.from_numpy(images)


def _fits(size: int, device: torch.device) -> bool:
    """Whether `size` bytes fit in a third of the device's free memory."""
    free, _ = torch.cuda.mem_get_info(device)
    return size <= free / 3
