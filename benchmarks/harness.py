"""What the harness costs: the default experiment's trainings through Snakemake against a bare loop.

    python benchmarks/harness.py [--rounds 3]

Both sides train the same networks on the same prepared data, 4 at a time, one thread each. The loop starts one
process a training (`bare_training.py`). Rounds alternate; the table shows medians and the ratio, which is to be
at most 0.7.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from assay.config.arm import SGD  # noqa: E402
from assay.config.load import load  # noqa: E402
from assay.config.schema import Experiment  # noqa: E402

FILE = REPOSITORY / "config" / "config.yaml"


def run(command: list[str], folder: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command} failed:\n{done.stdout}{done.stderr}")


def snakemake(folder: Path, cores: int, *targets: str) -> list[str]:
    snakefile = str(REPOSITORY / "Snakefile")
    options = ["--configfile", str(FILE), "--cores", str(cores), "--directory", str(folder)]
    return [sys.executable, "-m", "snakemake", "--snakefile", snakefile, *options, *targets]


def through_snakemake(experiment: Experiment, folder: Path, cores: int) -> float:
    results = folder / "results" / experiment.name
    shutil.rmtree(results / "runs", ignore_errors=True)
    base = f"results/{experiment.name}/runs"
    targets = [f"{base}/{a}/seed-{s}/train/record.json" for a in experiment.arms for s in experiment.seeds]
    began = time.perf_counter()
    run(snakemake(folder, cores, *targets), folder)
    return time.perf_counter() - began


def through_loop(experiment: Experiment, folder: Path, cores: int) -> float:
    data = folder / "results" / experiment.name / "data"

    def train(job: tuple[str, int]) -> None:
        name, seed = job
        arm = experiment.arms[name]
        assert isinstance(arm.training.optimizer, SGD)
        command = [
            *(sys.executable, str(REPOSITORY / "benchmarks" / "bare_training.py")),
            *("--kind", arm.model.source.removeprefix("builtin:"), "--seed", str(seed), "--data", str(data)),
            *("--epochs", str(arm.training.epochs), "--batch-size", str(arm.training.batch_size)),
            *("--learning-rate", str(arm.training.optimizer.learning_rate)),
            *("--output", str(folder / "bare" / name / str(seed))),
        ]
        run(command, folder)

    jobs = [(name, seed) for name in experiment.arms for seed in experiment.seeds]
    began = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(train, jobs))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=4)
    options = parser.parse_args()
    experiment = load(FILE)
    with tempfile.TemporaryDirectory(prefix="assay-harness-") as name:
        folder = Path(name)
        run(snakemake(folder, options.cores, f"results/{experiment.name}/data/manifest.json"), folder)
        ours, bare = [], []
        for _ in range(options.rounds):
            ours.append(through_snakemake(experiment, folder, options.cores))
            bare.append(through_loop(experiment, folder, options.cores))
    trainings = len(experiment.arms) * len(experiment.seeds)
    ratios = sorted(a / b for a, b in zip(ours, bare, strict=True))
    print(f"{trainings} trainings, {options.cores} at a time, {options.rounds} rounds   (median seconds)")
    print(f"bare loop, {trainings} processes   {median(bare):6.2f}   1.00")
    print(f"through Snakemake          {median(ours):6.2f}   {median(ratios):.2f}  (aim: at most 0.70)")
    print(f"ratio by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
