"""torchvision's and timm's models, adapted to the data or refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models  # type: ignore[import-untyped]

from assay.config.arm import Model
from assay.models.build import build
from assay.models.errors import ModelError
from assay.models.external import build_torchvision
from assay.models.inputs import Inputs
from assay.models.isolation import dry_forward, shapes_only

torch.set_num_threads(1)

ALL = torchvision.models.list_models(module=torchvision.models)
FAMILIES = {
    "alexnet": 64,
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "googlenet": 32,
    "inception_v3": 75,
    "maxvit_t": 224,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "resnet18": 8,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_0": 32,
    "swin_t": 32,
    "vgg11": 32,
    "vit_b_32": 32,
}
"""One model per file of torchvision's, with a size that it takes."""


def make(source: str, *, shape: tuple[int, int, int] = (8, 8, 1), **settings: Any) -> torch.nn.Module:
    return build(Model(source=source, **settings), image_shape=shape, classes=7, seed=0)


def shape_of(name: str, inputs: Inputs) -> list[int]:
    with shapes_only():
        model = build_torchvision(name, {}, inputs)
    output = dry_forward(model, (2, *inputs.shape), device="meta")
    assert isinstance(output, torch.Tensor)
    return list(output.shape)


def test_every_family_is_covered() -> None:
    def files(names: Any) -> set[str]:
        return {torchvision.models.get_model_builder(name).__module__ for name in names}

    assert files(FAMILIES) == files(ALL)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_and_classes_are_adapted(name: str, channels: int) -> None:
    side = FAMILIES[name]
    assert shape_of(name, Inputs(channels, (side, side), 7)) == [2, 7]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_model_of_torchvision(name: str) -> None:
    assert shape_of(name, Inputs(4, (224, 224), 5)) == [2, 5]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_models_train_on_grey_images(name: str) -> None:
    model = make(f"torchvision:{name}", shape=(32, 32, 1))
    model(torch.randn(2, 1, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_auxiliary_outputs_are_off_in_training() -> None:
    model = make("torchvision:inception_v3", image_size=75)
    assert isinstance(model(torch.randn(2, 1, 75, 75)), torch.Tensor)


@pytest.mark.parametrize(
    ("name", "stem", "deviation"),
    [
        ("resnet18", "conv1", (2 / (64 * 7 * 7)) ** 0.5),
        ("convnext_tiny", "features.0.0", 0.02),
    ],
)
def test_an_adapted_stem_is_initialised_as_the_model_does(name: str, stem: str, deviation: float) -> None:
    model = make(f"torchvision:{name}", shape=(32, 32, 5))
    convolution = model.get_submodule(stem)
    assert isinstance(convolution, torch.nn.Conv2d) and convolution.weight.shape[1] == 5
    assert convolution.weight.std().item() == pytest.approx(deviation, rel=0.05)


def test_three_channels_give_torchvisions_own_weights() -> None:
    from assay.data.streams import stream_int

    ours = make("torchvision:squeezenet1_1", shape=(32, 32, 3))
    torch.manual_seed(stream_int(0, "initialisation"))
    theirs = torchvision.models.squeezenet1_1(num_classes=7)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvision:vgg11", r"cannot take images of 8×8×1: .*; write model\.image_size: 32$"),
        ("torchvision:inception_v3", r"75×75 or more.*; write model\.image_size: 75$"),
        ("torchvision:vit_b_16", r"multiple of 16; these are 8×8×1; write model\.image_size: 16$"),
        ("torchvision:maxvit_t", r"cannot be built for images of 8×8×1: .*; write model\.image_size: 224$"),
    ],
)
def test_images_too_small_are_refused_with_the_size_to_write(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        make(source)
    size = int(str(caught.value).rpartition(" ")[2])
    inputs = Inputs(1, (size, size), 7)
    assert shape_of(source.partition(":")[2], inputs) == [2, 7]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet-18", {}, r"model\.source: torchvision .* 'resnet-18'; did you mean 'resnet18'\?"),
        ("fcn_resnet50", {}, r"no classification model 'fcn_resnet50'"),
        ("vgg11", {"droput": 0.1}, r"model\.options\.droput: .*did you mean 'dropout'\?"),
        ("resnet18", {"block": 1}, r"model\.options\.block: .*multiple values"),
        ("resnet18", {"groups": 7}, r"model\.options \{'groups': 7\} cannot be built"),
        ("resnet18", {"num_classes": 3}, r"model\.options\.num_classes: remove it; it follows from the data"),
        ("resnet18", {"weights": "DEFAULT"}, r"model\.options\.weights: remove it; models start from random"),
        ("googlenet", {"aux_logits": True}, r"model\.options\.aux_logits: remove it"),
    ],
)
def test_names_and_options_are_checked(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make(f"torchvision:{name}", shape=(32, 32, 3), options=options)


def test_images_that_are_not_square() -> None:
    assert make("torchvision:resnet18", shape=(16, 24, 3))(torch.zeros(2, 3, 16, 24)).shape == (2, 7)
    with pytest.raises(ModelError, match=r"square images.* 32×64×3; write model\.image_size: 64"):
        make("torchvision:vit_b_32", shape=(32, 64, 3))


def test_torchvision_is_imported_only_for_its_models() -> None:
    program = (
        "import sys; from assay.config.arm import Model; from assay.models.build import build\n"
        "build(Model(source='builtin:cnn'), image_shape=(8, 8, 1), classes=2, seed=0, module_roots=[])\n"
        "assert not {'torchvision', 'timm', 'torch._dynamo'} & set(sys.modules)"
    )
    source = Path(sys.modules["assay"].__path__[0]).parent
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(source)})


def test_without_timm_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"needs the package timm.* pip install .*timm`"):
        make("timm:resnet18")


@pytest.mark.parametrize(("name", "side"), [("resnet10t", 32), ("test_vit", 16), ("mixer_s32_224", 32)])
def test_timm_models_are_adapted(name: str, side: int) -> None:
    pytest.importorskip("timm")
    model = make(f"timm:{name}", image_size=side)
    model(torch.randn(2, 1, side, side)).sum().backward()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rsnet18", {}, r"model\.source: timm .* no model 'rsnet18'; did you mean 'resnet18'\?"),
        ("vit_tiny_patch16_224", {}, r"cannot take images of 8×8×1: .*; write model\.image_size: 16"),
        ("resnet10t", {"stem_widht": 3}, r"model\.options\.stem_widht: .*did you mean 'stem_width'\?"),
        ("resnet10t", {"pretrained": True}, r"model\.options\.pretrained: remove it"),
    ],
)
def test_timm_names_sizes_and_options_are_checked(name: str, options: dict[str, Any], message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ModelError, match=message):
        make(f"timm:{name}", options=options)
