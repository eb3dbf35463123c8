"""Floating-point operations of one operator, from the shapes that a trace holds, by the formulas of PyTorch's counter.

A multiply-add is 2 operations; what works element by element counts as nothing, as in `assay.models.cost`.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.flop_counter import addmm_flop, baddbmm_flop, bmm_flop, conv_flop_count, mm_flop

Shapes = Sequence[Sequence[int]]


def count_flops(operator: str, shapes: Shapes, concrete: Sequence[str]) -> int | None:
    """Operations of one call; None for an operator that is not known, or shapes that were not recorded.

    operator: as PyTorch names it, e.g. `aten::addmm`.
    shapes: of its arguments in order, empty where one is no tensor; concrete: those that are none, as text.
    """
    formula = FORMULAS.get(operator)
    try:
        return None if formula is None else int(formula(shapes, [_value(text) for text in concrete]))
    except (AssertionError, IndexError, TypeError, ValueError):
        return None


def _value(text: str) -> Any:
    """`[1, 1]`, `False` or `` as Python has them."""
    return json.loads(text.replace("True", "true").replace("False", "false")) if text else None


def _product(formula: Callable[..., int], tensors: int) -> Callable[[Shapes, list[Any]], int]:
    return lambda shapes, _: formula(*shapes[:tensors])


def _convolution(padding: int, stride: int, dilation: int | None) -> Callable[[Shapes, list[Any]], int]:
    """Of a forward convolution whose arguments stand at these places; images and filters come first."""

    def formula(shapes: Shapes, values: list[Any]) -> int:
        images, filters = shapes[0], shapes[1]
        spread = [1] * len(images[2:]) if dilation is None else values[dilation]
        sides = zip(images[2:], filters[2:], values[padding], values[stride], spread, strict=True)
        out = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, p, s, d in sides]
        return conv_flop_count(list(images), list(filters), [images[0], filters[0], *out])

    return formula


def _convolution_backward(shapes: Shapes, values: list[Any]) -> int:
    """grad_output, input, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, mask.

    The gradients of input and weight take what the forward pass takes, each. (PyTorch's own formula counts that of a weight
    in groups as if there were none.)
    """
    return _gradients(shapes, transposed=values[7], asked=values[10])


def _slow_convolution_backward(shapes: Shapes, values: list[Any]) -> int:
    """grad_output, input, weight, kernel_size, stride, padding, mask."""
    return _gradients(shapes, transposed=False, asked=values[6])


def _gradients(shapes: Shapes, *, transposed: bool, asked: Sequence[bool]) -> int:
    gradient, images, filters = (list(shape) for shape in shapes[:3])
    forward: int = conv_flop_count(images, filters, gradient, transposed)
    return forward * sum(bool(one) for one in asked[:2])


FORMULAS: dict[str, Callable[[Shapes, list[Any]], int]] = {
    "aten::mm": _product(mm_flop, 2),
    "aten::addmm": _product(addmm_flop, 3),
    "aten::bmm": _product(bmm_flop, 2),
    "aten::baddbmm": _product(baddbmm_flop, 3),
    "aten::mkldnn_convolution": _convolution(padding=3, stride=4, dilation=5),
    "aten::cudnn_convolution": _convolution(padding=2, stride=3, dilation=4),
    "aten::_conv_depthwise2d": _convolution(stride=4, padding=5, dilation=6),
    "aten::_slow_conv2d_forward": _convolution(stride=4, padding=5, dilation=None),
    "aten::_slow_conv2d_backward": _slow_convolution_backward,
    "aten::convolution_backward": _convolution_backward,
}
"""By the operator that computes, which is the innermost: `aten::conv2d` and the like only call it."""
