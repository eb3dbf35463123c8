"""A model against itself, many times: how often it comes out `better` or `worse`, with and without its noise floor.

Prints the tables of docs/noise.md. Simulated noise goes through the functions that comparisons use, whole experiments
through the judge itself; `--real N` measures a network against itself on this machine, N comparisons long.

    PYTHONPATH=src python benchmarks/same_model.py [--repetitions 4000] [--experiments 1000] [--real 200] [--seed 1]
"""

import argparse
import os
import random
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from assay.comparison import statistics
from assay.comparison.collect import Collected, Replicate
from assay.comparison.question import Question
from assay.comparison.verdict import Judge
from assay.config.schema import Experiment
from assay.profiling.order import visit_order
from assay.records import Measurement

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, ...]], Floats]
ALPHA = 0.05
RESAMPLES = 2000


def _drifting(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Blocks that resemble the one before (autoregressive, 0.5)."""
    noise = rng.normal(size=shape)
    for block in range(1, shape[-1]):
        noise[..., block] = 0.5 * noise[..., block - 1] + 0.75**0.5 * noise[..., block]
    return noise


def _bursts(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """One pair in twenty is ten times as far off."""
    return rng.normal(size=shape) * np.where(rng.random(shape) < 0.05, 10, 1)


NOISES: dict[str, tuple[Noise, float]] = {
    # The noise of paired differences, standard deviation about 1; and by what the second self is set apart throughout.
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "of skewed times (exponential)": (
        lambda rng, shape: (rng.exponential(size=shape) - rng.exponential(size=shape)) / 2**0.5,
        0.0,
    ),
    "heavy tails (Student t, 3)": (lambda rng, shape: rng.standard_t(3, size=shape) / 3**0.5, 0.0),
    "bursts": (_bursts, 0.0),
    "few values (rounded)": (lambda rng, shape: np.round(rng.normal(size=shape)), 0.0),
    "blocks resemble each other": (_drifting, 0.0),
    "the second self 1 sd slower": (lambda rng, shape: rng.normal(size=shape), 1.0),
    "the second self 3 sd slower": (lambda rng, shape: rng.normal(size=shape), 3.0),
}


@dataclass(frozen=True)
class Row:
    """Shares of repetitions."""

    beyond: float
    """A later comparison of the model with itself is beyond the floor."""
    unguarded: float
    """... is `better` or `worse` by test and interval alone."""
    guarded: float
    """... is `better` or `worse` where its difference must be beyond the floor too."""
    found: float
    """A model that differs by two standard deviations is told apart without the floor; its second self is not set apart."""
    found_guarded: float


def simulate(noise: str, own: int, compared: int, *, repetitions: int, seed: int) -> Row:
    """A floor from `own` pairs, held against comparisons of `compared` pairs."""
    draw, apart = NOISES[noise]
    rng = np.random.default_rng([seed, own, compared])
    floor = statistics.noise_floor(draw(rng, (repetitions, own)) + apart, compared, alpha=ALPHA)
    again = draw(rng, (repetitions, compared)) + apart
    beyond = np.abs(again.mean(axis=-1)) > floor
    unguarded, found = told_apart(again), told_apart(again - apart + 2)
    reached = np.abs((again - apart + 2).mean(axis=-1)) > floor
    return Row(
        beyond=float(beyond.mean()),
        unguarded=float(unguarded.mean()),
        guarded=float((unguarded & beyond).mean()),
        found=float(found.mean()),
        found_guarded=float((found & reached).mean()),
    )


def told_apart(differences: Floats) -> NDArray[np.bool_]:
    """Whether test and interval find a difference: `[..., n]` to `[...]`."""
    low, high = statistics.bca_interval(differences, confidence=1 - ALPHA, resamples=RESAMPLES)
    tested: NDArray[np.bool_] = (statistics.sign_flip_p(differences) <= ALPHA) & ((low > 0) | (high < 0))
    return tested


# --- whole experiments ----------------------------------------------------------------------------------


BY_SEED = ("accuracy", "loss", "macro_f1")
BY_BLOCK = ("latency_ms", "training_throughput", "peak_memory_mb")


def experiment(arms: int, pairs: int) -> Experiment:
    """One network under several names."""
    return Experiment.model_validate(
        {
            "name": "same",
            "baseline": "net-0",
            "factors": ["model"],
            "arms": {f"net-{arm}": {"model": {"source": "builtin:mlp"}} for arm in range(arms)},
            "data": {"source": "digits"},
            "seeds": list(range(pairs)),
            "metrics": [{"name": name} for name in (*BY_SEED, *BY_BLOCK)],
            "profile": {"blocks": pairs},
            "comparison": {"resamples": RESAMPLES},
        }
    )


def families(arms: int, pairs: int, *, experiments: int, seed: int) -> dict[str, float]:
    """Share of experiments with any `better` or `worse`, by family, as the judge has it: all arms are one."""
    asked = experiment(arms, pairs)
    rng = np.random.default_rng([seed, arms, pairs])
    claimed = {"seed": 0, "block": 0}
    for _ in range(experiments):
        runs = _replicates(asked, "seed", BY_SEED, rng, pairs)
        collected = Collected(runs, _replicates(asked, "block", BY_BLOCK, rng, pairs), [], [])
        results = Judge(Question.of(asked), collected).results()
        for family in claimed:
            words = {line.verdict for one in results if one.pairing == family for line in one.contrasts}
            claimed[family] += bool(words & {"better", "worse"})
    return {family: count / experiments for family, count in claimed.items()}


def _replicates(
    asked: Experiment, kind: str, metrics: tuple[str, ...], rng: np.random.Generator, pairs: int
) -> dict[tuple[str, int], Replicate]:
    """Values around one level, with what a seed or block has in common; what metrics of a run have in common is half."""
    found = {}
    for number in range(pairs):
        common = rng.normal(size=len(metrics))
        for arm in asked.arms:
            noise = common + (rng.normal() + rng.normal(size=len(metrics))) / 2**0.5
            replicate = Replicate(arm, "seed" if kind == "seed" else "block", number, "completed")
            replicate.metrics = {
                name: Measurement(unit="1", value=float(np.exp(0.02 * value)))
                for name, value in zip(metrics, noise, strict=True)
            }
            found[arm, number] = replicate
    return found


# --- this machine ---------------------------------------------------------------------------------------


def measured(comparisons: int, blocks: int, *, disturbed: bool, seed: int) -> dict[str, Floats]:
    """Log ratios `[comparisons, blocks]` of a small network to itself, really measured, by quantity.

    Each visit is a process of its own, in the order of profile blocks. disturbed: another process is busy on the same
    core for a random half of the time.
    """
    import torch

    threads, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {max(cores)})
    hog = _hog(seed) if disturbed else None
    found = {name: np.zeros((comparisons, blocks)) for name in ("latency, batch 1", "throughput, batch 64")}
    try:
        for comparison in range(comparisons):
            for block in range(blocks):
                times: dict[str, list[list[float]]] = {"first": [], "again": []}
                for name in visit_order(["first", "again"], block):
                    times[name].append(_visit())
                for index, values in enumerate(found.values()):
                    ours, theirs = (
                        median(visit[index] for visit in times[who]) for who in ("again", "first")
                    )
                    values[comparison, block] = np.log(ours / theirs)
    finally:
        if hog is not None:
            os.kill(hog, signal.SIGKILL)
            os.waitpid(hog, 0)
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
    return found


def _visit() -> list[float]:
    """Median seconds of a call at each batch size, from a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, struct.pack("2d", *_medians()))
        finally:
            os._exit(0)
    os.close(writer)
    content = os.read(reader, 16)
    os.close(reader)
    os.waitpid(child, 0)
    return list(struct.unpack("2d", content))


