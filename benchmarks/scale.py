"""What a large sweep costs: 10,000 runs against a bare Snakefile of as many rules and jobs.

    python benchmarks/scale.py [--runs 10000]

Times a dry run, a rerun with nothing to do and a rerun of the report alone (as dry runs, so that Snakemake is
measured and not the report), and their peak memory. The results are empty files that `snakemake --touch`
registers on both sides; the bare workflow has the same rules, jobs and files, and nothing else.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml

REPOSITORY = Path(__file__).parents[1]

BARE = """
ARMS, SEEDS, BLOCKS = ["a", "b"], range({seeds}), range(6)

rule all:
    input: "results/sweep/report/index.html"

rule prepare_data:
    output: "results/sweep/data/manifest.json"
    shell: "touch {{output}}"

rule resolve_experiment:
    output: "results/sweep/experiment.yaml"
    shell: "touch {{output}}"

rule train:
    input: "results/sweep/data/manifest.json"
    output: "results/sweep/runs/{{arm}}/seed-{{seed}}/train/record.json",
            "results/sweep/runs/{{arm}}/seed-{{seed}}/train/model.safetensors"
    shell: "touch {{output}}"

rule evaluate:
    input: "results/sweep/runs/{{arm}}/seed-{{seed}}/train/record.json",
           "results/sweep/runs/{{arm}}/seed-{{seed}}/train/model.safetensors"
    output: "results/sweep/runs/{{arm}}/seed-{{seed}}/evaluate/record.json",
            "results/sweep/runs/{{arm}}/seed-{{seed}}/evaluate/predictions.parquet"
    shell: "touch {{output}}"

rule profile:
    input: "results/sweep/data/manifest.json"
    output: expand("results/sweep/profile/block-{{{{block}}}}/{{arm}}/record.json", arm=ARMS)
    shell: "touch {{output}}"

rule compare:
    input:
        expand("results/sweep/runs/{{arm}}/seed-{{seed}}/evaluate/record.json", arm=ARMS, seed=SEEDS),
        expand("results/sweep/profile/block-{{block}}/{{arm}}/record.json", arm=ARMS, block=BLOCKS),
        "results/sweep/experiment.yaml"
    output: "results/sweep/comparison/comparison.json", "results/sweep/comparison/metrics.csv",
            "results/sweep/comparison/contract.json"
    shell: "touch {{output}}"

rule report:
    input: "results/sweep/comparison/comparison.json", "results/sweep/comparison/metrics.csv",
           "results/sweep/comparison/contract.json"
    output: "results/sweep/report/index.html", directory("results/sweep/report/tables"),
            directory("results/sweep/report/figures")
    shell: "touch {{output}}"
"""


def experiment(seeds: int) -> dict[str, object]:
    return {
        "name": "sweep",
        "factors": ["model"],
        "arms": {"a": {"model": {"source": "builtin:mlp"}}, "b": {"model": {"source": "builtin:cnn"}}},
        "data": {"source": "digits"},
        "seeds": seeds,
        "profile": {"blocks": 6},
    }


def lay_files(folder: Path, seeds: int) -> None:
    """Every file of the finished sweep, empty, in an order that leaves nothing out of date."""
    base = folder / "results" / "sweep"
    names = ["data/manifest.json", "experiment.yaml"]
    for stage, files in (
        ("train", ("record.json", "model.safetensors")),
        ("evaluate", ("record.json", "predictions.parquet")),
    ):
        for arm in "ab":
            for seed in range(seeds):
                names += [f"runs/{arm}/seed-{seed}/{stage}/{file}" for file in files]
    names += [f"profile/block-{block}/{arm}/record.json" for block in range(6) for arm in "ab"]
    names += [f"comparison/{file}" for file in ("comparison.json", "metrics.csv", "contract.json")]
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).touch()
    for name in ("tables", "figures"):
        (base / "report" / name).mkdir(parents=True, exist_ok=True)
    (base / "report" / "index.html").touch()


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall seconds and peak MiB of a command."""
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        if status != 0:
            output.seek(0)
            sys.exit(f"{command} failed:\n{output.read()[-3000:]}")
    return seconds, usage.ru_maxrss / 1024


def commands(folder: Path, seeds: int) -> dict[str, list[str]]:
    base = [sys.executable, "-m", "snakemake", "--cores", "4", "--quiet", "all"]
    (folder / "bare").mkdir()
    (folder / "bare" / "Snakefile").write_text(BARE.format(seeds=seeds))
    (folder / "assay").mkdir()
    (folder / "assay" / "sweep.yaml").write_text(yaml.safe_dump(experiment(seeds), sort_keys=False))
    same = [
        "--nolock",
        "--scheduler",
        "greedy",
        "--rerun-triggers",
        "mtime",
        "params",
        "input",
        "software-env",
    ]
    snakefile = str(REPOSITORY / "Snakefile")
    return {
        "bare": [*base, *same],
        "assay": [*base, "--snakefile", snakefile, "--configfile", "sweep.yaml"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seeds = options.runs // 2
    rows: dict[str, dict[str, list[tuple[float, float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="assay-scale-") as name:
        sides = commands(Path(name), seeds)
        cases = ("dry run", "nothing to do", "report alone")
        for case in cases:
            rows[case] = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side, command in sides.items():
                seconds, memory = timed([*command, "--dry-run"], Path(name) / side)
                rows["dry run"][side].append((seconds, memory))
        for side, command in sides.items():
            lay_files(Path(name) / side, seeds)
            timed([*command, "--touch"], Path(name) / side)
        for _ in range(options.rounds):
            for side, command in sides.items():
                seconds, memory = timed(command, Path(name) / side)
                rows["nothing to do"][side].append((seconds, memory))
        for _ in range(options.rounds):
            for side, command in sides.items():
                (Path(name) / side / "results/sweep/report/index.html").unlink(missing_ok=True)
                seconds, memory = timed([*command, "--dry-run"], Path(name) / side)
                rows["report alone"][side].append((seconds, memory))
    print(f"{options.runs} runs, {2 * options.runs + 11} jobs; medians of {options.rounds}")
    print(f"{'':15} {'bare s':>8} {'assay s':>8} {'ratio':>6} {'assay MiB':>10}   (aims: 1.30, 2048 MiB)")
    for case, sides_of in rows.items():
        bare, ours = (median(s for s, _ in sides_of[side]) for side in ("bare", "assay"))
        memory = max(m for _, m in sides_of["assay"])
        print(f"{case:15} {bare:8.2f} {ours:8.2f} {ours / bare:6.2f} {memory:10.0f}")


if __name__ == "__main__":
    main()
