"""What sharing brings: the time of K small trainings that share one device, over their time one after another.

    python benchmarks/sharing.py [--runs 4] [--epochs 40] [--rounds 3] [--device auto]

Both sides start Assay's own entry point, once for each seed, with bounds, log and telemetry: in one, each process begins when
the one before has ended; in the other all begin at once, each at its place (`bounds.runs_per_gpu`). Rounds alternate. The weights
of every seed must be the same on both sides. On a CPU the device is one core: there is nothing idle on it that
sharing could use, so a ratio of about 1 is what taking turns itself costs, and says nothing of a GPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from assay.config.arm import Arm  # noqa: E402
from assay.config.schema import Data  # noqa: E402
from assay.data.prepare import prepare  # noqa: E402
from assay.isolation.places import share  # noqa: E402
from assay.records import Record  # noqa: E402


def command(folder: Path, data: Path, seed: int, options: argparse.Namespace, runs: int) -> list[str]:
    arm = Arm.model_validate(
        {
            "model": {"source": options.model},
            "training": {
                "epochs": options.epochs,
                "optimizer": {"name": "sgd", "learning_rate": 0.05},
            },
            "execution": {"device": options.device},
        }
    )
    return [
        *(sys.executable, "-P", str(REPOSITORY / "workflow/scripts/train.py")),
        *("--experiment", "sharing", "--arm", "small", "--seed", str(seed)),
        *("--settings", json.dumps(arm.model_dump(mode="json")), "--manifest", str(data / "manifest.json")),
        *("--record", str(folder / f"seed-{seed}" / "train" / "record.json"), "--telemetry", "0.1"),
        *("--processes", "auto", "--runs-per-gpu", str(runs)),
    ]


def start(words: list[str]) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stdout=sys.stderr)


def total(folder: Path, data: Path, options: argparse.Namespace, *, shared: bool) -> tuple[float, list[str]]:
    """Seconds from the first start to the last end, and the checksum of each seed's weights."""
    runs = options.runs if shared else 1
    commands = [command(folder, data, seed, options, runs) for seed in range(options.runs)]
    began = time.perf_counter()
    if shared:
        ended = [process.wait() for process in [start(words) for words in commands]]
    else:
        ended = [start(words).wait() for words in commands]
    seconds = time.perf_counter() - began
    if any(ended):
        sys.exit(f"a training ended with status {max(ended)}; the messages above say why")
    records = [Record.read(folder / f"seed-{seed}" / "train" / "record.json") for seed in range(options.runs)]
    failed = next((record for record in records if record.outcome != "completed"), None)
    if failed is not None:
        sys.exit(f"seed {failed.seed}: {failed.outcome}: {failed.message}")
    return seconds, [record.weights_sha256 or "" for record in records]


def measure(options: argparse.Namespace) -> list[tuple[float, float]]:
    """Seconds of each round: one after another, shared. Ends the program where weights differ."""
    if options.device == "cpu":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    else:
        share()
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "data"
        prepare(Data(source="digits"), data, module_roots=[])
        for number in range(options.rounds):
            seconds, weights = {}, {}
            for shared in (False, True) if number % 2 else (True, False):
                folder = Path(temporary) / f"round-{number}-{shared}"
                seconds[shared], weights[shared] = total(folder, data, options, shared=shared)
            if weights[True] != weights[False]:
                sys.exit(f"weights differ between runs that shared and runs that did not: {weights}")
            found.append((seconds[False], seconds[True]))
    return found


def lines(found: list[tuple[float, float]], options: argparse.Namespace) -> list[str]:
    """As Markdown."""
    alone, shared = (median(one[side] for one in found) for side in range(2))
    ratios = sorted(one / other for one, other in found)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "one CPU core"
    return [
        f"{options.runs} trainings of `{options.model}`, {options.epochs} epochs of the digits each, on {device}; {len(found)} rounds.",
        "",
        "| one after another (s) | sharing (s) | times as fast, median and range |",
        "|--:|--:|--:|",
        f"| {alone:.1f} | {shared:.1f} | {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |",
        "",
        "The weights of every seed were the same on both sides.",
    ]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs", type=int, default=4, metavar="K", help="trainings, and places of the device"
    )
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="builtin:cnn")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args()
    if options.runs < 2:
        parser.error("--runs: two share at least")
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    print("\n".join(lines(measure(options), options)))


if __name__ == "__main__":
    main()
