"""The training loop: steps, validation, choice of the epoch, checkpoints, log."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy

from assay.config.arm import Arm
from assay.data.batches import Batch, Batches
from assay.records import Log
from assay.training.checkpoint import Checkpoints, random_state, restore_random_state
from assay.training.ema import EMA
from assay.training.execution import autocast, compiled
from assay.training.optimizers import build_optimizer, set_learning_rate
from assay.training.outcomes import Diverged
from assay.training.ranks import ALONE, Ranks
from assay.training.schedule import factor

LOG_SECONDS = 0.2
"""Least time between two lines about steps; the first and the last step of an epoch always get one."""


class Interrupted(Exception):
    """Somebody asked the run to end; a checkpoint has been written. Its argument is the signal's number."""


@dataclass
class Position:
    """How far a run is. Everything here goes into a checkpoint; the two sums are the rank's own."""

    epoch: int = 0
    step: int = 0
    updates: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    digest: str = ""
    seconds: float = 0.0
    history: list[dict[str, float | int]] = field(default_factory=list)
    best: tuple[float, float] | None = None
    best_epoch: int | None = None


class Loop:
    """One run from its position to its end. `best_weights` are those of the chosen epoch, on the CPU of rank 0.

    stop_requested: the number of the signal that asked this process to end; 0 if none did.
    until: epochs after which it pauses, with a checkpoint; None: it does not.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Arm,
        *,
        seed: int,
        classes: int,
        training: Batches,
        validation: Batches,
        checkpoints: Checkpoints,
        log: Log,
        stop_requested: Callable[[], int],
        ranks: Ranks = ALONE,
        until: int | None = None,
    ) -> None:
        self.model = model
        self.settings = settings.training
        self.until = self.settings.epochs if until is None else until
        self.augmentation = settings.augmentation
        self.execution = settings.execution
        self.seed, self.classes = seed, classes
        self.training, self.validation = training, validation
        self.checkpoints, self.log, self.stop_requested = checkpoints, log, stop_requested
        self.device, self.ranks = training.device, ranks
        self.optimizer = build_optimizer(model, self.settings.optimizer)
        self.forward = ranks.parallel(compiled(model, self.execution, self.device), self.device)
        self.ema = EMA(model, self.settings.ema_decay) if self.settings.ema_decay else None
        scaled = self.execution.precision == "fp16" and self.device.type == "cuda"
        self.scaler = GradScaler(self.device.type, enabled=scaled)
        self.position = Position()
        self.best_weights: dict[str, Tensor] = {}
        self.updates_per_epoch = math.ceil(training.steps_per_epoch / self.settings.accumulate)
        self._last_checkpoint = self._last_line = time.monotonic()

    def run(self) -> None:
        """Raises: Diverged, Interrupted."""
        while self.position.epoch < self.until:
            self._train_epoch()
            self._validate()
            self.position.epoch += 1
            self.position.step = 0
            self.position.loss_sum, self.position.correct, self.position.seen = 0.0, 0, 0
            self._maybe_checkpoint()
        if self.until < self.settings.epochs:
            self._checkpoint(0)

    def _train_epoch(self) -> None:
        """The steps of the current epoch that are left, the sums of those before being in the position."""
        at, steps = self.position, self.training.steps_per_epoch
        self.model.train()
        began, before = time.monotonic(), at.seconds
        loss_sum = torch.tensor(at.loss_sum, dtype=torch.float64, device=self.device)
        correct = torch.tensor(at.correct, dtype=torch.int64, device=self.device)
        batches = self.training.epoch(
            self.seed, at.epoch, self.augmentation, classes=self.classes, first_step=at.step
        )
        for batch in batches:
            ends_group = (at.step + 1) % self.settings.accumulate == 0 or at.step + 1 == steps
            with nullcontext() if ends_group else self.ranks.apart(self.forward):
                loss, logits = self._backward(batch, self._group_size(at.step, steps))
            if ends_group:
                self._update()
            with torch.no_grad():
                loss_sum += loss * len(batch.labels)
                correct += (logits.argmax(1) == batch.labels).sum()
            at.seen += self.training.batch_size
            at.digest = sha256(at.digest.encode() + batch.digest).hexdigest()
            at.step += 1
            at.seconds = before + time.monotonic() - began
            line, checkpoint, stop = self._due()
            if line or at.step in (1, steps):
                self._last_line = time.monotonic()
                self._log_step(*self.ranks.sum(float(loss), float(loss_sum), int(correct)))
            if ends_group and (checkpoint or stop):
                at.loss_sum, at.correct = float(loss_sum), int(correct)
                self._checkpoint(stop)
        at.loss_sum, at.correct = float(loss_sum), int(correct)

    def _due(self) -> list[int]:
        """Whether a line and a checkpoint are due by the clock of rank 0, and the signal that any rank got; 0: not."""
        now, timed = time.monotonic(), self.ranks.first
        return self.ranks.most(
            timed and now - self._last_line > LOG_SECONDS,
            timed and now - self._last_checkpoint >= self.settings.checkpoint_seconds,
            self.stop_requested(),
        )

    def _group_size(self, step: int, steps: int) -> int:
        """How many steps share the update that this step belongs to; the last group may be smaller."""
        first = step - step % self.settings.accumulate
        return min(self.settings.accumulate, steps - first)

    def _backward(self, batch: Batch, group: int) -> tuple[Tensor, Tensor]:
        with autocast(self.execution, self.device):
            logits = self.forward(batch.images)
            target = batch.labels if batch.targets is None else batch.targets
            loss = cross_entropy(logits, target, label_smoothing=self.settings.label_smoothing)
        self.scaler.scale(loss / group if group > 1 else loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach(), logits.detach()

    def _update(self) -> None:
        at = self.position
        rate = self.settings.optimizer.learning_rate * factor(
            self.settings.schedule,
            at.updates,
            updates_per_epoch=self.updates_per_epoch,
            updates=self.updates_per_epoch * self.settings.epochs,
        )
        set_learning_rate(self.optimizer, rate)
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        at.updates += 1

    def _log_step(self, losses: float, loss_sum: float, correct: float) -> None:
        """Each summed over the ranks. Raises: Diverged."""
        at, loss = self.position, losses / self.ranks.size
        self.log.write(
            "step",
            step=at.epoch * self.training.steps_per_epoch + at.step,
            epoch=at.epoch,
            loss=loss,
            accuracy=correct / at.seen,
            gpu_memory_mb=self._gpu_memory(),
            throughput_samples_per_sec=self._throughput(),
        )
        if not math.isfinite(loss_sum):
            raise Diverged(f"training loss is {loss} in epoch {at.epoch}, step {at.step}")

    def _throughput(self) -> float | None:
        at = self.position
        samples = at.epoch * self.training.steps_per_epoch * self.training.batch_size + at.seen
        return samples / at.seconds if at.seconds > 0 else None

    def _gpu_memory(self) -> float | None:
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device) / 2**20

    def _validate(self) -> None:
        at = self.position
        model = self.model if self.ema is None else self.ema.model
        loss, accuracy = self._measure(model)
        loss_sum, correct = self.ranks.sum(at.loss_sum, at.correct)
        entry: dict[str, float | int] = {
            "epoch": at.epoch,
            "step": (at.epoch + 1) * self.training.steps_per_epoch,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss_sum / at.seen,
            "train_accuracy": correct / at.seen,
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "seconds": at.seconds,
        }
        extra = {key: value for key, value in entry.items() if key not in {"epoch", "step"}}
        self.log.write(
            "epoch",
            step=entry["step"],
            epoch=at.epoch,
            loss=loss,
            accuracy=accuracy,
            gpu_memory_mb=self._gpu_memory(),
            throughput_samples_per_sec=self._throughput(),
            **extra,
        )
        if not math.isfinite(loss):
            raise Diverged(f"validation loss is {loss} after epoch {at.epoch}")
        at.history.append(entry)
        if self.settings.select == "last" or at.best is None or (accuracy, -loss) > at.best:
            at.best, at.best_epoch = (accuracy, -loss), at.epoch
            self.best_weights = weights_of(model) if self.ranks.first else {}

    @torch.no_grad()
    def _measure(self, model: nn.Module) -> tuple[float, float]:
        """Mean cross-entropy and accuracy on the validation split."""
        model.eval()
        self.ranks.share_buffers(model)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for batch in self.validation.sequential():
            with autocast(self.execution, self.device):
                logits = model(batch.images).float()
            loss_sum += cross_entropy(logits, batch.labels, reduction="sum")
            correct += (logits.argmax(1) == batch.labels).sum()
        losses, hits = self.ranks.sum(float(loss_sum), int(correct))
        return losses / self.validation.count, hits / self.validation.count

    def _maybe_checkpoint(self) -> None:
        if self.position.epoch < self.settings.epochs:
            _, checkpoint, stop = self._due()
            if checkpoint or stop:
                self._checkpoint(stop)

    def _checkpoint(self, stop: int) -> None:
        """Raises: Interrupted where `stop` is a signal, once rank 0 has written."""
        each = self.ranks.gather(self._own_state())
        if self.ranks.first:
            self.log.flush(sync=True)  # who goes on from here does not write these lines again
            self.checkpoints.save(self.state(each))
        self._last_checkpoint = time.monotonic()
        self.log.write("checkpoint", epoch=self.position.epoch, step=self.position.step)
        if stop:
            self.log.flush()
            self.ranks.wait()
            raise Interrupted(stop)

    def _own_state(self) -> dict[str, Any]:
        """What differs between ranks."""
        at = self.position
        return {"random": random_state(self.device), "loss_sum": at.loss_sum, "correct": at.correct}

    def state(self, each: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "position": asdict(self.position),
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best_weights": self.best_weights,
            "ranks": each,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.position = Position(**state["position"])
        if self.position.best is not None:
            accuracy, loss = self.position.best
            self.position.best = (accuracy, loss)
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.model.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.best_weights = state["best_weights"]
        own = state["ranks"][self.ranks.rank]
        self.position.loss_sum, self.position.correct = own["loss_sum"], own["correct"]
        restore_random_state(own["random"], self.device)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state on the CPU that shares no memory, as a safetensors file needs it."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous() for name, value in model.state_dict().items()
    }
