"""An arm as its cost is looked at: its model on its device, images of the training split, one inference."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from assay.config.arm import Arm, Augmentation
from assay.data.batches import Batches
from assay.data.store import Store
from assay.models.build import build
from assay.training.execution import autocast, compiled, place
from assay.training.outcomes import Diverged

SEED = 0
"""Of initial weights and of the choice of images: cost does not depend on it."""


class Subject:
    """`model` is the arm's, `called` the same as it is called: compiled, where the arm asks."""

    def __init__(self, arm: Arm, store: Store, module_roots: Sequence[Path], device: torch.device) -> None:
        self.arm, self.store, self.device = arm, store, device
        self.layout = torch.channels_last if arm.execution.channels_last else torch.contiguous_format
        manifest = store.manifest
        model = build(
            arm.model,
            image_shape=manifest.image_shape,
            classes=len(manifest.classes),
            seed=SEED,
            module_roots=module_roots,
        )
        self.model = place(model, arm.execution, self.device)
        self.called = compiled(self.model, arm.execution, self.device)

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Images [size, C, H, W] and labels [size] of the training split, repeated where it is smaller."""
        batches = self.batches(size, resident=self.device.type != "cuda")
        classes = len(self.store.manifest.classes)
        batch = next(batches.epoch(SEED, 0, Augmentation(), classes=classes))
        if len(batch.labels) == size:
            return batch.images, batch.labels
        chosen = torch.arange(size, device=self.device) % len(batch.labels)
        return batch.images[chosen].contiguous(memory_format=self.layout), batch.labels[chosen]

    def batches(self, size: int | None = None, *, resident: bool | None = None) -> Batches:
        """Batches of the training split as a training has them. size: None: the arm's."""
        return Batches(
            self.store.split("train"),
            batch_size=size or self.arm.training.batch_size,
            device=self.device,
            mean=self.store.manifest.mean,
            std=self.store.manifest.std,
            image_size=self.arm.model.image_size,
            channels_last=self.arm.execution.channels_last,
            resident=resident,
        )

    def inference(self, images: Tensor) -> Callable[[], Tensor]:
        """A call that gives the scores of `images` [batch, C, H, W]."""

        def call() -> Tensor:
            with torch.inference_mode(), autocast(self.arm.execution, self.device):
                scores: Tensor = self.called(images)
            return scores

        return call

    def seconds(self, call: Callable[[], object]) -> float:
        """Of one call as whoever made it waits for it, by the clock of the wall."""
        self.synchronise()
        before = time.perf_counter()
        call()
        self.synchronise()
        return time.perf_counter() - before

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def check_finite(values: Tensor, name: str) -> None:
    """Raises: Diverged naming what is not finite."""
    if not bool(torch.isfinite(values).all()):
        raise Diverged(f"{name}: not finite")
