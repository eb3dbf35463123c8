"""Parameters and FLOPs against values known from the layers' shapes."""

import random

import pytest
import torch
from torch import nn

from assay.models import isolation
from assay.models.cost import count_flops, count_parameters

torch.set_num_threads(1)


def convolution(before: int, after: int, kernel: int, side: int) -> int:
    return 2 * before * after * kernel**2 * side**2


def test_parameters_count_tied_once_and_frozen_too() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad = False
    assert count_parameters(model) == 16 + 8


def test_a_multiply_add_is_two_operations() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    )
    assert count_flops(model, (3, 6, 6)) == convolution(3, 8, 3, 6) + 2 * 8 * 36 * 5
    assert count_flops(model, (16, 3, 6, 6)) == count_flops(model, (3, 6, 6))


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("resnet50", 25_557_032, 4.09e9),
        ("densenet121", 7_978_856, 2.83e9),
        ("swin_t", 28_288_354, 4.49e9),
        ("vit_b_16", 86_567_656, 17.56e9),
    ],
)
def test_known_models_have_the_published_counts(name: str, parameters: int, multiply_adds: float) -> None:
    """Against torchvision's tables of its weights (parameters and GFLOPS, there one per multiply-add)."""
    import torchvision.models  # type: ignore[import-untyped]

    with isolation.shapes_only():
        model = torchvision.models.get_model(name)
    assert count_parameters(model) == parameters
    flops = count_flops(model, (3, 224, 224))
    assert flops is not None and flops / 2 == pytest.approx(multiply_adds, abs=0.006e9)


def attention_flops(tokens: int, width: int) -> int:
    return 2 * (4 * tokens * width**2 + 2 * tokens**2 * width)


class Tokens(nn.Module):
    """[B, 16, H, W] → 16 features of H·W tokens."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output = self.layer(images.flatten(2).transpose(1, 2))
        tokens: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return tokens


def test_attention_is_counted_although_its_kernels_are_fused() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True)
    expected = attention_flops(36, 16) + 2 * 2 * 36 * 16 * 32
    assert count_flops(Tokens(layer), (16, 6, 6)) == expected
    assert torch.backends.mha.get_fastpath_enabled()


def test_recurrence_is_counted() -> None:
    assert count_flops(Tokens(nn.LSTM(16, 8, batch_first=True)), (16, 6, 6)) == 2 * 36 * 4 * 8 * (16 + 8)


class Fourier(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        spectrum: torch.Tensor = torch.fft.fft2(images)
        return spectrum.abs()


def test_none_where_it_cannot_be_known() -> None:
    assert count_flops(Fourier(), (1, 8, 8)) is None
    assert count_flops(nn.Linear(3, 3), (1, 8, 8)) is None


def test_counting_leaves_no_trace() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Conv2d(3, 2, 1)).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generators = torch.get_rng_state(), random.getstate()
    count_flops(model, (3, 4, 4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.children()] == [True, False, True]
    assert torch.equal(torch.get_rng_state(), generators[0]) and random.getstate() == generators[1]
    assert not model[0]._forward_hooks and not model[0]._forward_pre_hooks


def test_big_models_are_counted_by_shapes_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 16, 5))
    computed = count_flops(model, (3, 6, 6))
    monkeypatch.setattr(isolation, "_MUCH", 0)
    assert isolation.dry_device(model, (1, 3, 6, 6)).type == "meta"
    assert count_flops(model, (3, 6, 6)) == computed
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