def _medians() -> list[float]:
    import torch

    from assay.profiling.timing import time_calls

    network = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)).eval()
    medians = []
    with torch.inference_mode():
        for size in (1, 64):
            images = torch.zeros(size, 64)
            cpu = torch.device("cpu")
            medians.append(
                median(
                    time_calls(
                        lambda x=images: network(x), cpu, warmup_seconds=0.002, seconds=0.01, samples=30
                    )
                )
            )
    return medians


def _hog(seed: int) -> int:
    """Busy for up to 0.2 s, idle for up to 0.2 s, and so on; it ends with this process."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    rng = random.Random(seed)
    while os.getppid() == parent:
        end = time.monotonic() + rng.uniform(0, 0.2)
        while time.monotonic() < end:
            pass
        time.sleep(rng.uniform(0, 0.2))
    os._exit(0)


def real(comparisons: int, *, seed: int) -> list[str]:
    """Rows: each comparison has the floor of the one before it."""
    rows = []
    for disturbed in (False, True):
        for name, ratios in measured(comparisons + 1, 6, disturbed=disturbed, seed=seed).items():
            unguarded = told_apart(ratios[1:])
            floor = statistics.noise_floor(ratios[:-1], 6, alpha=ALPHA)
            beyond = np.abs(ratios[1:].mean(axis=-1)) > floor
            numbers = (beyond.mean(), unguarded.mean(), (unguarded & beyond).mean())
            rows.append(
                f"| {name} | {'another process on the core' if disturbed else 'nothing planted'} | {comparisons} | "
                f"{100 * np.expm1(np.median(floor)):.2g}% | "
                + " | ".join(f"{100 * x:.1f}%" for x in numbers)
                + " |"
            )
    return rows


PAIRS = ((6, 6), (12, 6), (30, 30))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=4000, help="simulated comparisons per line")
    parser.add_argument("--experiments", type=int, default=1000, help="simulated experiments per line")
    parser.add_argument("--real", type=int, default=200, help="comparisons really measured; 0: none")
    parser.add_argument("--seed", type=int, default=1, help="seed of the simulation")
    arguments = parser.parse_args(argv)
    print("| noise | pairs of the floor | pairs compared | beyond the floor | `better` or `worse`, no floor "
          "| `better` or `worse`, with it | 2 sd found, no floor | 2 sd found, with it |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for noise in NOISES:
        for own, compared in PAIRS:
            row = simulate(noise, own, compared, repetitions=arguments.repetitions, seed=arguments.seed)
            numbers = (row.beyond, row.unguarded, row.guarded, row.found, row.found_guarded)
            print(
                f"| {noise} | {own} | {compared} | " + " | ".join(f"{100 * x:.1f}%" for x in numbers) + " |"
            )
    print("\n| arms, all one network | seeds and blocks | any `better` or `worse` by seed | by block |")
    print("|--:|--:|--:|--:|")
    for arms, pairs in ((2, 6), (2, 10), (4, 8), (4, 10)):
        shares = families(arms, pairs, experiments=arguments.experiments, seed=arguments.seed)
        print(
            f"| {arms} | {pairs} | {100 * shares['seed']:.1f}% | {100 * shares['block']:.1f}% |", flush=True
        )
    if arguments.real:
        print("\n| measured | machine | comparisons of 6 blocks | median floor | beyond the floor "
              "| `better` or `worse`, no floor | with it |")  # fmt: skip
        print("|---|---|--:|--:|--:|--:|--:|")
        print("\n".join(real(arguments.real, seed=arguments.seed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
