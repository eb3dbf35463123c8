"""Prove the judge by simulation: how often it turns back what is no different, how soon it sees what is worse, and how often
it promotes what it must not; beside other judges over the same requests.

Prints the tables of docs/judge.md.

    PYTHONPATH=src python benchmarks/judge_simulation.py [--releases 400] [--seed 1]
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import judge_paths as paths
from judge_traffic import COMES, ERRORS, Effect, Floats, Ints, Population, Visits, visits

from assay.release.judge.judge import GUARDS
from assay.release.schema import BusinessTest, Judge

NO_EFFECT = Effect()
SETTINGS = Judge(business=BusinessTest())
RAMP = (0.01, 0.1, 0.5)
METRICS = ("errors", "latency", "business")
OTHERS = {
    "fixed": "minute with over twice the usual share of failed requests, at the 5th",
    "z-test": "z-test of all requests so far, each minute, at 5%",
    "requests": "this judge's test of errors, fed with every failed request",
}


@dataclass(frozen=True)
class Scenario:
    shares: tuple[float, ...] = RAMP
    effect: Effect = NO_EFFECT
    users: int = 15_000
    """Of the population; four in five come in each step."""
    seconds: float = 600.0
    """Of each step."""

    @property
    def arrivals(self) -> float:
        """Users a second."""
        return COMES * self.users / self.seconds


@dataclass(frozen=True)
class Seen:
    """Seconds since the step began, `[steps, releases]`, infinite where it never happened."""

    back: dict[str, Floats] = field(default_factory=dict)
    """Turned back, by metric and by other judges."""
    shown: dict[str, Floats] = field(default_factory=dict)
    """No worse within the margin, by metric."""

    def turned_back(self, names: Sequence[str]) -> float:
        """Share of releases that are, in any step, by any of these."""
        return float(np.any([np.isfinite(self.back[name]).any(axis=0) for name in names], axis=0).mean())


def drawn(scenario: Scenario, rng: np.random.Generator) -> tuple[Ints, list[Visits]]:
    """One release: the buckets of its users, and its steps."""
    population = Population.drawn(scenario.users, rng)
    steps = [visits(population, share, scenario.seconds, scenario.effect, rng) for share in scenario.shares]
    return population.bucket, steps


def simulate(
    scenario: Scenario,
    releases: int,
    rng: np.random.Generator,
    metrics: Sequence[str] = METRICS,
    *,
    margins: bool = False,
    others: bool = False,
    settings: Judge = SETTINGS,
) -> Seen:
    """margins: whether "no worse" is tested too; others: whether the other judges look at the same requests."""
    found: list[Seen] = []
    made = [drawn(scenario, rng) for _ in range(releases)]
    level = (1 - GUARDS) * settings.level / (len(METRICS) * len(RAMP))
    for number, share in enumerate(scenario.shares):
        low = scenario.shares[number - 1] if number else 0.0
        steps = [(bucket, visited[number]) for bucket, visited in made]
        seen = [
            paths.compared(one, low, bucket, scenario.seconds, settings.user_seconds) for bucket, one in steps
        ]
        back = dict(_turned_back(seen, metrics, level, settings))
        if others:
            back |= _by_others([one for _, one in steps], share, scenario.seconds, settings)
        found.append(Seen(back, dict(_shown(seen, metrics, settings)) if margins else {}))
    return Seen(
        {name: np.stack([one.back[name] for one in found]) for name in found[0].back},
        {name: np.stack([one.shown[name] for one in found]) for name in found[0].shown},
    )


def _turned_back(
    seen: Sequence[paths.Compared], metrics: Sequence[str], level: float, settings: Judge
) -> Iterator[tuple[str, Floats]]:
    share = seen[0].share
    assert settings.latency is not None
    if "errors" in metrics:
        yield "errors", paths.label_test([one.first_errors for one in seen], share, level)
    if "latency" in metrics:
        slow = [paths.slow_shares(*one.latencies, settings.latency.quantile) for one in seen]
        yield "latency", paths.score_test(slow, share, level)
    if "business" in metrics:
        yield "business", paths.score_test([_harm(one) for one in seen], share, level)


def _shown(
    seen: Sequence[paths.Compared], metrics: Sequence[str], settings: Judge
) -> Iterator[tuple[str, Floats]]:
    share, error = seen[0].share, settings.level
    assert settings.latency is not None and settings.business is not None
    if "errors" in metrics:
        windows = [one.windows[:3] for one in seen]
        yield "errors", paths.margin_test(windows, share, error, settings.error_margin)
    if "latency" in metrics:
        asked = settings.latency
        yield (
            "latency",
            np.array([paths.no_slower(one.latencies, asked.quantile, error, asked.margin) for one in seen]),
        )
    if "business" in metrics:
        yield (
            "business",
            paths.margin_test([_harm(one) for one in seen], share, error, settings.business.margin),
        )


def _harm(one: paths.Compared) -> tuple[Floats, paths.Bools, Floats]:
    times, labels, _, values = one.windows
    told = ~np.isnan(values)
    return times[told], labels[told], 1 - values[told]


def _by_others(steps: Sequence[Visits], share: float, duration: float, settings: Judge) -> dict[str, Floats]:
    events = [paths.every_error(one, duration) for one in steps]
    return {
        "fixed": np.array([paths.fixed_threshold(one, duration, 2 * ERRORS, checks=5) for one in steps]),
        "z-test": np.array([paths.z_test(one, duration, settings.level) for one in steps]),
        "requests": paths.label_test(events, share, (1 - GUARDS) * settings.level / len(RAMP)),
    }


def interval(share: float, count: int) -> str:
    """With a 95% Wilson interval."""
    z = 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return f"{100 * share:.1f}% ({100 * max(0, middle - half):.1f}–{100 * (middle + half):.1f})"


def when(times: Floats) -> str:
    """Median and nine tenths of the time in minutes, where so many releases have one."""
    shares = [f"{np.quantile(times, level) / 60:.1f}" if np.isfinite(times).mean() >= level else "—"
              for level in (0.5, 0.9)]  # fmt: skip
    return f"{shares[0]} / {shares[1]}"


def identical(releases: int, seed: int) -> None:
    print(
        "| identical versions | users a second | errors | latency | business | any | "
        + " | ".join(OTHERS)
        + " |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for shares in (*((share,) for share in RAMP), RAMP):
        scenario = Scenario(shares)
        seen = simulate(scenario, releases, np.random.default_rng([seed, len(shares)]), others=True)
        cells = [interval(seen.turned_back([name]), releases) for name in METRICS]
        cells += [interval(seen.turned_back(METRICS), releases)]
        cells += [interval(seen.turned_back([name]), releases) for name in OTHERS]
        print(f"| {named(shares)} | {scenario.arrivals:g} | {' | '.join(cells)} |", flush=True)


EFFECTS = (
    ("errors ×2", "errors", Effect(errors=2)),
    ("errors ×4", "errors", Effect(errors=4)),
    ("errors ×10", "errors", Effect(errors=10)),
    ("latency +20%", "latency", Effect(latency=1.2)),
    ("latency +50%", "latency", Effect(latency=1.5)),
    ("latency ×2", "latency", Effect(latency=2)),
    ("business −5%", "business", Effect(value=0.95)),
    ("business −20%", "business", Effect(value=0.8)),
)


def detection(releases: int, seed: int) -> None:
    print("| candidate | " + " | ".join(f"at {share:.0%}" for share in RAMP) + " |\n|---|--:|--:|--:|")
    for name, metric, effect in EFFECTS:
        cells = []
        for share in RAMP:
            scenario = Scenario((share,), effect, users=45_000, seconds=1800)
            rng = np.random.default_rng([seed, int(100 * share)])
            seen = simulate(scenario, releases, rng, (metric,)).back[metric][0]
            cells.append(f"{when(seen)} ({np.isfinite(seen).mean():.0%})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


SHOWN = (
    ("identical", Effect(), "all"),
    ("users with an error: worse by the margin", Effect(errors=2.6), "errors"),
    ("latency: worse by the margin", Effect(latency=1.2), "latency"),
    ("business: worse by the margin", Effect(value=0.96), "business"),
)


def promotion(releases: int, seed: int) -> None:
    print("| candidate | shown to be no worse | " + " | ".join(f"at {share:.0%}" for share in RAMP)
          + " |\n|---|---|--:|--:|--:|")  # fmt: skip
    for name, effect, asked in SHOWN:
        for metric in METRICS if asked == "all" else (asked,):
            cells = []
            for share in RAMP:
                scenario = Scenario((share,), effect, users=45_000, seconds=1800)
                rng = np.random.default_rng([seed, int(100 * share)])
                seen = simulate(scenario, releases, rng, (metric,), margins=True).shown[metric][0]
                found = float(np.isfinite(seen).mean())
                cells.append(f"{when(seen)} ({found:.0%})" if asked == "all" else interval(found, releases))
            print(f"| {name} | {metric} | {' | '.join(cells)} |", flush=True)


def named(shares: Sequence[float]) -> str:
    return " → ".join(f"{share:.0%}" for share in shares)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--releases", type=int, default=400, help="simulated releases per line of identical versions"
    )
    parser.add_argument("--effects", type=int, default=100, help="per cell of the other tables")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation")
    arguments = parser.parse_args(argv)
    identical(arguments.releases, arguments.seed)
    print()
    detection(arguments.effects, arguments.seed)
    print()
    promotion(arguments.effects, arguments.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
