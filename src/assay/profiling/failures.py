"""How a visit can end, and which errors are a result of the arm."""

import torch

_CPU_MEMORY = ("can't allocate memory", "not enough memory")


class Diverged(Exception):
    """Scores or loss that are not finite."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the GPU or the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MEMORY)


def first_line(error: BaseException) -> str:
    """The error's own first line, empty if it says nothing."""
    return (str(error).strip().splitlines() or [""])[0]
