"""Memory of this process, in MiB."""

import contextlib
import re
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Most memory held at one time since construction, beyond what was held then.

    On a GPU: what PyTorch's allocator gave out, at most. On a CPU: peak resident set minus the resident set
    at construction. Modules that are imported in between must not count: see `discount`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present
        self._before = _resident("VmRSS")

    def discount(self, mib: float | None) -> None:
        """From here on, this much is not the model's."""
        if self._device.type != "cuda" and self._before is not None and mib is not None:
            self._before += mib

    def read(self) -> float | None:
        """MiB; None where it cannot be read."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20
        peak = _resident("VmHWM")
        return None if peak is None or self._before is None else max(0.0, peak - self._before)


def resident() -> float | None:
    """The resident set now, in MiB."""
    return _resident("VmRSS")


def _resident(field: str) -> float | None:
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) / 1024
