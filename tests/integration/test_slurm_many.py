"""Many small jobs through the cluster: each runs once, and none is lost."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from slurm_cluster import Cluster

REPOSITORY = Path(__file__).parents[2]
JOBS, TOGETHER = 500, 5

SNAKEFILE = """
rule all:
    input:
        expand("out/{{number}}", number=range({jobs})),

rule small:
    output:
        "out/{{number}}",
    log:
        "logs/{{number}}.log",
    group:
        "small"
    threads: 1
    resources:
        runtime=5,
        mem_mb=100,
    shell:
        "echo $SLURM_JOB_ID > {{log}}; echo {{wildcards.number}} >> ran; touch {{output}}"
"""

pytestmark = pytest.mark.integration


def test_five_hundred_small_jobs(cluster: Cluster, tmp_path: Path) -> None:
    profile = yaml.safe_load((REPOSITORY / "profiles/slurm/config.yaml").read_text())
    del profile["software-deployment-method"]
    profile |= {"slurm-init-seconds-before-status-checks": 2, "group-components": [f"small={TOGETHER}"]}
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile/config.yaml").write_text(yaml.safe_dump(profile))
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(jobs=JOBS))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--profile", "profile"],
        cwd=tmp_path,
        env=os.environ | cluster.environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "out").iterdir())) == JOBS
    ran = Counter((tmp_path / "ran").read_text().split())
    assert ran == Counter(map(str, range(JOBS))), "each ran once"
    slurm_jobs = {path.read_text().strip() for path in (tmp_path / "logs").iterdir()}
    assert len(slurm_jobs) == JOBS / TOGETHER
    command = ("sacct", "--allocations", "--noheader", "--parsable2", "--format=State")
    cluster.wait_until(
        lambda: (
            cluster.run(*command, f"--jobs={','.join(sorted(slurm_jobs))}").split()
            == ["COMPLETED"] * len(slurm_jobs)
        ),
        60,
    )
