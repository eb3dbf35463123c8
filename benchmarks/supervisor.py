"""What watching a job costs: jobs below a supervisor against the same jobs alone.

    python benchmarks/supervisor.py [--rounds 7]

Two kinds of job, rounds alternating: one that does nothing, in a fresh interpreter, which shows what it costs to start and
end; one that adds and multiplies arrays for seconds, which shows what looking at it costs while it runs. The table
shows medians and ratios.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).parents[1]

JOB = """
import sys
from argparse import Namespace
from pathlib import Path
from assay.isolation.supervisor import supervise
import numpy as np
bounds = {"memory_mb": 2000, "processes": 512} if sys.argv[1] == "watched" else {"memory_mb": None, "processes": None}
supervise(Namespace(**bounds, at_memory_bound="result"), Path(sys.argv[2]), {"threads": 1, "device": "cpu"})
for seed in range(int(sys.argv[3])):
    values = np.random.default_rng(seed).random(1 << 20)
    for _ in range(20):
        values = values * 0.5 + 0.25
"""
JOBS = {"nothing": 0, "arithmetic": 240}
WAYS = ("alone", "watched")


def seconds(way: str, repeats: int, folder: str) -> float:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "OPENBLAS_NUM_THREADS": "1"}
    began = time.perf_counter()
    command = [sys.executable, "-c", JOB, way, folder, str(repeats)]
    subprocess.run(command, env=environment, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"{'job':<12} {'alone (s)':>10} {'watched (s)':>12} {'ratio':>6}")
    for job, repeats in JOBS.items():
        found: dict[str, list[float]] = {way: [] for way in WAYS}
        with tempfile.TemporaryDirectory() as folder:
            for number in range(rounds):
                for way in WAYS if number % 2 else reversed(WAYS):
                    found[way].append(seconds(way, repeats, folder))
        alone, watched = (median(found[way]) for way in WAYS)
        print(f"{job:<12} {alone:>10.2f} {watched:>12.2f} {watched / alone:>6.2f}")


if __name__ == "__main__":
    main()
