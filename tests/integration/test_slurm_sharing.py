"""Trainings that ask Slurm for a share of a GPU know it, and others do not."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import Cluster

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from project import TINY, Project

pytestmark = pytest.mark.integration

OWN = """
import dataclasses, json, os
from pathlib import Path
from assay.isolation.places import current
from torch import nn

def net(num_classes, in_channels, image_size):
    shared, job = current().shared, os.environ.get("SLURM_JOB_ID")
    if job is not None:
        told = None if shared is None else dataclasses.asdict(shared)
        Path(f"told-{job}.json").write_text(json.dumps([told, os.environ.get("CUDA_VISIBLE_DEVICES")]))
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))
"""


@pytest.mark.parametrize("sharing", [True, False])
def test_a_share_of_a_gpu(sharing: bool, cluster: Cluster, tmp_path: Path) -> None:
    from project import copy_project

    project = copy_project(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    arms = {"own": {"model": {"source": "own:net"}}, "mlp": {"model": {"source": "builtin:mlp"}}}
    project.write(TINY | {"arms": arms, "bounds": {"runs_per_gpu": 4}})
    share = ("--set-resources", "train:gpu=0", "train:gres='shard:1'") if sharing else ()
    records = [f"results/tiny/runs/own/seed-{seed}/train/record.json" for seed in range(2)]
    told = run(project, cluster, *share, "--", *records)
    assert len(told) == 2
    for shared, device in told:
        assert (shared is not None) == sharing
        if shared is not None:
            assert shared == {"gpu": None, "place": None, "runs": 4, "others": None} and device is not None


def run(project: Project, cluster: Cluster, *arguments: str) -> list[Any]:
    """What the trainings' jobs were told of their place."""
    project.environment = lambda: Project.environment(project) | cluster.environment  # type: ignore[method-assign]
    options = ("--executor", "slurm", "--jobs", "4", "--slurm-init-seconds-before-status-checks", "2")
    done = project.snakemake(*options, "--default-resources", "mem_mb=1000", "runtime=10", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr + project.logs()
    return [json.loads(path.read_text()) for path in project.folder.glob("told-*.json")]
