"""From the experiment file's `model` section to a network that fits the data."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from assay.config.arm import Model
from assay.data.streams import stream_int
from assay.models.errors import ModelError, SizeError, described
from assay.models.inputs import Inputs
from assay.models.isolation import dry_device, dry_forward, evaluating, seeded, shapes_only

Make = Callable[[Inputs], nn.Module]

_SIDES = (16, 32, 48, 64, 75, 80, 96, 112, 128, 160, 192, 224, 256, 299, 320, 384, 448, 512)
"""Sides in pixels among which one is sought for a model that cannot take the data's."""


def build(
    settings: Model,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    seed: int,
    module_roots: Sequence[Path] = (),
) -> nn.Module:
    """The model on the CPU in training mode, checked to give one score per class.

    Its weights depend on the seed alone (stream `initialisation`), not on what was drawn before; the global
    random generators are as they were.

    Args:
        image_shape: (height, width, channels) of stored images; `settings.image_size` replaces the size.
        module_roots: folders in which `module:function` is looked up.

    Raises: ModelError (a ValueError) that names the setting and what to write instead.
    """
    height, width, channels = image_shape
    side = settings.image_size
    inputs = Inputs(channels, (side, side) if side else (height, width), classes)
    make = _maker(settings, module_roots)
    with seeded(stream_int(seed, "initialisation")):
        try:
            model = make(inputs)
            output = _output(model, inputs, settings.source)
        except SizeError as error:
            raise ModelError(f"{error}{_remedy(make, inputs)}") from error.__cause__
    _check(model, output, inputs, settings.source)
    return model


def _maker(settings: Model, module_roots: Sequence[Path]) -> Make:
    library, _, name = settings.source.partition(":")
    options = settings.options
    if library == "builtin":
        from assay.models.builtin import build_builtin

        return lambda inputs: build_builtin(name, options, inputs)
    if library in ("torchvision", "timm"):
        from assay.models.external import build_timm, build_torchvision

        construct = build_torchvision if library == "torchvision" else build_timm
        return lambda inputs: construct(name, options, inputs)
    from assay.models.user import call, load_function

    function = load_function(settings.source, module_roots)
    return lambda inputs: call(function, settings.source, options, inputs)


def _output(model: nn.Module, inputs: Inputs, source: str) -> object:
    """What the model returns for two images; lazy layers take their shapes from them."""
    shape = (2, *inputs.shape)
    try:
        if any(is_lazy(tensor) for tensor in [*model.parameters(), *model.buffers()]):
            with evaluating(model):
                model(torch.zeros(shape))
        try:
            return dry_forward(model, shape, device=(device := dry_device(model, shape)))
        except Exception:
            if device.type != "meta":
                raise
            return dry_forward(model, shape, device="cpu")
    except Exception as error:
        raise SizeError(f"{source} cannot take images of {inputs}: {described(error)}") from error


def _check(model: nn.Module, output: object, inputs: Inputs, source: str) -> None:
    expected = f"[2, {inputs.classes}]: one score per image and class"
    if not isinstance(output, Tensor):
        raise ModelError(f"{source} returns {type(output).__name__}, not a tensor {expected}")
    if list(output.shape) != [2, inputs.classes]:
        hint = "; take the number of classes from the parameter num_classes" if output.ndim == 2 else ""
        raise ModelError(f"{source} returns {list(output.shape)} for 2 images, not {expected}{hint}")
    if not output.is_floating_point():
        raise ModelError(f"{source} returns {output.dtype}, not floating-point scores (logits)")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ModelError(f"{source} has no parameters to train")


def _remedy(make: Make, inputs: Inputs) -> str:
    """The image size to write instead: the next larger one that works, or the next smaller one."""
    largest = max(inputs.size)
    larger = [side for side in _SIDES if side >= largest]
    for side in larger + sorted(set(_SIDES) - set(larger), reverse=True):
        other = inputs.with_side(side)
        try:
            with shapes_only():
                model = make(other)
            output = dry_forward(model, (2, *other.shape), device="meta")
            if isinstance(output, Tensor) and list(output.shape) == [2, inputs.classes]:
                return f"; write model.image_size: {side}"
        except Exception:
            continue
    return ""
