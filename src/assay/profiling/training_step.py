"""One optimiser step on a batch that stays on the device."""

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy

from assay.config.schema import Arm
from assay.training.ema import EMA
from assay.training.execution import autocast
from assay.training.optimizers import build_optimizer, set_learning_rate


class TrainingStep:
    """Forward, backward and update as the training loop does them, with the arm's accumulation, clipping and average.

    The learning rate is 0: the same work, and weights that stay where they are however often it is repeated.
    Loading and augmenting images is not part of it.
    """

    def __init__(self, model: nn.Module, called: nn.Module, arm: Arm, images: Tensor, labels: Tensor) -> None:
        self.model, self.called, self.images, self.labels = model, called, images, labels
        self.settings, self.execution = arm.training, arm.execution
        self.optimizer = build_optimizer(model, self.settings.optimizer)
        set_learning_rate(self.optimizer, 0.0)
        scaled = self.execution.precision == "fp16" and images.device.type == "cuda"
        self.scaler = GradScaler(images.device.type, enabled=scaled)
        decay = self.settings.ema_decay
        self.ema = None if decay is None else EMA(model, decay)
        self.loss = torch.zeros(())
        model.train()

    def __call__(self) -> None:
        for _ in range(self.settings.accumulate):
            with autocast(self.execution, self.images.device):
                scores = self.called(self.images)
                loss = cross_entropy(scores, self.labels, label_smoothing=self.settings.label_smoothing)
            self.scaler.scale(loss / self.settings.accumulate).backward()  # type: ignore[no-untyped-call]
            self.loss = loss.detach()
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
