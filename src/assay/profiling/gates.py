"""Whether a block can be believed: pure functions over the telemetry of its visits, each with its evidence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from assay.config.schema import Gates
from assay.records import Typed
from assay.telemetry.reasons import INVALIDATING, names
from assay.telemetry.window import other_processes

LEAST_SAMPLES = 5
"""Below this a visit has no median clock."""
LEAST_SECONDS = 1.0
"""Below this a visit has no share of its time: the scheduler deals in slices, a control group in tenths of a second."""

Status = Literal["held", "tripped", "not measured"]
Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Visited:
    """The lines that the sampler wrote beside one visit."""

    position: int
    arm: str
    lines: Sequence[Mapping[str, Any]]

    @property
    def samples(self) -> list[Mapping[str, Any]]:
        return [line for line in self.lines if line["event"] == "sample"]

    @property
    def gpus(self) -> list[Sample]:
        return [gpu for line in self.samples for gpu in line["gpus"]]

    def known(self, name: str) -> list[Any]:
        """What the GPUs told under this name, in order."""
        return [gpu[name] for gpu in self.gpus if gpu.get(name) is not None]

    def growth(self, name: str) -> float | None:
        """By how much a counter of the CPU side grew over the visit."""
        told = [line["cpu"][name] for line in self.samples if line["cpu"].get(name) is not None]
        return told[-1] - told[0] if len(told) > 1 and self.seconds >= LEAST_SECONDS else None

    @property
    def seconds(self) -> float:
        samples = self.samples
        return samples[-1]["monotonic"] - samples[0]["monotonic"] if samples else 0.0


class Gate(Typed):
    """One condition of a valid block, and what was found."""

    name: str
    status: Status
    bound: float | None
    """What may be reached and not exceeded; null for a condition that is no number."""
    found: float | None = None
    unit: str = "1"
    message: str | None = None
    """Of a gate that tripped: what happened and where."""


def judge(visits: Sequence[Visited], gates: Gates) -> list[Gate]:
    """All gates over the visits of one block, in their order."""
    return [
        gpu_lost(visits),
        throttling(visits, gates.throttled),
        clock_drift(visits, gates.clock_drift),
        start_temperature(visits, gates.start_band),
        foreign_processes(visits),
        ecc_errors(visits),
        same_state(visits, "uuid", "the GPU"),
        same_state(visits, "mig", "MIG mode"),
        same_state(visits, "power_limit_w", "the power limit"),
        cpu_share(visits, "cpu_throttled", gates.cpu_throttled, _throttled, "held back by its control group"),
        cpu_share(
            visits, "cpu_contention", gates.cpu_contention, _waited, "ready to run without getting a CPU"
        ),
    ]


def _gate(
    name: str, bound: float | None, found: float | None, text: Callable[[], str], unit: str = "1"
) -> Gate:
    """Tripped where `found` exceeds the bound (0 where there is none)."""
    if found is None:
        return Gate(name=name, status="not measured", bound=bound, unit=unit)
    tripped = found > (bound or 0.0)
    return Gate(
        name=name,
        status="tripped" if tripped else "held",
        bound=bound,
        found=found,
        unit=unit,
        message=text() if tripped else None,
    )


def _where(visit: Visited) -> str:
    return f"visit {visit.position} ({visit.arm})"


def gpu_lost(visits: Sequence[Visited]) -> Gate:
    """A GPU stopped to answer."""
    asked = any(visit.gpus for visit in visits)
    lost = [visit for visit in visits if any(line["event"] == "lost" for line in visit.lines)]
    found = len(lost) if asked else None
    return _gate("gpu_lost", None, found, lambda: f"the GPU was lost in {_where(lost[0])}", "count")


def throttling(visits: Sequence[Visited], bound: float) -> Gate:
    """Share of samples in which heat or a fault held the clocks down, in the worst visit. A power cap is not one."""
    shares: dict[float, tuple[Visited, list[str]]] = {}
    for visit in visits:
        told = [set(names(bits)) & set(INVALIDATING) for bits in visit.known("clock_reasons")]
        if told:
            shares[sum(map(bool, told)) / len(told)] = (visit, sorted(set().union(*told)))
    found = max(shares, default=None)

    def text() -> str:
        visit, reasons = shares[found or 0.0]
        return f"clocks were held down in {found:.0%} of the samples of {_where(visit)}: {', '.join(reasons)}"

    return _gate("throttling", bound, found, text)


def clock_drift(visits: Sequence[Visited], bound: float) -> Gate:
    """How far an arm's median SM clocks lie apart, relative to the lower one.

    Between visits of one arm, not between arms: at the power limit each arm has clocks of its own.
    """
    clocks: dict[str, list[float]] = {}
    for visit in visits:
        # Between measurements a card may rest; its clocks count while it works.
        told = [gpu["sm_mhz"] for gpu in visit.gpus if gpu.get("sm_mhz") and gpu.get("utilization_percent")]
        if len(told) >= LEAST_SAMPLES:
            clocks.setdefault(visit.arm, []).append(median(told))
    drifts = {max(own) / min(own) - 1: arm for arm, own in clocks.items() if len(own) > 1}
    found = max(drifts, default=None)

    def text() -> str:
        arm = drifts[found or 0.0]
        return (
            f"the SM clock of {arm} went from {min(clocks[arm]):g} to {max(clocks[arm]):g} MHz between visits"
        )

    return _gate("clock_drift", bound, found, text)


def start_temperature(visits: Sequence[Visited], bound: float) -> Gate:
    """How far apart the temperatures lie with which visits began, in °C."""
    starts = {
        visit.position: visit.known("temperature_c")[0] for visit in visits if visit.known("temperature_c")
    }
    found = max(starts.values()) - min(starts.values()) if len(starts) > 1 else None

    def text() -> str:
        cold, hot = min(starts, key=starts.__getitem__), max(starts, key=starts.__getitem__)
        return f"visit {cold} began at {starts[cold]:g} °C and visit {hot} at {starts[hot]:g} °C"

    return _gate("start_temperature", bound, found, text, "°C")


def foreign_processes(visits: Sequence[Visited]) -> Gate:
    """Most processes of others that computed on the GPU at one time."""
    most: dict[int, Visited] = {}
    for visit in visits:
        told = [count for gpu in visit.gpus if (count := other_processes(gpu)) is not None]
        if told:
            most.setdefault(max(told), visit)
    found = max(most, default=None)
    return _gate(
        "foreign_processes",
        None,
        found,
        lambda: f"{found} other processes computed on the GPU in {_where(most[found or 0])}",
        "count",
    )


def ecc_errors(visits: Sequence[Visited]) -> Gate:
    """Uncorrected memory errors that came up during the block."""
    counts = [count for visit in visits for count in visit.known("ecc_uncorrected")]
    found = max(counts) - counts[0] if counts else None
    return _gate("ecc_errors", None, found, lambda: f"{found} uncorrected memory errors of the GPU", "count")


def same_state(visits: Sequence[Visited], name: str, title: str) -> Gate:
    """What may not change within a block: how many values it had beyond one."""
    values = list(dict.fromkeys(value for visit in visits for value in visit.known(name)))
    found = len(values) - 1 if values else None
    listing = ", ".join(map(str, values))
    return _gate(f"same_{name}", None, found, lambda: f"{title} changed within the block: {listing}", "count")


def _throttled(visit: Visited) -> float | None:
    grown = visit.growth("throttled_s")
    return None if grown is None or not visit.seconds else grown / visit.seconds


def _waited(visit: Visited) -> float | None:
    busy, waited = visit.growth("busy_s"), visit.growth("waited_s")
    return None if busy is None or waited is None or not busy + waited else waited / (busy + waited)


def cpu_share(
    visits: Sequence[Visited], name: str, bound: float, share: Callable[[Visited], float | None], what: str
) -> Gate:
    """Share of the time for which the visit could have run and did not, in the worst visit."""
    shares = {value: visit for visit in visits if (value := share(visit)) is not None}
    found = max(shares, default=None)
    return _gate(
        name, bound, found, lambda: f"{_where(shares[found or 0.0])} was {found:.0%} of its time {what}"
    )
