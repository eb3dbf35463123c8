"""Built-in models, and what holds for models of every source."""

import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from assay.config.arm import Model
from assay.models.build import build
from assay.models.builtin import BUILTINS
from assay.models.errors import ModelError

torch.set_num_threads(1)


def make(
    source: str, *, shape: tuple[int, int, int] = (8, 8, 1), classes: int = 10, **settings: Any
) -> torch.nn.Module:
    seed = settings.pop("seed", 0)
    roots = settings.pop("roots", ())
    model = Model(source=source, **settings)
    return build(model, image_shape=shape, classes=classes, seed=seed, module_roots=roots)


@pytest.mark.parametrize("name", BUILTINS)
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 24, 3), (64, 64, 3)])
def test_builtins_train_on_small_images(name: str, shape: tuple[int, int, int]) -> None:
    model = make(f"builtin:{name}", shape=shape, classes=7, options={"dropout": 0.1})
    height, width, channels = shape
    loss = torch.nn.functional.cross_entropy(model(torch.randn(4, channels, height, width)), torch.arange(4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", BUILTINS)
def test_builtins_can_fit(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(64, 1, 8, 8, generator=generator), torch.arange(64) % 10
    model = make(f"builtin:{name}")
    parameters = list(model.parameters())
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= 0.3 * slope
    assert (model(images).argmax(1) == labels).float().mean() > 0.9


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("builtin:resnet", {}, r"no 'builtin:resnet' \(there are mlp, .*\); did you mean 'resnet-small'\?"),
        (
            "builtin:cnn",
            {"widht": 8},
            r"model\.options\.widht: unknown to builtin:cnn.*did you mean 'width'\?",
        ),
        ("builtin:cnn", {"dropout": 1.0}, r"model\.options\.dropout: should be less than 1, not 1\.0"),
        ("builtin:cnn", {"width": True}, r"model\.options\.width: .*integer, not True; the default is 32"),
        ("builtin:cnn", {"depth": 6}, r"model\.options\.depth: .*8×8×1; write depth: 4 or less"),
        (
            "builtin:mlp",
            {"hidden": [8, 0]},
            r"model\.options\.hidden\.1: .*greater than or equal to 1, not 0",
        ),
        ("builtin:mlp", {"hidden": 8}, r"model\.options\.hidden: .*list, not 8; the default is \[256, 128\]"),
    ],
)
def test_builtins_errors_say_what_to_write(source: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make(source, options=options)


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(ModelError, match=r"(?s)dropout.*\n.*widht"):
        make("builtin:cnn", options={"dropout": 2.0, "widht": 1})


def test_options_shape_the_network() -> None:
    softmax = make("builtin:mlp", options={"hidden": []})
    assert sum(p.numel() for p in softmax.parameters()) == 64 * 10 + 10
    resnet20 = make("builtin:resnet-small", shape=(32, 32, 3), options={"blocks": 3})
    convolutions = [m for m in resnet20.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len([m for m in convolutions if m.kernel_size == (3, 3)]) == 19
    assert make("builtin:cnn", options={"depth": 4})(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def disturb() -> None:
    torch.manual_seed(random.randrange(1000))
    numpy.random.seed(random.randrange(1000))
    torch.rand(3)


OWN = """
import random, numpy, torch
def net(num_classes):
    layers = torch.nn.Linear(64, num_classes), torch.nn.BatchNorm1d(num_classes)
    model = torch.nn.Sequential(torch.nn.Flatten(), *layers)
    model[1].bias.data += float(numpy.random.rand()) + random.random()
    return model
"""


@pytest.mark.parametrize("source", ["builtin:resnet-small", "torchvision:squeezenet1_1", "drawing:net"])
def test_weights_depend_on_the_seed_alone(source: str, tmp_path: Path) -> None:
    (tmp_path / "drawing.py").write_text(OWN)
    settings: dict[str, Any] = {"roots": [tmp_path], "image_size": None if source == "drawing:net" else 32}
    first = make(source, **settings).state_dict()
    disturb()
    again, other = make(source, **settings).state_dict(), make(source, seed=1, **settings).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    "source", ["builtin:cnn", "torchvision:squeezenet1_1", "torchvision:nothing", "drawn:net"]
)
def test_global_generators_stay(source: str, tmp_path: Path) -> None:
    (tmp_path / "drawn.py").write_text(OWN)
    before = torch.get_rng_state(), str(numpy.random.get_state()), random.getstate()
    try:
        make(source, image_size=None if source == "drawn:net" else 32, roots=[tmp_path])
    except ModelError:
        assert source == "torchvision:nothing"
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(numpy.random.get_state()) == before[1]
    assert random.getstate() == before[2]


STATEFUL = """
import torch
class Counting(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(1, momentum=0.5)
        self.frozen = torch.nn.BatchNorm1d(num_classes).eval()
        self.linear = torch.nn.Linear(64, num_classes)
        self.register_buffer("calls", torch.zeros(()))
    def forward(self, images):
        self.calls += 1
        with torch.no_grad():
            self.norm.running_mean += 1
        self.calls = self.calls + 1
        return self.frozen(self.linear(self.norm(images).flatten(1)))
"""


def test_the_check_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "stateful.py").write_text(STATEFUL)
    model: Any = make("stateful:Counting", roots=[tmp_path])
    assert model.calls == 0 and model.norm.running_mean == 0 and model.norm.num_batches_tracked == 0
    assert model.training and model.norm.training and not model.frozen.training
    assert all(p.grad is None and p.device.type == "cpu" and p.requires_grad for p in model.parameters())


def test_image_size_replaces_the_stored_size() -> None:
    assert make("builtin:mlp", image_size=16, options={"hidden": []})[1].in_features == 256  # type: ignore[index]
