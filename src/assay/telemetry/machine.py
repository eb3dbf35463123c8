"""The CPU side of a machine, from files that Linux keeps. What cannot be read is null.

Imported by the sampler's process: nothing heavy here.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLOCKS_READ = 8
"""Clocks of at most this many CPUs are read: on a large node the rest would cost more than they tell."""
_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


class Machine:
    """This machine as the job `pid` sees it. `root` stands for `/`, so that a test can show another machine."""

    def __init__(self, pid: int, root: str = "/") -> None:
        self._root = root.rstrip("/")
        self._pid = pid
        self._clocks = self._find_clocks()
        self._temperatures = self._find_temperatures()
        self._cgroup, self._throttle = self._find_cgroup()
        self._packages = self._find_packages()
        self.notes = self._missing()

    def describe(self) -> "dict[str, Any]":
        """What does not change: the energy counters with the value at which each begins anew, in µJ."""
        return {"rapl": dict(self._packages)}

    def read(self) -> "dict[str, Any]":
        """One sample.

        load: over a minute; cpu_mhz: mean; temperature_c: the hottest sensor; steal_s: time that the hypervisor gave to
        other guests, summed over CPUs; throttled_s: time for which the job's control group was held back; busy_s,
        waited_s: time for which the job's main thread ran, and was ready but got no CPU; rapl_uj: energy by package.
        All but the first three count up: compare two readings.
        """
        busy, waited = self._scheduled()
        return {
            "load": self._load(),
            "cpu_mhz": self._mean_clock(),
            "temperature_c": self._hottest(),
            "steal_s": self._steal(),
            "throttled_s": self._throttled(),
            "busy_s": busy,
            "waited_s": waited,
            "rapl_uj": {path: self._int(f"{path}/energy_uj") for path in self._packages} or None,
        }

    def _text(self, path: str) -> str | None:
        try:
            with open(self._root + path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                return file.read()
        except OSError:
            return None

    def _int(self, path: str) -> int | None:
        try:
            return int(self._text(path) or "")
        except ValueError:
            return None

    def _folders(self, path: str) -> list[str]:
        try:
            return [f"{path}/{name}" for name in sorted(os.listdir(self._root + path))]  # noqa: PTH208
        except OSError:
            return []

    def _find_clocks(self) -> list[str]:
        try:
            cpus = sorted(os.sched_getaffinity(self._pid))
        except (AttributeError, OSError):
            cpus = list(range(os.cpu_count() or 1))
        chosen = cpus[:: -(-len(cpus) // _CLOCKS_READ)]
        paths = [f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq" for cpu in chosen]
        return [path for path in paths if self._int(path) is not None]

    def _find_temperatures(self) -> list[str]:
        zones = [f"{zone}/temp" for zone in self._folders("/sys/class/thermal") if "thermal_zone" in zone]
        chips = [
            one
            for chip in self._folders("/sys/class/hwmon")
            if (self._text(f"{chip}/name") or "").strip() in _CHIPS
            for one in self._folders(chip)
            if one.rpartition("/")[2].startswith("temp") and one.endswith("_input")
        ]
        return [path for path in chips or zones if self._int(path) is not None]

    def _find_cgroup(self) -> tuple[str | None, str]:
        """The file that tells how long the job's group was held back, and the key in it. First the job's own group."""
        groups = [line.split(":", 2) for line in (self._text(f"/proc/{self._pid}/cgroup") or "").splitlines()]
        own = [group[2].rstrip("/") for group in groups if len(group) == 3 and group[:2] == ["0", ""]]
        old = [group[2].rstrip("/") for group in groups if len(group) == 3 and "cpu" in group[1].split(",")]
        wanted = [(f"/sys/fs/cgroup{path}/cpu.stat", "throttled_usec") for path in (*own, "")]
        wanted += [(f"/sys/fs/cgroup/cpu{path}/cpu.stat", "throttled_time") for path in (*old, "")]
        return next((one for one in wanted if self._key(*one) is not None), (None, ""))

    def _find_packages(self) -> dict[str, int | None]:
        """Whole packages only: cores and memory controllers below them are parts of the same energy."""
        found = [
            one
            for one in self._folders("/sys/class/powercap")
            if one.rpartition("/")[2].startswith("intel-rapl:") and one.count(":") == 1
        ]
        readable = [one for one in found if self._int(f"{one}/energy_uj") is not None]
        return {one: self._int(f"{one}/max_energy_range_uj") for one in readable}

    def _missing(self) -> list[str]:
        found = {"cpu_mhz": self._clocks, "temperature_c": self._temperatures, "throttled_s": self._cgroup}
        return [f"{name}: not told by this machine" for name, one in found.items() if not one] + (
            [] if self._packages else ["rapl_uj: no energy counter that this user may read"]
        )

    def _key(self, path: str, key: str) -> int | None:
        for line in (self._text(path) or "").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
        return None

    def _load(self) -> float | None:
        text = self._text("/proc/loadavg")
        return float(text.split()[0]) if text else None

    def _mean_clock(self) -> float | None:
        found = [value for value in map(self._int, self._clocks) if value is not None]
        return sum(found) / len(found) / 1e3 if found else None

    def _hottest(self) -> float | None:
        found = [value for value in map(self._int, self._temperatures) if value is not None]
        return max(found) / 1e3 if found else None

    def _steal(self) -> float | None:
        fields = (self._text("/proc/stat") or "").partition("\n")[0].split()
        return int(fields[8]) / os.sysconf("SC_CLK_TCK") if len(fields) > 8 else None

    def _throttled(self) -> float | None:
        if self._cgroup is None:
            return None
        value = self._key(self._cgroup, self._throttle)
        return None if value is None else value / (1e6 if self._throttle == "throttled_usec" else 1e9)

    def _scheduled(self) -> tuple[float | None, float | None]:
        fields = (self._text(f"/proc/{self._pid}/schedstat") or "").split()
        return (int(fields[0]) / 1e9, int(fields[1]) / 1e9) if len(fields) == 3 else (None, None)
