"""One GPU as NVML tells it, by UUID. What the driver does not know is asked once.

Imported by the sampler's process: nothing heavy here, and nvidia-ml-py only where a GPU is asked for.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MIB = 2**20
NVML_FI_DEV_MEMORY_TEMP = 82
_LISTED_PIDS = 8


READ_OFTEN = (
    *(
        "utilization_percent",
        "memory_used_mb",
        "temperature_c",
        "memory_temperature_c",
        "sm_mhz",
        "memory_mhz",
    ),
    *("power_w", "energy_mj", "clock_reasons", "processes"),
)
"""What every sample has of a GPU; other names stand in samples about a second apart."""


class Lost(Exception):
    """The GPU answers no more: it fell off the bus or needs a reset."""


class Gpu:
    """One GPU, or one MIG instance of it: then memory and processes are the instance's, the rest the whole card's.

    Raises: NVMLError where no GPU has this UUID or NVML does not start.
    """

    def __init__(self, uuid: str, job: int, family: int) -> None:
        """uuid: as PyTorch or NVML tells it, with or without its prefix; job: whose telemetry it is.

        family: what descends from it is own. So are the processes that `job` descends from.
        """
        import pynvml

        self._nvml = pynvml
        self._job, self._family = job, family
        self.notes: list[str] = []
        self._own: dict[int, bool] = {}
        pynvml.nvmlInit()
        self.uuid, self._part = self._find(uuid)
        self._card = self._part
        if self.uuid.startswith("MIG-"):
            self._card = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self._part)
        self._memory_before: int | None = None
        self._often = self._calls_often()
        self._seldom = self._calls_seldom()

    def _find(self, uuid: str) -> "tuple[str, Any]":
        if uuid.startswith(("GPU-", "MIG-")):
            return uuid, self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        try:
            return f"GPU-{uuid}", self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except self._nvml.NVMLError_NotFound:
            return f"MIG-{uuid}", self._nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")

    def describe(self) -> "dict[str, Any]":
        """What does not change: uuid, name, driver, total memory in MiB; null where not told."""
        nvml = self._nvml

        def asked(call: "Callable[..., Any]", *arguments: object) -> "Any":
            try:
                return call(*arguments)
            except nvml.NVMLError:
                return None

        memory = asked(nvml.nvmlDeviceGetMemoryInfo, self._part)
        return {
            "uuid": self.uuid,
            "name": asked(nvml.nvmlDeviceGetName, self._card),
            "driver": asked(nvml.nvmlSystemGetDriverVersion),
            "memory_total_mb": None if memory is None else memory.total / MIB,
        }

    def read(self, *, seldom: bool) -> "dict[str, Any]":
        """One sample; with `seldom` also what changes slowly or is slow to ask.

        Raises: Lost.
        """
        found: dict[str, Any] = {"uuid": self.uuid}
        self._read(self._often, found)
        if seldom:
            self._read(self._seldom, found)
        return found

    def _read(self, calls: "dict[str, Callable[[], Any] | None]", found: "dict[str, Any]") -> None:
        nvml = self._nvml
        for name, call in calls.items():
            value = None
            if call is not None:
                try:
                    value = call()
                except (nvml.NVMLError_GpuIsLost, nvml.NVMLError_ResetRequired) as error:
                    raise Lost(str(error)) from None
                except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, _Unknown) as error:
                    calls[name] = None
                    self.notes.append(f"{name}: {error}")
                except nvml.NVMLError as error:  # this once: a later reading may succeed
                    note = f"{name}: {error}, at times"
                    if note not in self.notes:
                        self.notes.append(note)
            if isinstance(value, dict):
                found |= value
            else:
                found[name] = value

    def _calls_often(self) -> "dict[str, Callable[[], Any] | None]":
        nvml, card = self._nvml, self._card
        return {
            "utilization_percent": lambda: nvml.nvmlDeviceGetUtilizationRates(card).gpu,
            "memory_used_mb": lambda: nvml.nvmlDeviceGetMemoryInfo(self._part).used / MIB,
            "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU),
            "memory_temperature_c": self._memory_temperature,
            "sm_mhz": lambda: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM),
            "memory_mhz": lambda: nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_MEM),
            "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(card) / 1e3,
            "energy_mj": lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(card),
            "clock_reasons": self._clock_reasons,
            "processes": self._processes,
        }

    def _calls_seldom(self) -> "dict[str, Callable[[], Any] | None]":
        nvml, card = self._nvml, self._card
        return {
            "power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(card) / 1e3,
            "mig": lambda: bool(nvml.nvmlDeviceGetMigMode(card)[0]),
            "fan_percent": lambda: nvml.nvmlDeviceGetFanSpeed(card),
            "pcie_tx_mb_s": lambda: (
                nvml.nvmlDeviceGetPcieThroughput(card, nvml.NVML_PCIE_UTIL_TX_BYTES) / 1e3
            ),
            "pcie_rx_mb_s": lambda: (
                nvml.nvmlDeviceGetPcieThroughput(card, nvml.NVML_PCIE_UTIL_RX_BYTES) / 1e3
            ),
            "pcie_replays": lambda: nvml.nvmlDeviceGetPcieReplayCounter(card),
            "ecc_corrected": lambda: self._ecc(nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            "ecc_uncorrected": lambda: self._ecc(nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        }

    def _ecc(self, kind: int) -> int:
        count: int = self._nvml.nvmlDeviceGetTotalEccErrors(self._card, kind, self._nvml.NVML_VOLATILE_ECC)
        return count

    def _memory_temperature(self) -> "Any":
        field = self._nvml.nvmlDeviceGetFieldValues(self._card, [NVML_FI_DEV_MEMORY_TEMP])[0]
        if field.nvmlReturn != self._nvml.NVML_SUCCESS:
            raise self._nvml.NVMLError(field.nvmlReturn)
        if field.valueType != self._nvml.NVML_VALUE_TYPE_UNSIGNED_INT:
            raise _Unknown(f"a value of type {field.valueType}")
        return field.value.uiVal

    def _clock_reasons(self) -> "Any":
        """By the name of drivers from 535 on, or the one that it had before."""
        try:
            return self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._card)
        except self._nvml.NVMLError_FunctionNotFound:
            return self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._card)

    def _processes(self) -> "dict[str, Any]":
        """How many processes compute here, how many are this job's, their memory in MiB, and the others' numbers."""
        running = self._nvml.nvmlDeviceGetComputeRunningProcesses_v3(self._part)
        own = [one for one in running if self._is_own(one.pid)]
        others = [one.pid for one in running if not self._own[one.pid]]
        used = [one.usedGpuMemory for one in own]
        known = bool(used) and None not in used
        return {
            "processes": len(running),
            "own_processes": len(own),
            "own_memory_mb": sum(used) / MIB if known else None,
            "other_pids": others[:_LISTED_PIDS],
        }

    def _is_own(self, pid: int) -> bool:
        if pid not in self._own:
            self._own[pid] = descends(pid, self._family) or descends(self._job, pid)
        return self._own[pid]


class _Unknown(Exception):
    """An answer that cannot be read."""


def blank(uuid: str) -> "dict[str, Any]":
    """The sample of a GPU that cannot be read."""
    return {"uuid": uuid, **dict.fromkeys(READ_OFTEN)}


def descends(pid: int, ancestor: int) -> bool:
    """Whether a process is `ancestor`, or one that it started, directly or not."""
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return False
    return False


def visible_uuid() -> str | None:
    """The UUID of the one GPU that this process may use, without asking CUDA; None where that is not sure.

    CUDA counts GPUs by speed unless CUDA_DEVICE_ORDER says otherwise, NVML by their place on the bus: a number is
    sure only where both agree.
    """
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = None if asked is None else [name.strip() for name in asked.split(",") if name.strip()]
    if names and names[0].startswith(("GPU-", "MIG-")):
        return names[0]
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no library, no driver, no permission
        return None
    try:
        count = pynvml.nvmlDeviceGetCount()
        ordered = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        if names is None and (count == 1 or ordered):
            index = 0
        elif names and names[0].isdigit() and (count == 1 or ordered):
            index = int(names[0])
        else:
            return None
        uuid: str = pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))
        return uuid
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
