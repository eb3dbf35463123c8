"""What a look of `assay watch` costs: 500 runs, 100 MB of log and as much of telemetry for each of those under way.

    python benchmarks/watching.py [--runs 500] [--going 20] [--megabytes 100]

Logs and records are written by the package's own writers; runs under way share one file by hard links, so that the disk need not
hold 100 MB for each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from assay.clock import now
from assay.config.arm import spec_of
from assay.config.load import from_mapping
from assay.config.resolve import spec_sha256
from assay.config.schema import Experiment
from assay.monitoring.view import render
from assay.monitoring.watcher import Watcher
from assay.records import Code, Environment, Log, Record

STEPS = 1000


def experiment_of(runs: int) -> Experiment:
    arms = {name: {"model": {"source": f"builtin:{name}"}} for name in ("mlp", "cnn")}
    content = {"name": "big", "factors": ["model"], "arms": arms, "data": {"source": "digits"}}
    return from_mapping(content | {"seeds": runs // 2, "training": {"epochs": 10_000}}, file="big.yaml")


def write_ended(experiment: Experiment, folder: Path, arm: str, seed: int) -> None:
    """The records of a run that has completed, with the history of a hundred epochs."""
    entry = {"step": STEPS, "train_loss": 0.1, "train_accuracy": 0.9, "validation_accuracy": 0.9}
    record = Record(
        stage="train",
        experiment="big",
        arm=arm,
        seed=seed,
        outcome="completed",
        started=now(),
        finished=now(),
        spec=spec_of(experiment.arms[arm]),
        spec_sha256=spec_sha256(experiment.arms[arm]),
        code=Code(version="1", sources_sha256="0"),
        environment=Environment(host="n1", platform="", python="", packages={}, cpu="", cpu_count=1),
        details={
            "epochs": 100,
            "steps_per_epoch": STEPS,
            "history": [{"epoch": epoch, **entry} for epoch in range(100)],
        },
    )
    for stage in ("train", "evaluate"):
        record.model_copy(update={"stage": stage}).write(folder / stage / "record.json")


def write_logs(folder: Path, megabytes: float) -> None:
    """A log and telemetry of that size, in the form of real ones."""
    path = folder / "log.jsonl"
    epoch = 0
    with Log(path, identity={"experiment": "big", "arm": "mlp", "seed": 0, "stage": "train"}) as log:
        log.write("started", epoch=0, epochs=10_000, steps_per_epoch=STEPS, device="cuda", ranks=1)
        while path.stat().st_size < megabytes * 1e6:
            for step in range(STEPS * epoch + 1, STEPS * (epoch + 1) + 1):
                log.write("step", step=step, epoch=epoch, loss=0.5, accuracy=0.5)
            log.write("epoch", step=STEPS * (epoch + 1), epoch=epoch, validation_accuracy=0.5)
            epoch += 1
            log.flush()
    gpu = {
        "uuid": "GPU-1",
        "utilization_percent": 98,
        "temperature_c": 70,
        "power_w": 690.0,
        "clock_reasons": 4,
    }
    cpu = {"load": 1.0, "busy_s": 1.0}
    with (folder / "telemetry.jsonl").open("w") as file:
        while file.tell() < megabytes * 1e6:
            times = {"timestamp": now(), "monotonic": time.monotonic(), "attempt": 1, "event": "sample"}
            file.writelines([json.dumps(times | {"cpu": cpu, "gpus": [gpu]}) + "\n"] * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--going", type=int, default=20)
    parser.add_argument("--megabytes", type=float, default=100)
    options = parser.parse_args()
    experiment = experiment_of(options.runs)
    with tempfile.TemporaryDirectory() as scratch:
        results, shared = Path(scratch) / "big", Path(scratch) / "shared"
        shared.mkdir()
        results.mkdir()
        resolved = experiment.model_dump(mode="json")
        (results / "experiment.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False))
        write_logs(shared, options.megabytes)
        every = [(arm, seed) for arm in experiment.arms for seed in experiment.seeds]
        for place, (arm, seed) in enumerate(every):
            folder = results / "runs" / arm / f"seed-{seed}"
            if place >= options.going:
                write_ended(experiment, folder, arm, seed)
                continue
            (folder / "train").mkdir(parents=True)
            for name in ("log.jsonl", "telemetry.jsonl"):
                os.link(shared / name, folder / "train" / name)
        print(
            f"{options.runs} runs, {options.going} under way with {options.megabytes:g} MB of log and of telemetry each"
        )
        measure(results, shared)


def measure(results: Path, shared: Path) -> None:
    watcher = Watcher(results)
    print(f"first look               {timed(watcher.look):8.1f} ms")
    print(f"look, nothing new        {statistics.median(timed(watcher.look) for _ in range(20)):8.1f} ms")
    looks = []
    for _ in range(20):
        with Log(shared / "log.jsonl", identity={"experiment": "big", "arm": "mlp", "seed": 0}) as log:
            for step in range(5):
                log.write("step", step=step, epoch=0, loss=0.5)
        looks.append(timed(watcher.look))
    print(f"look, 5 new lines a run  {statistics.median(looks):8.1f} ms")
    snapshot = watcher.look()
    print(f"drawing                  {timed(lambda: render(snapshot, 80, 50)):8.1f} ms")
    command = [sys.executable, "-m", "assay", "watch", str(results), "--once"]
    whole = timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    print(f"assay watch --once       {whole:8.1f} ms")


def timed(call) -> float:  # type: ignore[no-untyped-def]
    """Milliseconds."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    main()
