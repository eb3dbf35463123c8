"""How the arithmetic is done: device, precision, determinism, memory format, compilation, CUDA graphs."""

import ctypes
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import nn

from assay.config.arm import Execution
from assay.environment import select_device
from assay.isolation.places import current as current_place
from assay.training.graphs import Recorded

CONTEXT_MB = 600
"""MiB that a process takes of a GPU beside what PyTorch allocates there: CUDA's context and its libraries' code."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_MMAP_THRESHOLD = 32 * 2**20
"""Bytes; the highest that every glibc takes."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def apply(settings: Execution) -> torch.device:
    """Set the process up as the arm asks; returns its device. To be called before anything is computed.

    Raises: ValueError for a device that is not there, or that cannot do what the arm asks.
    """
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = select_device(settings.device)
    _refuse(settings, device)
    _keep_to_share(device)
    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(settings.deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = settings.deterministic
    torch.backends.cudnn.benchmark = not settings.deterministic
    torch.backends.cuda.matmul.allow_tf32 = settings.tf32
    torch.backends.cudnn.allow_tf32 = settings.tf32
    return device


def keep_memory(device: torch.device) -> None:
    """Where the CPU computes, memory of tensors that a step frees stays with the process for the next one.

    By default glibc returns what is free at the end of its heap once it is twice the largest block freed so far, and
    the kernel clears every page again at its next use: up to a tenth of a step's time, depending on how blocks
    happen to lie (mallopt(3)). Blocks above the threshold are returned still. The profile leaves glibc as it is: what
    its processes hold is a figure that it takes.
    """
    libc = ctypes.CDLL(None)
    if device.type == "cpu" and hasattr(libc, "mallopt"):  # glibc's own
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def _refuse(settings: Execution, device: torch.device) -> None:
    """Raises: ValueError naming the setting that this device cannot honour."""
    if device.type == "cpu":
        for key, what in {"cuda_graphs": "CUDA graphs are", "tf32": "TF32 is"}.items():
            if getattr(settings, key):
                raise ValueError(
                    f"execution.{key}: {what} for GPUs, and this runs on the CPU; "
                    f"write `{key}: false`, or run where a GPU is"
                )
    elif settings.tf32 and torch.cuda.get_device_capability(device) < (8, 0):
        raise ValueError(
            f"execution.tf32: {torch.cuda.get_device_name(device)} has no TF32 (compute capability 8.0 and above do); "
            "write `tf32: false`"
        )


def _keep_to_share(device: torch.device) -> None:
    """Of a shared GPU's memory; what is above it is refused to this process, which so runs out of memory alone."""
    shared = current_place().shared
    if device.type == "cuda" and shared is not None and shared.runs is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(share_of_memory(total / 2**20, shared.runs), device)


def share_of_memory(total_mb: float, runs: int) -> float:
    """The part of a GPU's memory that one of so many runs may allocate; half of its part where contexts take more."""
    part = total_mb / runs
    return max(part - CONTEXT_MB, part / 2) / total_mb


def autocast(settings: Execution, device: torch.device) -> AbstractContextManager[object]:
    """Automatic mixed precision for bf16 and fp16; nothing for fp32."""
    if settings.precision == "fp32":
        return nullcontext()
    # What is cached outside a recording would not be computed anew when it is replayed.
    return torch.autocast(
        device.type, dtype=DTYPES[settings.precision], cache_enabled=not settings.cuda_graphs
    )


def place(model: nn.Module, settings: Execution, device: torch.device) -> nn.Module:
    """The model on its device, in its memory format."""
    layout = torch.channels_last if settings.channels_last else torch.preserve_format
    return model.to(device=device, memory_format=layout)  # type: ignore[call-overload, no-any-return]


def compiled(model: nn.Module, settings: Execution, device: torch.device) -> nn.Module:
    """The model as it is called: compiled or recorded where the arm asks. It shares its weights with `model`.

    Raises: ValueError where PyTorch would find no compiler.
    """
    if not settings.compile:
        return Recorded(model) if settings.cuda_graphs else model
    if device.type == "cpu" and not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise ValueError(
            "execution.compile: torch.compile needs a C++ compiler on CPUs and found none; "
            "install g++ or write `compile: false`"
        )
    return cast(nn.Module, torch.compile(model, mode="reduce-overhead" if settings.cuda_graphs else None))
