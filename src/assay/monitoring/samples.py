"""What the machine beside a run does, from the end of `telemetry.jsonl`."""

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.monitoring.files import Line, Moment, Tail, number, seconds_of, text, whole
from assay.monitoring.state import Gpu, Host
from assay.telemetry.reasons import INVALIDATING, names
from assay.telemetry.window import other_processes

SILENT_SECONDS = 10.0
"""A sampler writes every second; one that has not for so long does not count as live. Over NFS a second look is late."""
_BUSY_WINDOW = 1.0
MOST_BYTES, TAIL_BYTES = 2**20, 64 * 2**10
"""At one look: the last samples are what counts, and 64 KiB hold ten seconds of several GPUs."""


@dataclass
class _Card:
    """One GPU: what stood in its last sample, and what stands in some samples only."""

    name: str | None = None
    total_mb: float | None = None
    timestamp: str | None = None
    lost: str | None = None
    told: dict[str, Any] = field(default_factory=dict)
    samples: int = 0
    throttled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def take(self, timestamp: str | None, sample: dict[str, Any]) -> None:
        if any(value is not None for name, value in sample.items() if name != "uuid"):
            self.timestamp = timestamp
            self.lost = None
            self.told |= sample
            self._count(whole(sample.get("clock_reasons")))
        else:  # it cannot be read, so that what it said before does not hold any more
            self.timestamp = self.timestamp or timestamp
            self.told = {}

    def _count(self, bits: int | None) -> None:
        if bits is None:
            return
        reasons = names(bits)
        self.samples += 1
        self.throttled += not {*reasons}.isdisjoint(INVALIDATING)
        self.reasons.update(reasons)


class Samples:
    """The sampler of one run, or of one arm's visits in a block, as its file grows."""

    def __init__(self, path: Path) -> None:
        self._tail = Tail(path, most=MOST_BYTES, tail=TAIL_BYTES)
        self.pulse = self._tail.pulse
        self._generation = 0
        self._forget()

    def _forget(self) -> None:
        self.ended = False
        """Whether the sampler has said that the job is over."""
        self.attempt: int | None = None
        self.visit: int | None = None
        self.visits_ended: set[int] = set()
        self.last_mark: float | None = None
        """When the job itself last said something: the begin of a visit, a measurement begun or done."""
        self.longest_between_marks: float | None = None
        self.timestamp: str | None = None
        self._cards: dict[str, _Card] = {}
        self._cpu: dict[str, Any] = {}
        self._busy: list[tuple[float, float]] = []

    def look(self, moment: Moment) -> None:
        lines = self._tail.read(moment)
        if self._tail.generation != self._generation:
            self._generation = self._tail.generation
            self._forget()
        for line in lines:
            with contextlib.suppress(AttributeError, TypeError):  # no line of the sampler's
                self._take(line)

    def _take(self, line: Line) -> None:
        event = line.get("event")
        attempt, visit = whole(line.get("attempt")), whole(line.get("visit"))
        if attempt != self.attempt:
            self.attempt, self.visit, self.visits_ended = attempt, None, set()
        self.timestamp = text(line.get("timestamp")) or self.timestamp
        self.visit = self.visit if visit is None else visit
        match event:
            case "start":
                self.ended, self._busy = False, []
                for one in line.get("gpus") or []:
                    card = self._cards.setdefault(str(one.get("uuid")), _Card())
                    card.name, card.total_mb = text(one.get("name")), number(one.get("memory_total_mb"))
            case "sample":
                self._sample(line)
            case "lost":
                card = self._cards.setdefault(str(line.get("uuid")), _Card())
                card.lost, card.told = text(line.get("timestamp")), {}
            case "end":
                self.ended = True
                if visit is not None:
                    self.visits_ended.add(visit)
        if event not in ("sample", "note", "lost"):
            self._mark(seconds_of(line.get("timestamp")))

    def _mark(self, moment: float | None) -> None:
        if moment is None:
            return
        if self.last_mark is not None:
            self.longest_between_marks = max(self.longest_between_marks or 0.0, moment - self.last_mark)
        self.last_mark = moment

    def _sample(self, line: Line) -> None:
        for sample in line.get("gpus") or []:
            self._cards.setdefault(str(sample.get("uuid")), _Card()).take(text(line.get("timestamp")), sample)
        self._cpu = line.get("cpu") or {}
        moment, busy = number(line.get("monotonic")), number(self._cpu.get("busy_s"))
        if moment is not None and busy is not None:
            self._busy.append((moment, busy))
            while len(self._busy) > 2 and self._busy[1][0] <= moment - _BUSY_WINDOW:
                self._busy.pop(0)

    @property
    def cpu_share(self) -> float | None:
        """Of a CPU, that the job's main thread took over the last second."""
        if len(self._busy) < 2:
            return None
        (began, before), (now, after) = self._busy[0], self._busy[-1]
        return (after - before) / (now - began) if now - began >= _BUSY_WINDOW / 2 else None

    @property
    def utilization(self) -> float | None:
        """Of the busiest GPU, in percent."""
        told = [number(card.told.get("utilization_percent")) for card in self._cards.values()]
        return max((value for value in told if value is not None), default=None)

    @property
    def lost(self) -> str | None:
        """UUID of a GPU that stopped to answer."""
        return next((uuid for uuid, card in self._cards.items() if card.lost), None)

    def live(self, moment: Moment) -> bool:
        age = self.pulse.age(moment)
        return not self.ended and age is not None and age <= SILENT_SECONDS

    def gpus(self, moment: Moment, **user: Any) -> list[Gpu]:
        """user: the fields of `Gpu` that tell whose it is."""
        return [
            Gpu(
                uuid=uuid,
                name=card.name,
                timestamp=card.timestamp or card.lost or "",
                age_s=self.pulse.age(moment),
                live=self.live(moment),
                values=_numbers(card.told | {"memory_total_mb": card.total_mb})
                | {"other_processes": other_processes(card.told)},
                clock_reasons=_reasons(card),
                throttled=None if (told := _reasons(card)) is None else bool({*told} & {*INVALIDATING}),
                lost=card.lost,
                samples=card.samples,
                throttled_samples=card.throttled,
                reason_samples=dict(card.reasons),
                **user,
            )
            for uuid, card in self._cards.items()
        ]

    def host(self, moment: Moment, name: str) -> Host | None:
        if not self._cpu:
            return None
        return Host(
            host=name,
            timestamp=self.timestamp or "",
            age_s=self.pulse.age(moment),
            live=self.live(moment),
            values=_numbers(self._cpu),
        )


def _reasons(card: _Card) -> tuple[str, ...] | None:
    bits = whole(card.told.get("clock_reasons"))
    return None if bits is None else tuple(names(bits))


def _numbers(told: dict[str, Any]) -> dict[str, float | None]:
    apart = ("uuid", "clock_reasons", "other_pids", "rapl_uj")
    return {
        name: float(value) if isinstance(value, bool) else number(value)
        for name, value in told.items()
        if name not in apart
    }
