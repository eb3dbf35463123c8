"""The training step that is timed does all the work of one and leaves the weights as they are."""

import pytest
import torch

from assay.config.arm import Arm
from assay.models.build import build
from assay.profiling.training_step import TrainingStep

torch.set_num_threads(1)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_repeating_the_step_changes_no_weight_and_counts_every_update(optimizer, precision):
    arm = Arm.model_validate(
        {
            "model": {"source": "builtin:mlp"},
            "training": {
                "optimizer": {"name": optimizer},
                "accumulate": 3,
                "clip_norm": 1.0,
                "ema_decay": 0.9,
                "label_smoothing": 0.1,
            },
            "execution": {"device": "cpu", "precision": precision},
        }
    )
    model = build(arm.model, image_shape=(8, 8, 1), classes=4, seed=0, module_roots=[])
    before = {name: value.clone() for name, value in model.named_parameters()}
    forwards = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    step = TrainingStep(model, model, arm, torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 0]))
    for _ in range(2):
        step()
    assert len(forwards) == 6
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert torch.isfinite(step.loss) and step.loss > 0
    assert len(step.optimizer.state) == len(before)
    assert model.training
