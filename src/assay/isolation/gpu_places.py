"""Who computes on a GPU: one job alone, or several runs that share it, each at a numbered place there.

A GPU has a door and places behind it, all names that one process has at a time. Whoever joins others takes a place
while holding the door, and lets go of the door. Whoever is to be alone holds the door, so that nobody joins any more,
waits until every place is free, and keeps the door. None holds a door while waiting for something that another
waiting job may hold, so that none waits for ever: a job that needs several GPUs takes them at once or none.
"""

import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from assay.isolation.names import bind, is_free

MOST_RUNS = 32
"""Places of a GPU."""
PATIENCE_SECONDS = 1.0
"""After so long a job that waits says so."""
SHORTEST_SECONDS, LONGEST_SECONDS = 0.01, 0.5
"""Between two looks while waiting."""

Found = TypeVar("Found")
Held = dict[str, socket.socket]
"""Doors by the GPU's UUID."""


@dataclass(frozen=True)
class Shared:
    """One run's place on a GPU that others may share; None where that is not known, as on a cluster.

    runs: as many share it at most. others: were there when this one came; others may have come later.
    """

    gpu: str | None
    place: int | None
    runs: int | None
    others: int | None


def alone(visible: Sequence[str], count: int) -> Held:
    """The doors of so many empty GPUs, once there are as many. visible: UUIDs, at least `count`."""
    assert len(visible) >= count

    def attempt(held: Held) -> Held | None:
        for gpu in visible:
            if gpu not in held and (door := bind(_door(gpu))) is not None:
                held[gpu] = door
        empty = [gpu for gpu in held if _is_empty(gpu)][:count]
        enough = len(empty) == count
        waited_for = empty if enough else list(held)[:1] if count == 1 else []
        _leave_others(held, waited_for)
        return held if enough else None

    return _wait(attempt)


def every(visible: Sequence[str]) -> Held:
    """The doors of all empty GPUs, once there is one. visible: UUIDs, at least one."""

    def attempt(held: Held) -> Held | None:
        for gpu in visible:
            if gpu not in held and (door := bind(_door(gpu))) is not None:
                held[gpu] = door
        empty = [gpu for gpu in held if _is_empty(gpu)]
        if not empty:
            return None
        _leave_others(held, empty)
        return held

    return _wait(attempt)


def beside_others(visible: Sequence[str], runs: int) -> tuple[Shared, socket.socket]:
    """A place among at most `runs` on the GPU that has the fewest, once one is free, and what holds it."""
    assert 1 < runs <= MOST_RUNS

    def attempt(_: Held) -> tuple[Shared, socket.socket] | None:
        for place in range(runs):
            for gpu in visible:
                if (joined := _join(gpu, place, runs)) is not None:
                    return joined
        return None

    return _wait(attempt)


def _join(gpu: str, place: int, runs: int) -> tuple[Shared, socket.socket] | None:
    door = bind(_door(gpu))
    if door is None:
        return None
    try:
        held = bind(_place(gpu, place))
        if held is None:
            return None
        others = sum(not is_free(_place(gpu, other)) for other in range(MOST_RUNS) if other != place)
        return Shared(gpu, place, runs, others), held
    finally:
        door.close()


def _is_empty(gpu: str) -> bool:
    """To be asked by who holds the door."""
    return all(is_free(_place(gpu, place)) for place in range(MOST_RUNS))


def _leave_others(held: Held, kept: Sequence[str]) -> None:
    for gpu in set(held) - set(kept):
        held.pop(gpu).close()


def _door(gpu: str) -> str:
    return f"gpu/{gpu}"


def _place(gpu: str, number: int) -> str:
    return f"gpu/{gpu}/{number}"


def _wait(attempt: Callable[[Held], Found | None]) -> Found:
    """Try until it succeeds, less and less often; says so when it takes longer than a moment."""
    held: Held = {}
    seconds, waited, told = SHORTEST_SECONDS, 0.0, False
    while (found := attempt(held)) is None:
        if waited >= PATIENCE_SECONDS and not told:
            told = True
            print(
                "waiting for a GPU: other jobs compute on all of them; what is to run on the CPU says so by "
                "execution: {device: cpu}",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(seconds)
        waited += seconds
        seconds = min(2 * seconds, LONGEST_SECONDS)
    return found
