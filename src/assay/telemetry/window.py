"""Reading `telemetry.jsonl`: one pass over its lines, in memory that does not grow with what is not asked for."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import floor, log10
from pathlib import Path
from typing import Any

from assay.records import Energy, GpuTelemetry, Range, Telemetry
from assay.telemetry import energy
from assay.telemetry.reasons import names

CPU_UNITS = {"load": "1", "cpu_mhz": "MHz", "temperature_c": "°C"}
CPU_COUNTERS = {"steal_s": "s", "throttled_s": "s", "busy_s": "s", "waited_s": "s"}
"""They count up: their range is that of the growth since the first sample."""
GPU_UNITS = {
    "utilization_percent": "%",
    "memory_used_mb": "MiB",
    "own_memory_mb": "MiB",
    "temperature_c": "°C",
    "memory_temperature_c": "°C",
    "sm_mhz": "MHz",
    "memory_mhz": "MHz",
    "power_w": "W",
    "power_limit_w": "W",
    "fan_percent": "%",
    "pcie_tx_mb_s": "MB/s",
    "pcie_rx_mb_s": "MB/s",
    "pcie_replays": "count",
    "ecc_corrected": "count",
    "ecc_uncorrected": "count",
}


def lines(path: Path, identity: Mapping[str, str | int] | None = None) -> Iterator[dict[str, Any]]:
    """The lines that carry all of `identity`, in order; a half line at the end is left out, a missing file is empty."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                return
            line = json.loads(raw)
            if all(line.get(key) == value for key, value in (identity or {}).items()):
                yield line


class Series:
    """Least, middle and greatest of many values, in bounded memory: four digits tell values apart."""

    def __init__(self) -> None:
        self._counts: Counter[float] = Counter()
        self._low, self._high = float("inf"), float("-inf")

    def add(self, value: float) -> None:
        self._counts[_rounded(value)] += 1
        self._low, self._high = min(self._low, value), max(self._high, value)

    def range(self, unit: str) -> Range | None:
        count = self._counts.total()
        if not count:
            return None
        seen = 0
        ordered = sorted(self._counts)
        middle = next(value for value in ordered if (seen := seen + self._counts[value]) * 2 >= count)
        middle = min(max(middle, self._low), self._high)
        return Range(unit=unit, minimum=self._low, median=middle, maximum=self._high, count=count)


def _rounded(value: float) -> float:
    return round(value, 3 - floor(log10(abs(value)))) if value else 0.0


@dataclass
class _Gpu:
    """One GPU as the pass goes."""

    series: dict[str, Series] = field(default_factory=lambda: {name: Series() for name in GPU_UNITS})
    reasons: Counter[str] = field(default_factory=Counter)
    told: int = 0
    others: int | None = None
    lost: str | None = None
    power: list[tuple[float, float]] = field(default_factory=list)
    counter: list[tuple[float, float]] = field(default_factory=list)

    def add(self, time: float, sample: Mapping[str, Any]) -> None:
        for name, series in self.series.items():
            if (value := sample.get(name)) is not None:
                series.add(value)
        if sample.get("power_w") is not None:
            self.power.append((time, sample["power_w"]))
        if sample.get("energy_mj") is not None:
            self.counter.append((time, sample["energy_mj"]))
        if sample.get("clock_reasons") is not None:
            self.told += 1
            self.reasons.update(names(sample["clock_reasons"]))
        if (others := other_processes(sample)) is not None:
            self.others = max(self.others or 0, others)


def other_processes(sample: Mapping[str, Any]) -> int | None:
    """Processes of others on a GPU; None where it is not told.

    In a container the driver may tell numbers that are not this container's: where none of the numbers is the job's,
    one of them is taken to be it.
    """
    count = sample.get("processes")
    if count is None:
        return None
    own: int = sample.get("own_processes") or min(count, 1)
    return int(count) - own


