"""Models of torchvision and timm, fitted to the data's channels, classes and image size.

Both libraries are imported only when a model of theirs is built.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from assay.models.errors import ModelError, SizeError, described, suggestion
from assay.models.inputs import Inputs
from assay.models.isolation import shapes_only

RGB = 3
"""Channels of the images for which torchvision's models are written."""


def build_torchvision(name: str, options: Mapping[str, Any], inputs: Inputs) -> nn.Module:
    """One of torchvision's classification models, with random weights.

    The first convolution takes as many channels as the images have; auxiliary outputs are off. Models that
    know their image size get it.

    Raises: ModelError naming the model, option or size that does not fit.
    """
    import torchvision.models

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ModelError(
            f"model.source: torchvision {torchvision.__version__} has no classification model "
            f"'{name}'{suggestion(name, known)}"
        )
    fixed = _torchvision_arguments(name, inputs)
    reserved = {"weights", "progress", "num_classes", "image_size", "input_size", "aux_logits", *fixed}
    _refuse(options, reserved - {"init_weights"})

    def make(arguments: Mapping[str, Any]) -> nn.Module:
        with _first_convolution_takes(inputs.channels):
            model: nn.Module = torchvision.models.get_model(
                name, weights=None, num_classes=inputs.classes, **(fixed | dict(arguments))
            )
        return model

    return _made(make, f"torchvision:{name}", options, inputs, reserved)


def _torchvision_arguments(name: str, inputs: Inputs) -> dict[str, Any]:
    """What some of torchvision's models need beyond the number of classes."""
    height, width = inputs.size
    if name in ("inception_v3", "googlenet"):
        if name == "inception_v3" and min(inputs.size) < 75:
            raise SizeError(f"torchvision:{name} needs images of 75×75 or more, these are {inputs}")
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        patch = int(name.rpartition("_")[2])
        if height != width or height % patch:
            raise SizeError(
                f"torchvision:{name} takes square images, side a multiple of {patch}; these are {inputs}"
            )
        return {"image_size": height}
    return {"input_size": inputs.size} if name.startswith("maxvit") else {}


@contextmanager
def _first_convolution_takes(channels: int) -> Iterator[None]:
    """While a model is constructed, make its first convolution one for images of `channels`.

    It is changed when its parent registers it: before the model initialises its weights, so that the model's
    own scheme is applied to the shape that it has.
    """
    done = channels == RGB

    def fit(_module: nn.Module, _name: str, child: nn.Module | None) -> None:
        nonlocal done
        if not done and isinstance(child, nn.Conv2d) and child.in_channels == RGB:
            done = True
            child.in_channels = channels
            shape = (child.out_channels, channels // child.groups, *child.kernel_size)
            child.weight = nn.Parameter(child.weight.new_empty(shape))
            child.reset_parameters()

    handle = nn.modules.module.register_module_module_registration_hook(fit)
    try:
        yield
    finally:
        handle.remove()
    assert done, "the model has no convolution that takes three channels"


def _installer() -> str:
    """The words that install a package into this environment: the set-up puts uv there, and no pip."""
    python = Path(sys.executable)
    uv = python.with_name("uv")
    return f"{uv} pip install --python {python}" if uv.exists() else f"{python} -m pip install"


def build_timm(name: str, options: Mapping[str, Any], inputs: Inputs) -> nn.Module:
    """One of timm's models, with random weights; models that are tied to an image size get the data's.

    Raises: ModelError naming the model, option or size that does not fit, or saying how to install timm.
    """
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise ModelError(
            f"model.source: 'timm:{name}' needs the package timm, which is not installed; "
            f"install it with `{_installer()} timm`"
        ) from None
    if not timm.is_model(name):
        near = suggestion(name, timm.list_models())
        raise ModelError(f"model.source: timm {timm.__version__} has no model '{name}'{near}")
    reserved = {"pretrained", "pretrained_cfg", "checkpoint_path", "num_classes", "in_chans", "img_size"}
    _refuse(options, reserved)
    configuration = timm.get_pretrained_cfg(name, allow_unregistered=True)
    sized = configuration is not None and configuration.fixed_input_size

    def make(arguments: Mapping[str, Any]) -> nn.Module:
        size = {"img_size": inputs.size} if sized else {}
        model: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=inputs.classes, in_chans=inputs.channels, **size, **arguments
        )
        return model

    return _made(make, f"timm:{name}", options, inputs, reserved)


def _refuse(options: Mapping[str, Any], reserved: Collection[str]) -> None:
    for option in options:
        if option in reserved:
            reason = (
                "models start from random weights"
                if option in ("weights", "pretrained", "pretrained_cfg", "checkpoint_path")
                else "it follows from the data"
            )
            raise ModelError(f"model.options.{option}: remove it; {reason}")


def _made(
    make: Callable[[Mapping[str, Any]], nn.Module],
    source: str,
    options: Mapping[str, Any],
    inputs: Inputs,
    reserved: Collection[str],
) -> nn.Module:
    """Call the library's constructor, and say which option it does not take."""
    try:
        return make(options)
    except Exception as error:
        for option in options:
            if f"'{option}'" in str(error):
                near = suggestion(option, _accepted(make) - set(reserved) - {option})
                raise ModelError(f"model.options.{option}: {source} refuses it: {error}{near}") from error
        written = f" with model.options {dict(options)}" if options else ""
        raise SizeError(
            f"{source}{written} cannot be built for images of {inputs}: {described(error)}"
        ) from error


def _accepted(make: Callable[[Mapping[str, Any]], nn.Module]) -> set[str]:
    """The parameters of the model's class; empty if it cannot be built without options either."""
    try:
        with shapes_only():
            constructor = type(make({})).__init__
    except Exception:
        return set()
    return set(inspect.signature(constructor).parameters) - {"self"}
