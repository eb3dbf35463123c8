"""Tuning on the two-node cluster, in the image, with everything killed in the middle: what is selected is what a host selects."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from project import TINY, Project, copy_project
from slurm_cluster import MISSING
from test_slurm_run import Site, site

from assay.sweep.model import Selected, Trials

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"install {' '.join(MISSING)}"),
]

__all__ = ["site"]
SELECTED = "results/tiny/sweep/cnn/selected.json"
SWEEP: dict[str, Any] = {
    "factors": ["model"],
    "training": {"epochs": 6, "batch_size": 16, "checkpoint_seconds": 0.2},
    "sweep": {
        "trials": 4,
        "space": {"training.optimizer.learning_rate": {"log_uniform": [0.001, 0.3]}},
        "prune": {"after": [2], "reduction_factor": 2},
    },
}


def searched(project: Project) -> tuple[Selected, list[tuple[str, str | None, str | None]]]:
    """What was selected, and what each trial came to."""
    folder = project.folder / Path(SELECTED).parent
    found = []
    for trial in Trials.read(folder / "trials.json").trials:
        record = json.loads((folder / f"trial-{trial.number}/seed-1000/train/record.json").read_text())
        found.append((record["outcome"], record["weights_sha256"], record["batches_sha256"]))
    return Selected.read(folder / "selected.json"), found


def test_a_search_whose_workflow_and_jobs_are_killed_selects_what_a_host_selects(site: Site) -> None:
    site.write(yaml.safe_load((site.folder / "tiny.yaml").read_text()) | SWEEP)
    folder = site.folder / Path(SELECTED).parent
    running = site.start("--", SELECTED)
    site.cluster.wait_until(
        lambda: list(folder.glob("trial-*/seed-1000/rung-0/log.jsonl")) or running.poll() is not None, 400
    )
    assert running.poll() is None, site.said()
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    # What it had submitted may run, wait or be gone: all of it ends at once, with no chance to write a checkpoint.
    site.cluster.run("scancel", "--signal=KILL", "--full", "--user", str(os.getuid()))
    site.cluster.run("scancel", "--user", str(os.getuid()))
    site.cluster.wait_until(lambda: not site.cluster.run("squeue", "--noheader"), 60)
    assert not (site.folder / SELECTED).exists()
    process = site.start("--", SELECTED)
    assert process.wait(900) == 0, site.said()
    host = copy_project(site.folder / "host")
    host.write(TINY | SWEEP)
    host.run("--", SELECTED)
    selected, trials = searched(site)
    assert (selected, trials) == searched(host)
    assert sorted(outcome for outcome, _, _ in trials) == ["completed", "completed", "pruned", "pruned"]
    record = json.loads((folder / "trial-0/seed-1000/rung-0/record.json").read_text())
    assert record["environment"]["image"] is not None