class Window:
    """What a pass over a file found.

    Args:
        path: `telemetry.jsonl`.
        identity: what lines must carry to count.
        idle_watts: power of the idle devices, by UUID or path, where it was taken.
        since: only lines from this time on, as they tell it.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, str | int] | None = None,
        idle_watts: Mapping[str, float] | None = None,
        since: str = "",
    ) -> None:
        self._idle = dict(idle_watts or {})
        self._described: dict[str, dict[str, Any]] = {}
        self._ranges: dict[str, int | None] = {}
        self._cpu = {name: Series() for name in (*CPU_UNITS, *CPU_COUNTERS)}
        self._cpu_first: dict[str, float] = {}
        self._gpus: dict[str, _Gpu] = {}
        self._rapl: dict[str, list[tuple[float, float]]] = {}
        self._interval: float | None = None
        self._first: float | None = None
        self._last: float | None = None
        self._offset: float | None = None
        self._samples = self._late = 0
        self._notes: list[str] = []
        for line in lines(path, identity):
            if not since or line["timestamp"] >= since:
                self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        match line["event"]:
            case "start":
                self._interval = line["interval_s"]
                self._described = {one["uuid"]: one for one in line["gpus"]}
                self._ranges = line["cpu"]["rapl"]
                self._notes += line["notes"]
            case "note":
                self._notes.append(line["message"])
            case "lost":
                self._gpus.setdefault(line["uuid"], _Gpu()).lost = line["timestamp"]
            case "sample":
                self._sample(line)

    def _sample(self, line: dict[str, Any]) -> None:
        time = line["monotonic"]
        if self._offset is None:
            self._offset = datetime.fromisoformat(line["timestamp"]).timestamp() - time
        if self._last is not None and self._interval and time - self._last > 1.5 * self._interval:
            self._late += 1
        self._first = time if self._first is None else self._first
        self._last = time
        self._samples += 1
        for name, series in self._cpu.items():
            if (value := line["cpu"].get(name)) is not None:
                first = self._cpu_first.setdefault(name, value) if name in CPU_COUNTERS else 0.0
                series.add(value - first)
        for path, value in (line["cpu"].get("rapl_uj") or {}).items():
            if value is not None:
                self._rapl.setdefault(path, []).append((time, value))
        for sample in line["gpus"]:
            self._gpus.setdefault(sample["uuid"], _Gpu()).add(time, sample)

    def monotonic(self, seconds: float) -> float:
        """The samples' monotonic time at a time in seconds since 1970."""
        assert self._offset is not None, "nothing was sampled"
        return seconds - self._offset

    @property
    def seconds(self) -> float:
        return 0.0 if self._first is None or self._last is None else self._last - self._first

    def summary(self) -> Telemetry | None:
        """None where nothing was sampled."""
        if self._interval is None or not self._samples:
            return None
        warnings: list[str] = []
        gpus = [self._gpu(uuid, gpu, warnings) for uuid, gpu in self._gpus.items()]
        packages = [self._package(path, readings, warnings) for path, readings in self._rapl.items()]
        units = CPU_UNITS | CPU_COUNTERS
        return Telemetry(
            interval_s=self._interval,
            seconds=self.seconds,
            samples=self._samples,
            late=self._late,
            cpu=_ranges(self._cpu, units),
            cpu_energy=packages,
            gpus=gpus,
            notes=list(dict.fromkeys(self._notes)),
            warnings=warnings,
        )

    def counters(self) -> dict[str, energy.Cumulative]:
        """Energy over time by device, as far as a counter tells it."""
        found = {
            uuid: energy.cumulate(gpu.counter, joules=1e-3, range_=None, power=gpu.power)
            for uuid, gpu in self._gpus.items()
        }
        for path, readings in self._rapl.items():
            found[path] = energy.cumulate(readings, joules=1e-6, range_=self._ranges.get(path))
        return found

    def _gpu(self, uuid: str, gpu: _Gpu, warnings: list[str]) -> GpuTelemetry:
        described = self._described.get(uuid, {})
        if gpu.lost is not None:
            warnings.append(f"GPU {uuid} was lost at {gpu.lost}")
        counter = energy.cumulate(gpu.counter, joules=1e-3, range_=None, power=gpu.power)
        integrated = energy.integrate(gpu.power)
        if gpu.lost is not None:
            counter, integrated = energy.Cumulative(), None
        told = gpu.told or 1
        return GpuTelemetry(
            uuid=uuid,
            name=described.get("name"),
            driver=described.get("driver"),
            series=_ranges(gpu.series, GPU_UNITS),
            clock_reasons={name: count / told for name, count in sorted(gpu.reasons.items())},
            other_processes=gpu.others,
            lost=gpu.lost,
            energy=self._energy(uuid, counter, integrated, warnings),
        )

    def _package(self, path: str, readings: list[tuple[float, float]], warnings: list[str]) -> Energy:
        counter = energy.cumulate(readings, joules=1e-6, range_=self._ranges.get(path))
        return self._energy(path, counter, None, warnings)

    def _energy(
        self, device: str, counter: energy.Cumulative, integrated: float | None, warnings: list[str]
    ) -> Energy:
        """The counter where it can be believed, else integrated power; warns where they differ or one failed."""
        seconds = self.seconds
        if seconds < energy.LEAST_SECONDS:
            counter, integrated = energy.Cumulative(), None
        joules, idle = counter.joules, self._idle.get(device)
        apart = energy.disagreement(joules, integrated)
        stuck = joules == 0 and counter.still >= energy.STILL_SECONDS
        if counter.still >= energy.STILL_SECONDS:
            warnings.append(f"{device}: the energy counter stood still for {counter.still:.1f} s")
        if counter.filled:
            warnings.append(
                f"{device}: the energy counter fell {counter.filled} times; power filled the gap there"
            )
        if apart is not None and apart > energy.DISAGREEMENT:
            warnings.append(
                f"{device}: the energy counter says {joules:.1f} J, integrated power {integrated:.1f} J: "
                f"{apart:.0%} apart, more than {energy.DISAGREEMENT:.0%}"
            )
        by_counter = joules is not None and not stuck
        chosen = joules if by_counter else integrated
        return Energy(
            device=device,
            source="counter" if by_counter else None if chosen is None else "power",
            joules=chosen,
            seconds=seconds,
            integrated_joules=integrated,
            disagreement=apart,
            wraps=counter.wraps,
            idle_watts=idle,
            net_joules=energy.net(chosen, idle, seconds),
        )


def _ranges(series: Mapping[str, Series], units: Mapping[str, str]) -> dict[str, Range]:
    found = {name: one.range(units[name]) for name, one in series.items()}
    return {name: one for name, one in found.items() if one is not None}
