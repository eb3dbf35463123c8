"""The largest batch that fits, without trying what does not: each next size is one whose memory was foretold.

Memory of a forward pass grows with the batch as a straight line, or in steps above one. From the sizes measured so
far comes the steepest slope between two neighbours; a size is tried only if the line through the last one stays
below the bound. Where memory jumps all the same, the probe is refused the memory and says that it did not fit; then the
gap between what did and what did not is halved.
"""

import itertools
from collections.abc import Callable
from typing import Literal

from assay.records import Typed

MOST_IMAGES = 1 << 16
RESOLUTION = 1.125
"""Sizes closer together than this are not told apart."""
CALLS = 16
"""Calls that a size costs, measuring at the end included: what is foretold of a size's time."""

Limit = Literal["memory", "time", "gain", "images"]


class Cost(Typed):
    """One size that was tried and fits."""

    size: int
    memory_mb: float
    """Held at most, by all of the process on a CPU and by PyTorch's allocator on a GPU."""
    seconds: float
    """Median of a call."""

    @property
    def throughput(self) -> float:
        return self.size / self.seconds


class Found(Typed):
    """The largest size that was tried and fits, and why no larger one."""

    size: int
    limit: Limit
    bound_mb: float
    tried: list[Cost]
    refused: list[int] = []
    """Sizes that turned out not to fit."""


def find_largest(
    probe: Callable[[int], Cost | None],
    start: int,
    *,
    bound_mb: float,
    most_seconds: float,
    least_gain: float | None,
) -> Found | None:
    """Grow from `start`, which is known to work, and half of it. None if not even that stays below the bound.

    probe: measures a size; None where it does not fit. most_seconds: for which calls are made in all, foretold from
    those of the last size. least_gain: of the throughput, relative, below which two doublings in a row end the search;
    None: only memory, time and `MOST_IMAGES` do.
    """
    tried: list[Cost] = []
    refused: list[int] = []

    def attempt(size: int) -> None:
        cost = probe(size)
        if cost is None:
            refused.append(size)
        else:
            tried.append(cost)

    for size in dict.fromkeys((max(1, start // 2), start)):
        attempt(size)
    if not tried or tried[-1].memory_mb > bound_mb:
        return None
    while True:
        following, limit = _next(tried, min(refused, default=None), bound_mb, most_seconds, least_gain)
        if following is None:
            return Found(size=tried[-1].size, limit=limit, bound_mb=bound_mb, tried=tried, refused=refused)
        attempt(following)


def _next(
    tried: list[Cost], too_large: int | None, bound_mb: float, most_seconds: float, least_gain: float | None
) -> tuple[int | None, Limit]:
    """The size to try next, or None and why there is none."""
    last = tried[-1]
    size = min(2 * last.size, MOST_IMAGES)
    limit: Limit = "images"
    if too_large is not None:
        size, limit = (last.size + too_large) // 2, "memory"
    if (room := fitting(tried, bound_mb)) < size:
        size, limit = room, "memory"
    if size < last.size * RESOLUTION:
        return None, limit
    spent = sum(cost.seconds * CALLS for cost in tried)
    if spent + last.seconds * CALLS * size / last.size > most_seconds:
        return None, "time"
    if least_gain is not None and too_large is None and not _gains(tried, least_gain):
        return None, "gain"
    return size, limit


def fitting(tried: list[Cost], bound_mb: float) -> int:
    """Images whose memory stays below the bound, by the steepest slope so far."""
    slopes = [
        (after.memory_mb - before.memory_mb) / (after.size - before.size)
        for before, after in itertools.pairwise(tried)
    ]
    steepest = max(slopes, default=0.0)
    if steepest <= 0:
        return MOST_IMAGES
    return tried[-1].size + max(0, int((bound_mb - tried[-1].memory_mb) / steepest))


def _gains(tried: list[Cost], least: float) -> bool:
    """Whether one of the last two steps raised the throughput by as much."""
    if len(tried) < 3:
        return True
    before, middle, last = tried[-3:]
    return middle.throughput > before.throughput * (1 + least) or last.throughput > middle.throughput * (
        1 + least
    )
