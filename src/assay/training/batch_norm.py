"""Batch norm over the global batch, so that a model is the same function for any number of devices."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm as _OnGpu
from torch.overrides import TorchFunctionMode


def over_all_ranks(model: nn.Module) -> int:
    """Let every batch norm of a model take its statistics from all ranks while it trains; returns how many there are.

    PyTorch's own conversion puts a plain SyncBatchNorm in place of whatever was derived from BatchNorm, which loses
    what that added (timm's has its activation inside), and it has no implementation for CPUs. Here a module
    stays what it is; only the arithmetic of `batch_norm` within it is exchanged. Names in the state stay too.
    """
    found = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
    ]
    for module in found:
        module.__class__ = _shared(type(module))  # type: ignore[assignment]
    return len(found)


_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _shared(original: type[nn.Module]) -> type[nn.Module]:
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self: nn.Module, *inputs: Any) -> Any:
        if not self.training:
            return original.forward(self, *inputs)
        with _Shared():
            return original.forward(self, *inputs)

    return _classes.setdefault(
        original, type(f"{original.__name__}OverAllRanks", (original,), {"forward": forward})
    )


class _Shared(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.batch_norm:
            return batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def batch_norm(
    images: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` of the global batch. images: [B, C, ...], a share as large as the others'."""
    if not training:
        return nn.functional.batch_norm(images, mean, variance, weight, bias, False, momentum, eps)
    if images.device.type == "cuda":
        group = dist.group.WORLD
        return _OnGpu.apply(  # type: ignore[no-untyped-call, no-any-return]
            images, weight, bias, mean, variance, eps, momentum, group, dist.get_world_size()
        )
    return _on_cpu(images, mean, variance, weight, bias, momentum, eps)


def _on_cpu(
    images: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """Ioffe and Szegedy 2015; the variance from the deviations, in float32, for the sake of precision."""
    values, axes = images.float(), [0, *range(2, images.ndim)]
    shape = [1, -1] + [1] * (images.ndim - 2)
    count = values.numel() // values.shape[1] * dist.get_world_size()
    centre = _total(values.sum(axes)) / count
    deviation = values - centre.view(shape)
    spread = _total(deviation.square().sum(axes)) / count
    result = deviation * torch.rsqrt(spread + eps).view(shape)
    if weight is not None:
        result = result * weight.view(shape)
    if bias is not None:
        result = result + bias.view(shape)
    with torch.no_grad():
        if mean is not None:
            mean.lerp_(centre, momentum)
        if variance is not None:
            variance.lerp_(spread * (count / (count - 1)), momentum)
    return result.to(images.dtype)


class _Total(torch.autograd.Function):
    """The sum over the ranks. A rank's summand enters every rank's result, so gradients are summed over them too."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        return _summed(value)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(value: Tensor) -> Tensor:
    total = value.contiguous().clone()
    dist.all_reduce(total)
    return total


def _total(value: Tensor) -> Tensor:
    return _Total.apply(value)  # type: ignore[no-untyped-call, no-any-return]
