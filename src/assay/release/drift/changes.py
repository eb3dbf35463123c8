"""Changes over time: ADWIN, on values brought to [0, 1]."""

import statistics
from bisect import bisect_left, bisect_right
from collections import deque
from typing import Any

import numpy as np
from river.drift import ADWIN

LEAST_CHANGE = 0.1
"""Of the mean rank: a shift that is certain and small is no drift."""
LATEST = 64
"""Values that show how large a change is."""
WARM_UP = 200
"""Values from which ranks are taken where there is no reference."""
REMEMBERED = 2000
"""Latest values that are kept for a monitor that goes on after a crash."""


class Stream:
    """One number over time. quantiles: ascending, of what is expected; None: of its own first values."""

    def __init__(self, level: float, quantiles: list[float] | None = None) -> None:
        self.level = level
        self.quantiles = quantiles
        self.first: list[float] = []
        self.recent: deque[float] = deque(maxlen=REMEMBERED)
        self.adwin: Any = ADWIN(delta=level)  # type: ignore[no-untyped-call]

    def add(self, value: float) -> float | None:
        """The shift of the mean rank where the value shows that it has changed."""
        if self.quantiles is None:
            self.first.append(value)
            if len(self.first) >= WARM_UP:
                self.quantiles = np.quantile(self.first, np.linspace(0, 1, 101)).tolist()
                self.first = []
            return None
        return self._rank(self._ranked(value, self.quantiles))

    @staticmethod
    def _ranked(value: float, quantiles: list[float]) -> float:
        """Mean of the shares below and up to the value: equal values get the same rank."""
        return (bisect_left(quantiles, value) + bisect_right(quantiles, value)) / (2 * len(quantiles))

    def _rank(self, rank: float) -> float | None:
        self.recent.append(rank)
        self.adwin.update(rank)
        if not self.adwin.drift_detected:
            return None
        # ADWIN cuts off a part at a time: what it keeps may be mostly old, so the latest values tell the size.
        ranks = list(self.recent)
        shift = statistics.fmean(ranks[-LATEST:]) - statistics.fmean(ranks[:-LATEST] or ranks)
        return shift if abs(shift) >= LEAST_CHANGE else None

    def state(self) -> dict[str, Any]:
        return {"quantiles": self.quantiles, "first": self.first, "recent": list(self.recent)}

    def restore(self, state: dict[str, Any]) -> None:
        self.quantiles, self.first = state["quantiles"], list(state["first"])
        self.recent = deque(state["recent"], maxlen=REMEMBERED)
        self.adwin = ADWIN(delta=self.level)  # type: ignore[no-untyped-call]
        for rank in self.recent:
            self.adwin.update(rank)
