"""The state of the machine around a measurement. What cannot be read is null."""

import json
import os
from pathlib import Path
from typing import Any

from assay.records import now

_FREQUENCY = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
_THERMAL = Path("/sys/class/thermal")
_CGROUP = Path("/sys/fs/cgroup/cpu.stat")


class Telemetry:
    """Appends one JSON line per reading to a file.

    gpu_uuid: the GPU that is read through NVML, as PyTorch tells it without the prefix `GPU-`; None: none.
    """

    def __init__(self, path: Path, *, visit: int, gpu_uuid: str | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._visit = visit
        self._gpu = None if gpu_uuid is None else _Gpu(gpu_uuid)

    def note(self, event: str, measurement: str) -> None:
        """event: `before` or `after`; measurement: what is measured."""
        line = {
            "timestamp": now(),
            "visit": self._visit,
            "pid": os.getpid(),
            "event": event,
            "measurement": measurement,
            **machine(),
            "gpu": None if self._gpu is None else self._gpu.read(),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def machine() -> dict[str, Any]:
    """Load average over a minute, CPU clock in MHz, temperature in °C, and what others took from this machine.

    `steal_s`: time that the hypervisor gave to other guests, summed over CPUs since boot. `throttled_s`: time for
    which this control group was held back. Both count up: compare two readings.
    """
    return {
        "load": _load(),
        "cpu_mhz": _number(_FREQUENCY, 1000),
        "temperature_c": _temperature(),
        "steal_s": _steal(),
        "throttled_s": _throttled(),
    }


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _number(path: Path, divisor: float) -> float | None:
    try:
        return int(_text(path) or "") / divisor
    except ValueError:
        return None


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _temperature() -> float | None:
    """The hottest of the thermal zones."""
    zones = (_number(path, 1000) for path in _THERMAL.glob("thermal_zone*/temp"))
    return max((value for value in zones if value is not None), default=None)


def _steal() -> float | None:
    fields = (_text(Path("/proc/stat")) or "").partition("\n")[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK") if len(fields) > 8 else None


def _throttled() -> float | None:
    for line in (_text(_CGROUP) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == "throttled_usec":
            return int(value) / 1e6
    return None


class _Gpu:
    """One GPU through NVML."""

    def __init__(self, uuid: str) -> None:
        self._handle: Any = None
        try:
            import pynvml

            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except Exception:  # no library, no driver, no permission: all mean that nothing can be read
            return
        self._nvml = pynvml

    def read(self) -> dict[str, Any] | None:
        if self._handle is None:
            return None
        nvml, handle = self._nvml, self._handle
        return {
            "temperature_c": self._try(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            "sm_mhz": self._try(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            "memory_mhz": self._try(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            "power_mw": self._try(nvml.nvmlDeviceGetPowerUsage, handle),
            "clock_reasons": self._try(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle),
            "processes": self._processes(),
        }

    def _processes(self) -> int | None:
        found = self._try(self._nvml.nvmlDeviceGetComputeRunningProcesses, self._handle)
        return None if found is None else len(found)

    def _try(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._nvml.NVMLError:
            return None
