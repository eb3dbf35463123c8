"""How often drift is reported where there is none, and how soon where it was put in.

Prints the table of docs/drift.md: shares of simulated releases in which anything, and each kind, is reported.

    PYTHONPATH=src python benchmarks/drift_simulation.py [--releases 200] [--effects 20] [--seed 1]
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from assay.release.bundle.reference import Reference, reference
from assay.release.drift.monitor import Drift
from assay.release.observations import Prediction
from assay.release.schema import Drift as Settings

SIDE, CLASSES = 8, 5
MOST_REQUESTS = 20
KINDS = ("inputs", "predictions", "change")


@dataclass(frozen=True)
class Effect:
    """What differs from the training data, or from the stable version."""

    brighter: float = 0.0
    """Added to every pixel, of 255."""
    classes: tuple[float, ...] = (1 / CLASSES,) * CLASSES
    confidence: float = 0.0
    """Added to the highest score."""


NONE = Effect()


def images(count: int, rng: np.random.Generator, brighter: float = 0.0) -> np.ndarray:
    """Bright spots on black: many values are equal, as in handwritten digits."""
    found = rng.integers(0, 256, (count, SIDE, SIDE, 1)).astype(np.float64)
    found[rng.random(found.shape) < 0.6] = 0
    return np.clip(found + brighter, 0, 255).astype(np.uint8)


def made_reference(rng: np.random.Generator, count: int = 2000) -> Reference:
    return reference(images(count, rng), rng.dirichlet(np.ones(CLASSES), count))


def lines(
    users: int,
    rng: np.random.Generator,
    effect: Effect = NONE,
    *,
    role: str = "candidate",
    begin: float = 0.0,
    most: int = MOST_REQUESTS,
) -> list[Prediction]:
    """One user a second; each has one image, asks up to `most` times (Pareto), and gets the same answer each time."""
    flat = images(users, rng, effect.brighter).reshape(users, -1).astype(np.float32)
    summaries = [flat.mean(1), flat.std(1), flat.min(1), flat.max(1)]
    predicted = rng.choice(CLASSES, users, p=effect.classes)
    values = np.clip(rng.beta(5, 2, users) + effect.confidence, 0, 1)
    requests = np.minimum(most, 1 + rng.pareto(1.2, users).astype(np.int64))
    found: list[Prediction] = []
    for number in range(users):
        one = [round(float(summary[number]), 6) for summary in summaries]
        line = _line(
            begin + number, f"{role}{begin}{number}", role, one, int(predicted[number]), float(values[number])
        )
        found += [line] * int(requests[number])
    return found


def _line(
    timestamp: float, user: str, role: str, inputs: list[float], predicted: int, value: float
) -> Prediction:
    return {
        "timestamp": timestamp,
        "request_id": "",
        "model_version": "1",
        "status": 200,
        "latency_ms": 1.0,
        "queue_ms": None,
        "batch_size": 1,
        "user": user,
        "assigned": role,
        "route": "split",
        "shadow": False,
        "input_shape": [1, SIDE, SIDE, 1],
        "input_digest": "",
        "input_mean": [inputs[0]],
        "input_std": [inputs[1]],
        "input_min": [inputs[2]],
        "input_max": [inputs[3]],
        "output_class": [predicted],
        "output_value": [value],
        "non_finite": 0,
    }


def side_by_side(
    drift: Drift, stable: list[Prediction], candidate: list[Prediction], every: int = 50
) -> None:
    """Both versions' lines in turns, as they are read while both serve."""
    for begin in range(0, max(len(stable), len(candidate)), every):
        drift.feed("stable", stable[begin : begin + every])
        drift.feed("candidate", candidate[begin : begin + every])


def watched(
    users: int,
    rng: np.random.Generator,
    settings: Settings,
    candidate: Effect = NONE,
    stable: Effect = NONE,
    before: int = 0,
) -> Drift:
    """before: users of either version that come before there is any effect."""
    drift = Drift(settings, made_reference(rng))
    if before:
        side_by_side(
            drift, lines(before, rng, role="stable", begin=-before), lines(before, rng, begin=-before)
        )
    side_by_side(drift, lines(users, rng, stable, role="stable"), lines(users, rng, candidate))
    return drift


SCENARIOS = {
    "none": (NONE, NONE),
    "inputs brighter by 10 of 255": (Effect(brighter=10), Effect(brighter=10)),
    "inputs brighter by 40 of 255": (Effect(brighter=40), Effect(brighter=40)),
    "a class of the candidate's at 30% for 20%": (Effect(classes=(0.3, 0.175, 0.175, 0.175, 0.175)), NONE),
    "a class of the candidate's at 60% for 20%": (Effect(classes=(0.6, 0.1, 0.1, 0.1, 0.1)), NONE),
    "the candidate's confidence lower by 0.1": (Effect(confidence=-0.1), NONE),
    "the candidate's confidence lower by 0.3": (Effect(confidence=-0.3), NONE),
}


def rows(silent: int, effects: int, seed: int) -> Iterator[str]:
    by_default, by_chance = Settings(), Settings(level=0.05, psi=1e-9)
    for name, (candidate, stable) in SCENARIOS.items():
        tried, releases = {"as set by default": by_default}, effects
        if name == "none":
            tried["level 5%, any PSI"], releases = by_chance, silent
        for how, settings in tried.items():
            found = [
                watched(2500, np.random.default_rng([seed, number]), settings, candidate, stable, before=1000)
                for number in range(releases)
            ]
            kinds = [{one.kind for one in drift.findings} for drift in found]
            cells = [f"{np.mean([kind in seen for seen in kinds]):.1%}" for kind in KINDS]
            first = [min(one.timestamp for one in drift.findings) for drift in found if drift.findings]
            after = f"{np.median(first):.0f}" if len(first) > releases / 2 else "—"
            yield f"| {name} | {how} | {' | '.join(cells)} | {np.mean([bool(seen) for seen in kinds]):.1%} | {after} |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", type=int, default=200, help="simulated releases without drift")
    parser.add_argument("--effects", type=int, default=20, help="per line with drift")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation")
    arguments = parser.parse_args(argv)
    print("| drift | settings | inputs | predictions | change | anything | users until the first |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for row in rows(arguments.releases, arguments.effects, arguments.seed):
        print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
