"""What of the device the loop reads: each reading waits for a GPU, so there is none by the step."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import MakeRun, arm_of, trained

from assay.training import loop

READING = "aten._local_scalar_dense.default"
"""What `item`, `float`, `int` and `bool` of a tensor come to."""


class Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def readings(make_run: MakeRun, name: str, batch_size: int) -> int:
    training = {
        "batch_size": batch_size,
        "clip_norm": 1.0,
        "ema_decay": 0.9,
        "label_smoothing": 0.1,
        "epochs": 2,
    }
    augmentation = {"crop_padding": 1, "horizontal_flip": 0.5, "random_erasing": 0.2, "mixup": 0.2}
    settings = arm_of(training=training, augmentation=augmentation)
    with Counting() as counting:
        record = trained(make_run(name, settings=settings))
    assert counting.calls["aten.argmax.default"] >= 2 * record.details["steps_per_epoch"], "it sees the steps"
    return counting.calls[READING]


def test_nothing_is_read_from_the_device_by_the_step(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        loop, "LOG_SECONDS", 1e9
    )  # the first and the last step of an epoch are told all the same
    monkeypatch.setattr(loop.time, "monotonic", lambda: 0.0)  # and no line, no checkpoint is due
    readings(make_run, "first", 128)  # what PyTorch reads once in a process
    few, many = readings(make_run, "few", 128), readings(make_run, "many", 32)
    assert few == many > 0
    backward = loop.Loop._backward

    def reading(self: loop.Loop, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
        loss, logits = backward(self, *arguments)
        assert loss.item() > 0
        return loss, logits

    monkeypatch.setattr(loop.Loop, "_backward", reading)
    assert readings(make_run, "seen", 32) > many, "one by the step is seen"
