"""What the sampler costs: training throughput with it and without it, and its start.

    python benchmarks/telemetry.py [--rounds 100] [--share]

One process trains a small network on random images with one thread, bound to one CPU. Short slices alternate: the sampler
goes on, or is stopped by a signal. The ratio is that of a pair of slices next to each other; the table shows the median
of many, with its 95% interval, which tells what it can resolve on this machine. What the sampler's process itself
consumed is told too: a job that uses every core pays about that (`--share` puts both on one CPU).
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

import torch  # noqa: E402
from torch import nn  # noqa: E402

from assay.telemetry import beside  # noqa: E402
from assay.telemetry.beside import Sampler  # noqa: E402

AIM = 0.005


def steps_per_second(model: nn.Module, seconds: float) -> float:
    images, labels = torch.randn(64, 1, 8, 8), torch.randint(10, (64,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        steps += 1
    return steps / (time.perf_counter() - began)


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def pairs(options: argparse.Namespace, path: Path) -> tuple[list[float], float]:
    """Ratios of throughput with a sampler to that with the same sampler stopped; its CPU seconds per second."""
    ratios, used, watched_seconds = [], 0.0, 0.0
    with Sampler(path, interval=options.interval) as sampler:
        assert sampler._process is not None
        pid = sampler._process.pid
        time.sleep(0.5)  # its start is told apart
        os.sched_setaffinity(pid, os.sched_getaffinity(0))
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        if options.share:
            os.sched_setaffinity(pid, os.sched_getaffinity(0))
        model = network()
        steps_per_second(model, 1.0)
        for number in range(options.rounds):
            pace = {}
            for watched in (False, True) if number % 2 == 0 else (True, False):
                os.kill(pid, signal.SIGCONT if watched else signal.SIGSTOP)
                before = cpu_seconds(pid)
                pace[watched] = steps_per_second(model, options.seconds)
                used += cpu_seconds(pid) - before
                watched_seconds += options.seconds * watched
            ratios.append(pace[True] / pace[False])
        os.kill(pid, signal.SIGCONT)
    return ratios, used / watched_seconds


def interval_of_median(values: list[float]) -> tuple[float, float]:
    """About 95%, from order statistics (normal approximation of the binomial)."""
    ordered, reach = sorted(values), 0.98 * len(values) ** 0.5
    middle = (len(ordered) - 1) / 2
    return ordered[max(int(middle - reach), 0)], ordered[min(int(middle + reach) + 1, len(ordered) - 1)]


def starts(count: int = 20) -> tuple[float, float]:
    """Medians: seconds for which the job waits for the start; CPU seconds that the new process needs."""
    with tempfile.TemporaryDirectory() as folder:
        waits = []
        for number in range(count):
            began = time.perf_counter()
            sampler = Sampler(Path(folder) / f"{number}.jsonl", interval=0.1)
            waits.append(time.perf_counter() - began)
            sampler.stop()
    began = os.times()
    for _ in range(count):
        subprocess.run(beside._command(False), input=b'{"job": 0}\n', check=True)
    ended = os.times()
    used = ended.children_user + ended.children_system - began.children_user - began.children_system
    return median(waits), used / count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--interval", type=float, default=0.1)
    parser.add_argument(
        "--share", action="store_true", help="the sampler on the training's own CPU: the worst that can be"
    )
    options = parser.parse_args()
    wait, used = starts()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ratios, cost = pairs(options, Path(folder) / "telemetry.jsonl")
    low, high = interval_of_median(ratios)
    place = "the training's own CPU" if options.share else "any CPU"
    print(f"sampler every {options.interval:g} s on {place}, {options.rounds} pairs of {options.seconds:g} s")
    print(
        f"throughput with it / without    {median(ratios):.4f}   [{low:.4f}, {high:.4f}], aim: above {1 - AIM:.3f}"
    )
    print(f"CPU time of the sampler         {cost:.4%} of one CPU   (aim: below {AIM:.1%})")
    print(
        f"start: the job waits            {wait * 1e3:.2f} ms; the process needs {used * 1e3:.1f} ms of CPU time"
    )


if __name__ == "__main__":
    main()
