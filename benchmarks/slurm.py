"""What Snakemake and this profile add to a Slurm job: many small jobs, against `sbatch` of the same commands.

    python benchmarks/slurm.py [--jobs 500]

Needs root and the programs of tests/integration/slurm_cluster.py, which it starts: two nodes on this machine. Each way runs
every command once, which is checked; what is printed is wall time against `sbatch`, and the seconds that a job costs more.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))

from slurm_cluster import Cluster

REPOSITORY = Path(__file__).parents[1]
CONFIGURATION = Path("/etc/slurm/slurm.conf")
TOGETHER = 25

SNAKEFILE = """
rule all:
    input: expand("out/{{number}}", number=range({jobs}))
rule small:
    output: "out/{{number}}"
    log: "logs/{{number}}.log"
    {group}
    resources: runtime=5, mem_mb=100
    shell: "echo {{wildcards.number}} >> ran; touch {{output}} > {{log}}"
"""


def sbatch(folder: Path, jobs: int) -> None:
    for number in range(jobs):
        command = ["sbatch", "--mem=100", "--time=5", "--output=/dev/null", f"--wrap=echo {number} >> ran"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    while subprocess.run(["squeue", "--noheader"], capture_output=True, check=True).stdout:
        time.sleep(1)


def snakemake(folder: Path, jobs: int, *, group: str = "", **settings: object) -> None:
    profile = yaml.safe_load((REPOSITORY / "profiles/slurm/config.yaml").read_text())
    del profile["software-deployment-method"]
    profile |= {"slurm-init-seconds-before-status-checks": 2} | settings
    (folder / "profile").mkdir()
    (folder / "profile/config.yaml").write_text(yaml.safe_dump(profile))
    (folder / "Snakefile").write_text(SNAKEFILE.format(jobs=jobs, group=group))
    command = [sys.executable, "-m", "snakemake", "--profile", "profile", "--quiet", "all"]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"HOME": str(folder)}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])


WAYS: dict[str, Callable[[Path, int], None]] = {
    "sbatch": sbatch,
    "one Slurm job each": snakemake,
    f"groups of {TOGETHER}": lambda folder, jobs: snakemake(
        folder, jobs, group='group: "small"', **{"group-components": [f"small={TOGETHER}"]}
    ),
}


def timed(way: str, jobs: int) -> float:
    """Seconds of wall time until each of the commands has run once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        WAYS[way](folder, jobs)
        seconds = time.perf_counter() - began
        ran = Counter((folder / "ran").read_text().split())
        if ran != Counter(map(str, range(jobs))):
            sys.exit(f"{way}: lost or repeated: {ran}")
    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    arguments = parser.parse_args(argv)
    if CONFIGURATION.exists():
        sys.exit(f"{CONFIGURATION} is there: this machine has a Slurm of its own")
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(Path(folder) / "slurm", cpus=20, memory_mb=32000) as cluster,
    ):
        os.environ |= cluster.environment
        CONFIGURATION.symlink_to(cluster.environment["SLURM_CONF"])
        try:
            base = timed("sbatch", arguments.jobs)
            print(f"{'sbatch':>20}: {base:6.1f} s")
            for way in arguments.ways:
                if way != "sbatch":
                    seconds = timed(way, arguments.jobs)
                    more = (seconds - base) / arguments.jobs
                    print(
                        f"{way:>20}: {seconds:6.1f} s, {seconds / base:5.2f} of sbatch, {more:+.2f} s a job",
                        flush=True,
                    )
        finally:
            CONFIGURATION.unlink()


if __name__ == "__main__":
    main()
