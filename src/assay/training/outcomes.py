"""How an arm can fail: which errors are its result, and not a fault of the machine."""

import torch

_CPU_MEMORY = ("can't allocate memory", "not enough memory")


class Diverged(Exception):
    """A loss or scores that are not finite."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the GPU or the CPU, here or where this error came from."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MEMORY):
        return True
    return error.__cause__ is not None and out_of_memory(error.__cause__)


def first_line(error: BaseException) -> str:
    """The error in one line: its own first one, or its name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
