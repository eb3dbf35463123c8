"""Made-up users for simulations of the judge: few of them send most requests, and each has habits of their own.

A population keeps its traits over all steps of a ramp, and its buckets, so that users move from the stable version to the
candidate as the share grows. In each step a user comes at most once, at a random time, for a visit of many requests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.release.observations import Access, Attempt, Outcome, Role

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

COMES = 0.8
"""Share of the population that comes in a step."""
MOST_REQUESTS = 200
PACE = 4.0
"""Mean over users of the seconds between their requests."""
ERRORS = 0.005
"""Mean over users of the share of their requests that fail with the stable version."""
STUCK, STUCK_ERRORS = 0.004, 0.6
"""Share of users whose requests mostly fail, with any version."""
REPORTED = 0.7
"""Share of visits with a business event."""
_BUCKETS = 2**32


@dataclass(frozen=True)
class Effect:
    """The candidate, times the stable version."""

    errors: float = 1.0
    latency: float = 1.0
    value: float = 1.0


@dataclass(frozen=True)
class Common:
    """What meets both versions alike in one step."""

    outage: tuple[float, float] = (0.0, 0.0)
    """Begin and end in seconds of the step."""
    failing: float = 0.0
    """Share of attempts that fail in the outage, whoever asks."""
    spike: tuple[float, float] = (0.0, 0.0)
    """Begin and end of a rush that swells and ebbs; at its height latency is `slower` times the usual."""
    rushing: float = 0.0
    """Share of the step's users who come in it."""
    slower: float = 1.0

    @classmethod
    def drawn(cls, duration: float, rng: np.random.Generator) -> "Common":
        """Somewhere in the step an outage of 5 to 60 seconds, and a rush of a third of all users within three minutes."""
        begin, rush = rng.random(2) * duration
        lasts = rng.uniform(5.0, 60.0)
        return cls((begin, begin + lasts), rng.uniform(0.2, 1.0), (rush, rush + 180.0), 1 / 3, 5.0)

    def arrivals(self, arrival: Floats, rng: np.random.Generator) -> Floats:
        begin, end = self.spike
        rush = rng.triangular(begin, (begin + end) / 2, end, len(arrival)) if end > begin else arrival
        return np.where(rng.random(len(arrival)) < self.rushing, rush, arrival)

    def slowness(self, time: Floats) -> Floats:
        """Factor of latency at each moment."""
        begin, end = self.spike
        height = np.interp(time, [begin, (begin + end) / 2, end], [0, 1, 0]) if end > begin else 0.0
        return np.asarray(1 + (self.slower - 1) * height + 0 * time)

    def fails(self, time: Floats, rng: np.random.Generator) -> Bools:
        begin, end = self.outage
        return (begin <= time) & (time < end) & (rng.random(len(time)) < self.failing)


QUIET = Common()


@dataclass(frozen=True)
class Population:
    """One release's users: traits `[users]`."""

    bucket: Ints
    tendency: Floats
    """Share of requests that fail: gamma with shape 0.3, but for those who are stuck, so that a few users have most errors."""
    speed: Floats
    """Median latency in seconds."""
    value: Floats
    """Probability of a business success."""
    weight: Floats
    """Requests of a visit are Pareto of shape 1.2 times this."""

    @classmethod
    def drawn(cls, users: int, rng: np.random.Generator) -> "Population":
        return cls(
            bucket=rng.integers(0, _BUCKETS, users),
            tendency=np.where(
                rng.random(users) < STUCK,
                STUCK_ERRORS,
                (ERRORS - STUCK * STUCK_ERRORS) * rng.gamma(0.3, 1 / 0.3, users),
            ),
            speed=0.03 * rng.lognormal(0, 0.4, users),
            value=rng.beta(2, 2, users),
            weight=rng.lognormal(0, 0.5, users),
        )


@dataclass(frozen=True)
class Visits:
    """All that happens in one step of one release. Users in the order in which they come."""

    share: float
    user: Ints
    """Place in the population."""
    arrival: Floats
    """Seconds since the step began."""
    candidate: Bools
    of: Ints
    """Of each request the visit, in order of time within it."""
    time: Floats
    failed: Bools
    again: Bools
    """Whether the stable version would fail too, asked at once after the candidate."""
    seconds: Floats
    value: Floats
    """Of each visit; NaN: none was reported."""


def visits(
    population: Population,
    share: float,
    duration: float,
    effect: Effect,
    rng: np.random.Generator,
    common: Common = QUIET,
) -> Visits:
    apart = rng.spawn(1)[0]
    users = np.flatnonzero(rng.random(len(population.bucket)) < COMES)
    arrival = np.sort(common.arrivals(rng.random(len(users)) * duration, apart))
    users = rng.permutation(users)
    candidate = population.bucket[users] < share * _BUCKETS
    pareto = rng.pareto(1.2, len(users)) * population.weight[users]
    count = np.minimum(MOST_REQUESTS, 1 + pareto.astype(np.int64))
    pace = rng.exponential(PACE, len(users))
    of = np.repeat(np.arange(len(users)), count)
    number = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)
    chance = population.tendency[users] * np.where(candidate, effect.errors, 1.0)
    seconds = population.speed[users] * np.where(candidate, effect.latency, 1.0)
    success = rng.random(len(users)) < population.value[users] * np.where(candidate, effect.value, 1.0)
    time = arrival[of] + number * pace[of]
    return Visits(
        share=share,
        user=users,
        arrival=arrival,
        candidate=candidate,
        of=of,
        time=time,
        failed=(rng.random(len(of)) < chance[of]) | common.fails(time, apart),
        again=(apart.random(len(of)) < population.tendency[users][of]) | common.fails(time, apart),
        seconds=seconds[of] * rng.lognormal(0, 0.4, len(of)) * common.slowness(time),
        value=np.where(rng.random(len(users)) < REPORTED, success, np.nan),
    )


def has(user: str, share: float) -> bool:
    """The split, from the digests of `lines`."""
    return int(user[:8], 16) < share * _BUCKETS


def lines(
    population: Population, one: Visits, begin: float, duration: float
) -> tuple[list[Access], list[Outcome]]:
    """The same as logs. Requests after the step's end are left out, as is what the front would log at another share."""
    digests = [f"{bucket:08x}{place:024x}" for place, bucket in enumerate(population.bucket.tolist())]
    accesses = []
    for place in np.argsort(one.time, kind="stable").tolist():
        if one.time[place] >= duration:
            break
        visit = one.of[place]
        role: Role = "candidate" if one.candidate[visit] else "stable"
        failed, seconds = bool(one.failed[place]), float(one.seconds[place])
        attempts = [Attempt(role, 500 if failed else 200, seconds)]
        if failed and role == "candidate":
            attempts.append(Attempt("stable", 500 if one.again[place] else 200, seconds))
        status = attempts[-1].status or 502
        at, user = begin + float(one.time[place]), digests[one.user[visit]]
        accesses.append(Access(at, "", user, role, "split", tuple(attempts), status, seconds, one.share, 1))
    outcomes = [
        Outcome(begin + float(one.arrival[visit]), digests[one.user[visit]], float(value))
        for visit, value in enumerate(one.value.tolist())
        if not np.isnan(value)
    ]
    return accesses, outcomes
