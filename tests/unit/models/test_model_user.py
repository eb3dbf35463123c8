"""Models of the user's own."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.config.arm import Model
from assay.models.build import build
from assay.models.errors import ModelError

torch.set_num_threads(1)

Maker = Callable[..., torch.nn.Module]

FLAT = """
from torch import nn
def net(num_classes, in_channels, *, image_size, hidden=4):
    features = in_channels * image_size**2
    return nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.Linear(hidden, num_classes))
"""


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """Write a module under a name that no other test uses, and build from it."""
    name = f"own_{abs(hash(request.node.name))}"
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])

    def run(
        text: str, function: str = "net", *, shape: Any = (8, 8, 1), classes: int = 3, **settings: Any
    ) -> Any:
        (tmp_path / f"{name}.py").write_text(text)
        model = Model(source=f"{name}:{function}", **settings)
        return build(model, image_shape=shape, classes=classes, seed=0, module_roots=[tmp_path])

    return run


def test_what_the_signature_names_is_passed(make: Maker) -> None:
    model: Any = make(FLAT, shape=(8, 8, 2), image_size=4, options={"hidden": 6})
    assert (model[1].in_features, model[1].out_features, model[2].out_features) == (32, 6, 3)


def test_what_it_does_not_name_is_not_passed(make: Maker) -> None:
    text = "import torch\ndef net(**options):\n    assert options == {'a': 1}, options\n"
    text += "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))\n"
    make(text, options={"a": 1})


def test_a_class_will_do_and_images_need_not_be_square(make: Maker) -> None:
    text = """
from torch import nn
class Net(nn.Module):
    def __init__(self, image_size, num_classes):
        super().__init__()
        height, width = image_size
        self.linear = nn.Linear(height * width, num_classes)
    def forward(self, images):
        return self.linear(images.flatten(1))
"""
    make(text, "Net", shape=(4, 6, 1))


def test_lazy_layers_get_their_shapes_from_the_data(make: Maker) -> None:
    model = make("from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))")
    assert sum(p.numel() for p in model.parameters()) == 64 * 3 + 3


def test_local_imports_come_before_installed_ones_but_after_pythons_own(make: Maker, tmp_path: Path) -> None:
    (tmp_path / "layers_of_mine.py").write_text("import torch\nwide = lambda n: torch.nn.Linear(64, n)\n")
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('shadowed')\n")
    text = "import colorsys, torch\ndef net(num_classes):\n    from layers_of_mine import wide\n"
    make(text + "    return torch.nn.Sequential(torch.nn.Flatten(), wide(num_classes))\n")


def test_a_folder_hides_no_installed_package(make: Maker, tmp_path: Path) -> None:
    (tmp_path / "iniconfig").mkdir()
    sys.modules.pop("iniconfig", None)
    make("import iniconfig\nassert iniconfig.IniConfig\n" + FLAT)


def test_another_module_of_the_same_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "pytest.py").write_text(FLAT)
    with pytest.raises(ModelError, match=r"another module 'pytest' is loaded, from .*; rename your file"):
        build(Model(source="pytest:net"), image_shape=(8, 8, 1), classes=3, seed=0, module_roots=[tmp_path])


@pytest.mark.parametrize(
    ("text", "function", "message"),
    [
        (FLAT, "nets", r"own_\d+\.py: no function 'nets'; did you mean 'net'\?"),
        ("net = 3", "net", r"'net' is no function but int: 3"),
        ("def net(:", "net", r"cannot be imported: SyntaxError: .*own_\d+\.py:1"),
        ("import no_such_thing", "net", r"cannot be imported: ModuleNotFoundError: .*no_such_thing.*py:1"),
        ("def net(): return 3", "net", r"own_\d+:net returned int; it must return a torch\.nn\.Module"),
        ("def net():\n    raise KeyError('width')", "net", r"own_\d+:net: KeyError: 'width' \(.*\.py:2\)"),
        ("def net(depth): ...", "net", r"model\.options\.depth: own_\d+:net needs it; write model\.options:"),
    ],
)
def test_errors_name_the_module_and_the_line(make: Maker, text: str, function: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make(text, function)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hiden": 3}, r"model\.options\.hiden: unknown to .*; it takes hidden; did you mean 'hidden'\?"),
        ({"num_classes": 3}, r"model\.options\.num_classes: remove it; .* gets it from the data"),
    ],
)
def test_options_are_checked(make: Maker, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make(FLAT, options=options)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("images", r"returns \[2, 1, 8, 8\] for 2 images, not \[2, 3\]: one score per image and class$"),
        (
            "linear(images.flatten(1))[:, :2]",
            r"returns \[2, 2\] .* take the number of classes from .*num_classes",
        ),
        ("(linear(images.flatten(1)), None)", r"returns tuple, not a tensor \[2, 3\]"),
        (
            "linear(images.flatten(1)).argmax(1, True).expand(2, 3)",
            r"returns torch\.int64, not floating-point",
        ),
        ("linear(images)", r"cannot take images of 8×8×1: RuntimeError: mat1 and mat2"),
        ("undefined", r"cannot take images of 8×8×1: NameError: .*undefined.* \(.*\.py:6\)"),
    ],
)
def test_wrong_outputs_are_told(make: Maker, body: str, message: str) -> None:
    text = "import torch\nlinear = torch.nn.Linear(64, 3)\n"
    text += "class net(torch.nn.Module):\n    linear = linear\n"
    text += f"    def forward(self, images):\n        return {body}\n"
    with pytest.raises(ModelError, match=message):
        make(text)


def test_a_model_without_parameters_is_refused(make: Maker) -> None:
    text = "import torch\nclass net(torch.nn.Module):\n    def forward(self, x): return x.flatten(1)[:, :3]\n"
    with pytest.raises(ModelError, match="has no parameters to train"):
        make(text)


def test_a_size_that_works_is_suggested(make: Maker) -> None:
    text = "from torch import nn\ndef net(num_classes):\n    stem = nn.Conv2d(1, num_classes, 33)\n"
    text += "    return nn.Sequential(stem, nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    with pytest.raises(ModelError, match=r"cannot take images of 8×8×1.*; write model\.image_size: 48$"):
        make(text)
