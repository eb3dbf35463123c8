"""Requests of users with many habits, as the front would log them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from assay.release.judge.judge import Judge
from assay.release.observations import Access, Attempt, Outcome, Role
from assay.release.schema import Judge as Settings
from assay.release.schema import Step

STEPS = [Step(share=share, users=20) for share in (0.01, 0.1, 0.5, 1.0)]
START = 1_000_000_000.0
TAIL = 30.0
"""Seconds that are seen after the last new user."""


def has(user: str, share: float) -> bool:
    """A split: the digest's first 32 bits."""
    return int(user[:8], 16) < share * 2**32


def users(count: int, seed: int) -> list[str]:
    return [hashlib.md5(f"{seed}-{number}".encode()).hexdigest() for number in range(count)]


@dataclass(frozen=True)
class Traffic:
    """Each user has a rate of errors, a speed and a number of requests (Pareto) of their own."""

    count: int
    share: float = 0.5
    seed: int = 0
    errors: tuple[float, float] = (0.01, 0.01)
    """Of a request, by version."""
    slower: float = 1.0
    """The candidate, times the stable version."""
    values: tuple[float, float] | None = None
    """Mean of the business value, by version."""
    each: float = 0.05
    """Seconds between new users."""
    assigned: Callable[[str, float], bool] = has

    def lines(self) -> tuple[list[Access], list[Outcome]]:
        rng = np.random.default_rng(self.seed)
        accesses, outcomes = [], []
        for number, user in enumerate(users(self.count, self.seed)):
            requests = min(100, int(rng.pareto(1.5)) + 1)
            speed, tendency = rng.lognormal(0, 0.3), rng.gamma(0.5, 2.0)
            waits = np.concatenate([[0.0], rng.exponential(5, requests - 1)])
            for at in START + number * self.each + np.cumsum(waits):
                accesses.append(self._access(rng, float(at), user, speed, tendency))
            if self.values is not None:
                value = float(rng.random() < self.values[self.assigned(user, self.share)])
                outcomes.append(Outcome(accesses[-requests].timestamp + 1, user, value))
        end = START + self.count * self.each + TAIL
        return sorted(line for line in accesses if line.timestamp < end), sorted(outcomes)

    def _access(
        self, rng: np.random.Generator, at: float, user: str, speed: float, tendency: float
    ) -> Access:
        candidate = self.assigned(user, self.share)
        role: Role = "candidate" if candidate else "stable"
        failed = rng.random() < min(1.0, self.errors[candidate] * tendency)
        seconds = 0.02 * speed * rng.lognormal(0, 0.4) * (self.slower if candidate else 1)
        attempts = (Attempt(role, 500 if failed else 200, seconds),)
        if candidate and failed:
            attempts += (Attempt("stable", 200, 0.02),)
        return Access(at, f"{at}", user, role, "split", attempts, 200, seconds, self.share, 1)


def judge(settings: Settings | None = None) -> Judge:
    return Judge(settings or Settings(), STEPS, has)


def step_of(share: float) -> Step:
    return next(step for step in STEPS if step.share == share)
