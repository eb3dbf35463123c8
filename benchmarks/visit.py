"""What the harness adds to a visit of the profile: everything but the samples themselves.

    python benchmarks/visit.py [--against FOLDER] [--rounds 5] …

A block of the default experiment is profiled by the entry point that the workflow starts. Times come from the block's own
record and from the marks among its telemetry; `start` is from the start of the visit's process to its first measurement
(imports, data, model, first call, sampler), `between` lies between two measurements, `end` is from the last one to the
next step of the block, and `block` is what the job does outside of its visits. --against: another checkout of Assay that
takes turns with this one; the ratio is of medians over visits, its interval a bootstrap over rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from assay.config.arm import spec_of  # noqa: E402
from assay.config.load import load  # noqa: E402
from assay.data.prepare import prepare  # noqa: E402

PARTS = ("start", "between", "end", "block")

Parts = dict[str, float]


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def profile(checkout: Path, folder: Path, options: argparse.Namespace) -> Parts:
    """One block: seconds of each part, per visit."""
    experiment = load(REPOSITORY / "config" / "config.yaml")
    arms = {name: spec_of(arm) for name, arm in experiment.arms.items()}
    settings = experiment.profile.model_dump(mode="json", include={"batch_sizes", "training_steps"})
    settings |= {"seconds": options.seconds, "warmup_seconds": options.seconds, "gates": {"repeats": 0}}
    settings |= {"largest_batch": {"enabled": False}}  # a measurement without marks
    with tempfile.TemporaryDirectory(dir=folder) as name:
        records = [Path(name) / "block-0" / arm / "record.json" for arm in arms]
        command = [
            *(sys.executable, "-P", str(checkout / "workflow" / "scripts" / "profile.py")),
            *("--experiment", "speed", "--block", "0", "--output", str(Path(name) / "block-0")),
            *("--settings", json.dumps({"arms": arms, "profile": settings})),
            *("--data", str(folder / "data"), "--telemetry", "0.1"),
        ]
        environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
        began = time.time()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        ended = time.time()
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return parts_of(records, ended - began)


def parts_of(records: list[Path], seconds: float) -> Parts:
    """Medians over visits, from the last attempt at the block; `block` is over all of it, per visit."""
    found: dict[str, list[float]] = {part: [] for part in PARTS[:3]}
    inside = count = 0.0
    for path in records:
        record = json.loads(path.read_text())
        lines = [json.loads(line) for line in (path.parent / "telemetry.jsonl").read_text().splitlines()]
        attempts = record["attempts"]
        for visit in record["details"]["visits"]:
            marks = [
                (line["event"], moment(line["timestamp"]))
                for line in lines
                if line.get("visit") == visit["position"]
                and line.get("attempt") == attempts
                and line["event"] in ("before", "after")
            ]
            times = [at for _, at in marks]
            measured = sum(b - a for (_, a), (_, b) in zip(marks[::2], marks[1::2], strict=True))
            started, finished = moment(visit["started"]), moment(visit["finished"])
            found["start"].append(times[0] - started)
            found["between"].append(times[-1] - times[0] - measured)
            found["end"].append(finished - times[-1])
            inside += (finished - started) * attempts
            count += 1
    medians = {part: statistics.median(values) for part, values in found.items()}
    return medians | {"block": (seconds - inside) / count}


def measure(options: argparse.Namespace) -> dict[str, list[Parts]]:
    """Per checkout, the parts in each round."""
    checkouts = {"this checkout": REPOSITORY}
    if options.against is not None:
        checkouts["the other"] = options.against.resolve()
    found: dict[str, list[Parts]] = {name: [] for name in checkouts}
    with tempfile.TemporaryDirectory(prefix="assay-visits-") as place:
        folder = Path(place)
        prepare(load(REPOSITORY / "config" / "config.yaml").data, folder / "data", module_roots=[])
        for number in range(options.rounds):
            for name in list(checkouts)[:: 1 if number % 2 else -1]:
                found[name].append(profile(checkouts[name], folder, options))
                print(f"visits, round {number + 1}: {name}: {sum_of(found[name][-1]):.2f} s", file=sys.stderr)
    return found


def sum_of(parts: Parts) -> float:
    return sum(parts.values())


def ratio(ours: list[Parts], theirs: list[Parts]) -> tuple[float, float, float]:
    """Of the medians over rounds of what is added in all, with a 95% percentile bootstrap over rounds."""
    one, two = (np.array([sum_of(parts) for parts in side]) for side in (ours, theirs))
    drawn = np.random.default_rng(0).integers(0, len(one), (10_000, len(one)))
    low, high = np.quantile(np.median(one[drawn], 1) / np.median(two[drawn], 1), [0.025, 0.975])
    return float(np.median(one) / np.median(two)), float(low), float(high)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout of Assay")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.1, help="of each measurement")


def print_table(found: dict[str, list[Parts]]) -> None:
    print("\nseconds that the harness adds to a visit (median over rounds)")
    print(f"{'':<20}" + "".join(f"{part:>10}" for part in (*PARTS, "all")))
    for name, rounds in found.items():
        values = [statistics.median(parts[part] for parts in rounds) for part in PARTS]
        values.append(statistics.median(sum_of(parts) for parts in rounds))
        print(f"{name:<20}" + "".join(f"{value:>10.2f}" for value in values))
    if len(found) == 2:
        middle, low, high = ratio(*found.values())
        print(f"this checkout / the other: {middle:.3f}   [{low:.3f}, {high:.3f}]")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    print_table(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
