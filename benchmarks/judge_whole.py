"""The whole judge, as it runs in production, over simulated releases of identical versions: guards, tests and ratio check, fed line by line.

Prints the table of docs/judge.md.

    PYTHONPATH=src python benchmarks/judge_whole.py [--releases 400] [--processes 2] [--seed 1]
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from judge_simulation import RAMP, SETTINGS, interval, named
from judge_traffic import QUIET, Common, Effect, Population, Visits, has, lines, visits

from assay.release.judge.guards import Guards
from assay.release.judge.judge import Judge
from assay.release.observations import Access, Attempt
from assay.release.schema import Step

SECONDS = 600.0
"""Of each step."""
USERS = 2000
"""Of the population; four in five come in each step: 2.7 a second, and ten requests."""
SHARES = (*((share,) for share in RAMP), RAMP, (0.0,), (1.0,))
NO_EFFECT = Effect()


@dataclass(frozen=True)
class Seen:
    """Of one release."""

    guard: str | None
    """Why a guard tripped, if one did."""
    worse: str | None
    """Why a test turned back."""
    split: bool
    """Whether the ratio check would have held it."""
    limits: bool
    """Whether guards would have tripped that do not ask whether it is chance."""

    @property
    def turned_back(self) -> bool:
        return bool(self.guard or self.worse)


class Limits(Guards):
    """A broken judge's: a burst is what is beyond the limits."""

    def see(self, access: Access) -> None:
        for attempt in access.attempts:
            self.bursts[attempt.role].add(access.timestamp, access.user, attempt.failed)
            if attempt.role == "candidate" and attempt.failed and self.tripped is None:
                self._look_at_burst(access.timestamp)


def judged(
    seed: Sequence[int],
    shares: Sequence[float],
    users: int = USERS,
    *,
    disturbed: bool,
    effect: Effect = NO_EFFECT,
    seconds: float = SECONDS,
    tests: bool = True,
) -> Seen:
    """One release. shares: of its steps; 0: everything is copied. disturbed: each step has an outage and a rush that both versions share.

    tests: False: guards alone see the lines, seven times as fast.
    """
    rng = np.random.default_rng(seed)
    population = Population.drawn(users, rng)
    steps = [Step(share=share) for share in (*RAMP, 1.0)]
    judge = Judge(SETTINGS, steps, has)
    limits, split = Limits(SETTINGS.guards, SETTINGS.level), False
    for place, share in enumerate(shares):
        common = Common.drawn(seconds, rng) if disturbed else QUIET
        one = visits(population, share, seconds, effect, rng, common)
        accesses, outcomes = lines(population, one, place * seconds, seconds)
        accesses = accesses if share else list(copied(accesses, one))
        if tests:
            judge.feed(accesses, outcomes)
        for access in accesses:
            limits.see(access)
            if not tests:
                judge.guards.see(access)
        judge.health(place * seconds, ready=True, non_finite=0)
        comparison = judge.steps.get(share)
        level = SETTINGS.ratio_level / len(RAMP)
        split |= comparison is not None and comparison.split_is_wrong(level) is not None
    return Seen(judge.guards.tripped, judge.worse, split, limits.tripped is not None)


def copied(accesses: list[Access], one: Visits) -> Iterator[Access]:
    """Each followed by its copy, which fails as often."""
    order = np.argsort(one.time, kind="stable")
    for access, place in zip(accesses, order.tolist(), strict=False):
        attempt = Attempt("candidate", 500 if one.again[place] else 200, access.seconds)
        yield access
        yield access._replace(route="shadow", attempts=(attempt,))


def _one(task: tuple[list[int], tuple[float, ...], bool, bool]) -> Seen:
    seed, shares, disturbed, tests = task
    return judged(seed, shares, disturbed=disturbed, tests=tests)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", type=int, default=400, help="per line")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation")
    parser.add_argument("--guards", action="store_true", help="guards alone")
    arguments = parser.parse_args(argv)
    print("| shared by both | shares | guards | tests | whole | held by the ratio check | limits alone |")
    print("|---|---|--:|--:|--:|--:|--:|")
    count = arguments.releases
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        for disturbed in (True, False):
            for shares in SHARES:
                seeds = ([arguments.seed, number] for number in range(count))
                tasks = zip(
                    seeds, repeat(shares), repeat(disturbed), repeat(not arguments.guards), strict=False
                )
                seen = list(pool.map(_one, tasks, chunksize=5))
                found: list[list[bool] | None] = [
                    [one.guard is not None for one in seen],
                    None if arguments.guards else [one.worse is not None for one in seen],
                    None if arguments.guards else [one.turned_back for one in seen],
                    None if arguments.guards else [one.split for one in seen],
                    [one.limits for one in seen],
                ]
                cells = ["—" if one is None else interval(float(np.mean(one)), count) for one in found]
                what = "outage and rush in each step" if disturbed else "nothing"
                print(f"| {what} | {named(shares)} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
