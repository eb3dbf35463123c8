"""How a visit can end, and which errors are a result of the arm."""

import torch

_CPU_MEMORY = ("can't allocate memory", "not enough memory")


class Diverged(Exception):
    """Scores or loss that are not finite."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the GPU or the CPU, here or where this error came from."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MEMORY):
        return True
    return error.__cause__ is not None and out_of_memory(error.__cause__)


def first_line(error: BaseException) -> str:
    """The error's own first line, empty if it says nothing."""
    return (str(error).strip().splitlines() or [""])[0]
