"""Optimiser steps as the training loop takes them, on a batch that stays on the device or on batches that are loaded."""

from collections.abc import Callable, Generator

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy

from assay.config.arm import Arm
from assay.data.batches import Batch, Batches
from assay.profiling.timing import Lap
from assay.profiling.training_parts import AUGMENT, BACKWARD, FORWARD, OPTIMIZER, TRANSFER, WAIT
from assay.training.ema import EMA
from assay.training.execution import autocast
from assay.training.optimizers import build_optimizer, set_learning_rate

Feed = Callable[[Lap], tuple[Tensor, Tensor]]
"""Gives the next images [B, C, H, W] and their labels [B] or targets [B, classes]."""


class TrainingStep:
    """Forward, backward and update as the training loop does them, with the arm's accumulation, clipping and average.

    The learning rate is 0: the same work, and weights that stay where they are however often it is repeated.
    `feed` gives the batches: by default `images` and `labels` again and again, without loading or augmenting.
    """

    def __init__(self, model: nn.Module, called: nn.Module, arm: Arm, images: Tensor, labels: Tensor) -> None:
        self.model, self.called = model, called
        self.feed: Feed = lambda _: (images, labels)
        self.settings, self.execution, self.device = arm.training, arm.execution, images.device
        self.optimizer = build_optimizer(model, self.settings.optimizer)
        set_learning_rate(self.optimizer, 0.0)
        scaled = self.execution.precision == "fp16" and self.device.type == "cuda"
        self.scaler = GradScaler(self.device.type, enabled=scaled)
        decay = self.settings.ema_decay
        self.ema = None if decay is None else EMA(model, decay)
        self.loss = torch.zeros(())
        model.train()

    def __call__(self, lap: Lap = lambda _: None) -> None:
        for _ in range(self.settings.accumulate):
            images, labels = self.feed(lap)
            with autocast(self.execution, self.device):
                scores = self.called(images)
                loss = cross_entropy(scores, labels, label_smoothing=self.settings.label_smoothing)
            lap(FORWARD)
            self.scaler.scale(loss / self.settings.accumulate).backward()  # type: ignore[no-untyped-call]
            self.loss = loss.detach()
            lap(BACKWARD)
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        lap(OPTIMIZER)


class LoadedBatches:
    """A feed of batches in the order and with the augmentation of a training, one epoch after another."""

    def __init__(self, batches: Batches, arm: Arm, *, seed: int, classes: int) -> None:
        self._batches, self._arm, self._seed, self._classes = batches, arm, seed, classes
        self._lap: Lap = lambda _: None
        self._coming = self._epochs()
        self.images_per_batch = batches.batch_size

    def __call__(self, lap: Lap) -> tuple[Tensor, Tensor]:
        self._lap = lap
        batch = next(self._coming)
        lap(AUGMENT)
        return batch.images, batch.labels if batch.targets is None else batch.targets

    def close(self) -> None:
        """End the thread that gathers batches ahead, if there is one."""
        self._coming.close()

    def _epochs(self) -> Generator[Batch, None, None]:
        epoch = 0
        while True:
            yield from self._batches.epoch(
                self._seed, epoch, self._arm.augmentation, classes=self._classes, passed=self._passed
            )
            epoch += 1

    def _passed(self, stage: str) -> None:
        if stage == "gathered":
            self._lap(WAIT)
        elif self._batches.staged:
            self._lap(TRANSFER)
