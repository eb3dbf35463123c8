"""Schedules, optimisers, average of weights: against closed forms and PyTorch's own."""

from math import cos, pi

import pytest
import torch
from torch import nn

from assay.config.arm import SGD, AdamW, Schedule
from assay.training.ema import EMA
from assay.training.optimizers import build_optimizer, parameter_groups
from assay.training.schedule import factor


def factors(schedule: Schedule, *, per_epoch: int, epochs: int) -> list[float]:
    total = per_epoch * epochs
    return [factor(schedule, update, updates_per_epoch=per_epoch, updates=total) for update in range(total)]


def torchs(scheduler: type, steps: int, **options: object) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = scheduler(optimizer, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_constant_is_constant() -> None:
    assert set(factors(Schedule(name="constant"), per_epoch=3, epochs=4)) == {1.0}


def test_cosine_is_pytorchs() -> None:
    ours = factors(Schedule(name="cosine", final_fraction=0.1), per_epoch=5, epochs=4)
    theirs = torchs(torch.optim.lr_scheduler.CosineAnnealingLR, 20, T_max=20, eta_min=0.1)
    assert ours == pytest.approx(theirs)


def test_step_is_pytorchs() -> None:
    ours = factors(Schedule(name="step", step_epochs=2, step_factor=0.1), per_epoch=5, epochs=6)
    assert ours == pytest.approx(torchs(torch.optim.lr_scheduler.StepLR, 30, step_size=10, gamma=0.1))


def test_warm_up_rises_linearly_to_the_peak_and_hands_over() -> None:
    found = factors(Schedule(name="cosine", warmup_epochs=2), per_epoch=5, epochs=6)
    assert found[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert found[10:] == pytest.approx([0.5 * (1 + cos(pi * step / 20)) for step in range(20)])


def test_one_cycle_rises_to_its_peak_and_falls_to_its_end() -> None:
    found = factors(
        Schedule(name="one_cycle", peak_fraction=0.25, final_fraction=0.01), per_epoch=10, epochs=4
    )
    assert found[0] == pytest.approx(1 / 25)
    assert found[10] == pytest.approx(1.0) == max(found)
    assert found[:11] == sorted(found[:11]) and found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] == pytest.approx(0.01, abs=0.01)


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3), nn.LayerNorm((1, 3))
    )


def test_norms_and_biases_are_spared_of_weight_decay() -> None:
    model = net()
    groups = parameter_groups(model, 0.1, decay_norms_and_biases=False)
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}  # type: ignore[attr-defined]
    assert decayed == {id(model[0].weight), id(model[3].weight)}, (
        "a norm's two-dimensional weight is spared too"
    )
    everything = parameter_groups(model, 0.1, decay_norms_and_biases=True)
    assert len(everything) == 1 and everything[0]["weight_decay"] == 0.1


def test_frozen_parameters_are_left_out_and_nothing_to_train_is_refused() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = build_optimizer(model, SGD(name="sgd"))
    assert [p for group in optimizer.param_groups for p in group["params"]] == [model.weight]
    with pytest.raises(ValueError, match="no trainable parameters"):
        build_optimizer(model.requires_grad_(False), SGD(name="sgd"))


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        (
            SGD(name="sgd", learning_rate=0.1, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        ),
        (
            AdamW(name="adamw", learning_rate=0.01, weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
        ),
    ],
)
def test_optimizers_step_as_pytorchs_do(settings: SGD | AdamW, reference: object) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
    theirs.load_state_dict(ours.state_dict())
    inputs = torch.randn(5, 4)
    optimizers = build_optimizer(ours, settings), reference(theirs.parameters())  # type: ignore[operator]
    for _ in range(5):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_average_of_weights_is_its_formula() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    ema = EMA(model, 0.9)
    expected = model[0].weight.detach().clone()
    for _ in range(4):
        with torch.no_grad():
            model[0].weight += 1
        model(torch.randn(8, 3))
        ema.update()
        expected = 0.9 * expected + 0.1 * model[0].weight.detach()
    torch.testing.assert_close(ema.model[0].weight, expected)  # type: ignore[index]
    assert torch.equal(ema.model[1].running_mean, model[1].running_mean), "statistics are copied"  # type: ignore[index]
    assert not ema.model.training
