"""Energy from counters and from power: pure arithmetic over readings."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

LEAST_SECONDS = 2.0
"""A window below this has no energy: a counter that is renewed every 0.1 s is off by up to that much at either end."""
STILL_SECONDS = 1.0
"""A counter that does not move for this long, while power is drawn, stands still: ten times its usual rhythm."""
STILL_WATTS = 1.0
"""Mean power below which a counter may rest."""
DISAGREEMENT = 0.10
"""Relative difference of counter and integrated power from which on it is reported."""

EDGE_SECONDS = 0.5
"""A job goes on while its sampler starts: so far outside its readings a counter is carried on at its last pace."""

Points = Sequence[tuple[float, float]]
"""(time in s, value), times ascending."""


@dataclass
class Cumulative:
    """A counter without its wraps: (time, joules since the first reading)."""

    points: list[tuple[float, float]] = field(default_factory=list)
    wraps: int = 0
    filled: int = 0
    """Falls of a counter whose range is not known: the energy of these intervals is power times time."""
    broken: bool = False
    """Such a fall without a power reading: the counter says nothing of the whole."""
    still: float = 0.0
    """Longest time for which it stood still while power was drawn, in s."""

    @property
    def joules(self) -> float | None:
        return None if self.broken or len(self.points) < 2 else self.points[-1][1]

    def at(self, time: float) -> float | None:
        """Joules until `time`, linear between readings and for `EDGE_SECONDS` beyond them; None outside."""
        if self.broken or len(self.points) < 2:
            return None
        first, last = self.points[0][0], self.points[-1][0]
        if not first - EDGE_SECONDS <= time <= last + EDGE_SECONDS:
            return None
        if time < first:
            before, after = self.points[0], self._at_least(first + EDGE_SECONDS)
        elif time > last:
            before, after = self._at_most(last - EDGE_SECONDS), self.points[-1]
        else:
            before, after = self._at_most(time), self._at_least(time)
        if before == after:
            return before[1]
        return before[1] + (after[1] - before[1]) * (time - before[0]) / (after[0] - before[0])

    def _at_least(self, time: float) -> tuple[float, float]:
        return self.points[min(bisect_left(self.points, (time, float("-inf"))), len(self.points) - 1)]

    def _at_most(self, time: float) -> tuple[float, float]:
        return self.points[max(bisect_left(self.points, (time, float("inf"))) - 1, 0)]


def cumulate(readings: Points, *, joules: float, range_: float | None, power: Points = ()) -> Cumulative:
    """Add up a counter's steps.

    joules: of one count; range_: value at which it begins anew, None where that is not known (NVML's counter: it falls
    only when a driver is loaded anew, or where it is narrower than documented); power: readings in W for the same
    time, which fill such a fall and tell whether a counter that rests should.
    """
    found = Cumulative([(readings[0][0], 0.0)] if readings else [])
    total, moved = 0.0, readings[0][0] if readings else 0.0
    for (before, old), (after, new) in pairwise(readings):
        if new > old:
            total += (new - old) * joules
        elif new < old and range_ is not None:
            total += (new - old + range_) * joules
            found.wraps += 1
        elif new < old:
            energy = integrate(between(power, before, after))
            found.broken |= energy is None
            total += energy or 0.0
            found.filled += 1
        if new == old:
            drawn = integrate(between(power, moved, after))
            if drawn is not None and drawn > STILL_WATTS * (after - moved):
                found.still = max(found.still, after - moved)
        else:
            moved = after
        found.points.append((after, total))
    return found


def integrate(power: Points) -> float | None:
    """Joules by the trapezoidal rule over (s, W); None for fewer than two readings."""
    if len(power) < 2:
        return None
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(power))


def between(points: Points, first: float, last: float) -> Points:
    """The readings from `first` to `last`, both included."""
    low = bisect_left(points, (first, float("-inf")))
    high = bisect_left(points, (last, float("inf")))
    return points[low:high]


def disagreement(counter: float | None, integrated: float | None) -> float | None:
    """|counter - integrated| / integrated; None where one of them is missing or nothing was drawn."""
    if counter is None or integrated is None or integrated <= 0:
        return None
    return abs(counter - integrated) / integrated


def net(joules: float | None, idle_watts: float | None, seconds: float) -> float | None:
    """What the work took beyond what the idle device would have; None without an idle baseline."""
    return None if joules is None or idle_watts is None else joules - idle_watts * seconds
