"""What a model costs by construction: parameters and floating-point operations."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from assay.models.isolation import dry_device, dry_forward

_UNCOUNTED = frozenset(
    (
        *(
            "mv",
            "addmv",
            "dot",
            "vdot",
            "addbmm",
            "addr",
            "_addmm_activation",
            "_trilinear",
            "_cdist_forward",
        ),
        *("mkldnn_rnn_layer", "_cudnn_rnn", "_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
        *("_fft_r2c", "_fft_c2r", "_fft_c2c", "_scaled_dot_product_flash_attention_for_cpu"),
    )
)
"""PyTorch's operations that multiply and add but that its counter does not know."""


def count_parameters(model: nn.Module) -> int:
    """Number of values in the model's parameters: tied ones count once, frozen ones too, buffers do not."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_bytes(model: nn.Module) -> int:
    """Bytes of the model's state as it would be saved: parameters and persistent buffers, tied ones once."""
    state = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def count_flops(model: nn.Module, input_shape: Sequence[int]) -> int | None:
    """Floating-point operations of one forward pass of one image, in evaluation mode.

    Convention: a multiply-add is 2 operations. Matrix products and convolutions count, attention among
    them; what works element by element (activations, norms, pooling, bias) does not. The number is a property
    of the architecture: it does not depend on device, precision or kernels.

    Args:
        input_shape: (channels, height, width); of a longer shape the last three.

    Returns: the count, or None where it cannot be known: the model uses an operation without a known count,
        or cannot run on its own device.
    """
    model = getattr(model, "_orig_mod", model)
    shape = (1, *tuple(input_shape)[-3:])
    operations = _Operations()
    counter = FlopCounterMode(display=False)
    try:
        with _countable(), operations, counter:
            dry_forward(model, shape, device=dry_device(model, shape))
    except Exception:
        return None
    if operations.uncounted:
        return None
    return int(counter.get_total_flops())


class _Operations(TorchDispatchMode):
    """Remembers operations for which no count is known."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uncounted: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace not in ("aten", "prim", "prims") or func._overloadpacket.__name__ in _UNCOUNTED:
            self.uncounted.add(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def _countable() -> Iterator[None]:
    """Without the fused kernels that hide matrix products from the counter."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings(action="ignore", category=UserWarning))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
