"""Memory of this process, in MiB: what it came to, and what it may come to."""

import contextlib
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import torch

_STATUS, _MACHINE = Path("/proc/self/status"), Path("/proc/meminfo")
_MIB = 2**20


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
        _forget_peak()
        self._before = _resident("VmRSS")

    def discount(self, mib: float | None) -> None:
        """From here on, this much is not the model's."""
        if self._device.type != "cuda" and self._before is not None and mib is not None:
            self._before += mib

    def read(self) -> float | None:
        """MiB; None where it cannot be read."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / _MIB
        peak = _resident("VmHWM")
        return None if peak is None or self._before is None else max(0.0, peak - self._before)


class WholePeak:
    """Most memory that this process held since `begin`, all that it held before included.

    On a GPU: what PyTorch's allocator took from the device, whether it gave it out or keeps it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def begin(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _forget_peak()

    def read(self) -> float | None:
        """MiB; None where it cannot be read."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_reserved(self._device) / _MIB
        return _resident("VmHWM")


def room_mb(device: torch.device, bound_mb: float | None) -> float | None:
    """MiB that this process may hold, in the sense of `WholePeak`; None where nothing tells.

    bound_mb: that of the job, which holds for memory of the machine and not of a GPU.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return (free + torch.cuda.memory_reserved(device)) / _MIB
    free_mb, held = _field(_MACHINE, "MemAvailable"), _resident("VmRSS")
    there = None if free_mb is None or held is None else free_mb + held
    return min((one for one in (there, bound_mb) if one is not None), default=None)


@contextlib.contextmanager
def at_most(device: torch.device, bound_mb: float) -> Iterator[None]:
    """Refuse this process memory beyond the bound (MiB, in the sense of `WholePeak`): what asks for it fails.

    On a CPU the kernel refuses it (RLIMIT_DATA; Linux >= 4.7 counts private mappings), before it was touched; on a GPU
    PyTorch's allocator does.
    """
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, bound_mb * _MIB / total), device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    mapped, held = _resident("VmData"), _resident("VmRSS")
    if mapped is not None and held is not None:
        limit = int((mapped + max(0.0, bound_mb - held)) * _MIB)
        known = [one for one in (limit, soft, hard) if one != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(known), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def resident() -> float | None:
    """The resident set now, in MiB."""
    return _resident("VmRSS")


def _resident(field: str) -> float | None:
    return _field(_STATUS, field)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present


def _field(path: Path, field: str) -> float | None:
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB$", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) / 1024
