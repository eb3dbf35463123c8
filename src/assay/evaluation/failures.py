"""Which errors are a result of the arm and not of the machine's workings."""

import torch

_CPU_MEMORY = ("can't allocate memory", "not enough memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the GPU or the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MEMORY)


def first_line(error: BaseException) -> str:
    """The error in one line: its own first one, or its name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
