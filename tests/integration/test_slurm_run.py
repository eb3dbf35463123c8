"""Experiments on the two-node cluster, in the image: to the end, and through everything that ends a job."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from project import TINY, Project, copy_project
from slurm_cluster import MISSING, Cluster

from assay.config.bases import Base
from assay.slurm.endings import minutes, state_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"install {' '.join(MISSING)}"),
]

SLOW = """
import os, time
from torch import nn

class Slow(nn.Sequential):
    def forward(self, images):
        if self.training and "SLURM_JOB_ID" in os.environ:
            time.sleep({seconds})
        return super().forward(images)

def net(num_classes, in_channels, image_size):
    size = in_channels * image_size**2
    return Slow(nn.Flatten(), nn.Linear(size, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, num_classes))
"""
RUN = "results/tiny/runs/slow/seed-0"
RECORD = f"{RUN}/train/record.json"


class Site(Project):
    """A project whose jobs go to the cluster and run in the image."""

    cluster: Cluster
    started: "subprocess.Popen[str] | None" = None

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        self.started = super().start(*arguments)
        return self.started

    def command(self, *arguments: str) -> list[str]:
        return [
            *(sys.executable, "-m", "snakemake", "--configfile", "tiny.yaml", "--profile", "slurm"),
            *("--slurm-init-seconds-before-status-checks", "2", *arguments),
        ]

    def environment(self) -> dict[str, str]:
        return super().environment() | self.cluster.environment

    def said(self) -> str:
        return self.output.read_text() + self.logs() + self.slurm_logs()

    def slurm_logs(self) -> str:
        logs = sorted((self.folder / ".snakemake" / "slurm_logs").rglob("*.log"))
        return "\n".join(f"--- {path}\n{path.read_text()[-3000:]}" for path in logs)

    def events(self) -> list[dict[str, Any]]:
        path = self.folder / RUN / "train" / "log.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def job(self) -> str:
        """The Slurm job that trains now."""
        found = re.search(r"Slurm job (\d+)", (self.folder / "logs/tiny/train/slow/seed-0.log").read_text())
        assert found
        return found[1]

    def wait_for_steps(self, seconds: float = 400) -> str:
        """The Slurm job that trains, once it has."""
        trained = len([event for event in self.events() if event["event"] == "step"])
        self.cluster.wait_until(
            lambda: len([event for event in self.events() if event["event"] == "step"]) > trained + 4, seconds
        )
        return self.job()

    def finish(self, process: "subprocess.Popen[str]", seconds: float = 600) -> dict[str, Any]:
        """The training's record, once the whole command is through."""
        try:
            assert process.wait(seconds) == 0, self.said()
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(self.said()) from None
        record: dict[str, Any] = json.loads((self.folder / RECORD).read_text())
        return record


@pytest.fixture
def site(
    tmp_path: Path, cluster: Cluster, images: Path, base: Base, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    monkeypatch.setenv("ASSAY_IMAGES", str(images))
    site = Site(copy_project(tmp_path).folder)
    site.cluster = cluster
    (site.folder / "slurm").symlink_to("profiles/slurm")
    site.write(TINY | {"image": {"reference": base.reference}})
    yield site
    if site.started is not None and site.started.poll() is None:  # a test that failed left it submitting jobs
        site.started.kill()
        site.started.wait()
    cluster.run("scancel", "--user", str(os.getuid()))
    cluster.wait_until(lambda: not cluster.run("squeue", "--noheader"), 60)


@pytest.fixture
def slow(site: Site) -> Site:
    """A training that takes long on the cluster, and half a second elsewhere."""
    return slowed(site, 0.1)


def slowed(site: Site, seconds: float) -> Site:
    (site.folder / "own.py").write_text(SLOW.format(seconds=seconds))
    arms = {"slow": {"model": {"source": "own:net"}}, "mlp": {"model": {"source": "builtin:mlp"}}}
    written = yaml.safe_load((site.folder / "tiny.yaml").read_text())
    experiment = written | {
        "arms": arms,
        "training": TINY["training"] | {"epochs": 10, "checkpoint_seconds": 1},
    }
    site.write(experiment)
    return site


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of the same training on the host, at one go."""
    project = copy_project(tmp_path_factory.mktemp("host"))
    (project.folder / "own.py").write_text(SLOW.format(seconds=0))
    arms = {"slow": {"model": {"source": "own:net"}}, "mlp": {"model": {"source": "builtin:mlp"}}}
    project.write(
        TINY | {"arms": arms, "training": TINY["training"] | {"epochs": 10, "checkpoint_seconds": 1}}
    )
    project.run(RECORD)
    record = json.loads((project.folder / RECORD).read_text())
    assert not record["resumed"]
    return str(record["weights_sha256"])


def test_an_experiment_goes_through_the_cluster_to_its_verdict(site: Site) -> None:
    output = site.run()
    assert "Report: " in output
    records = sorted(site.results.glob("runs/*/*/*/record.json"))
    assert len(records) == 8
    for path in records:
        assert json.loads(path.read_text())["environment"]["image"] is not None
    host = copy_project(site.folder / "host")
    host.run("--until", "evaluate")
    assert weights(site) == weights(host), "host, image and cluster train the same"
    assert accuracies(site) == accuracies(host), "and see the same on the test split"


def weights(project: Project) -> dict[str, str]:
    records = sorted(project.results.glob("runs/*/*/train/record.json"))
    found = {
        str(path.relative_to(project.results)): json.loads(path.read_text())["weights_sha256"]
        for path in records
    }
    assert len(found) == 4
    return found


def accuracies(project: Project) -> dict[str, float]:
    records = sorted(project.results.glob("runs/*/*/evaluate/record.json"))
    found = {
        str(path.relative_to(project.results)): json.loads(path.read_text())["metrics"]["accuracy"]["value"]
        for path in records
    }
    assert len(found) == 4 and all(0.1 < value <= 1 for value in found.values())
    return found


def check_resumed(record: dict[str, Any], site: Site, uninterrupted: str) -> None:
    assert record["outcome"] == "completed" and record["resumed"] and record["attempts"] >= 2
    assert record["weights_sha256"] == uninterrupted
    assert record["metrics"]["train_seconds"]["value"] is None, "it was not measured as one run"
    events = site.events()
    assert [event["event"] for event in events].count("finished") == 1
    assert [event["event"] for event in events].count("resumed") == record["attempts"] - 1
    epochs = [event["epoch"] for event in events if event["event"] == "epoch"]
    assert epochs == sorted(set(epochs)), "no epoch is there twice"


def test_the_sites_profile_is_written_from_what_is_there_and_runs(slow: Site, cluster: Cluster) -> None:
    def look(*options: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "assay", "slurm-profile", *options]
        variables = slow.environment()
        return subprocess.run(command, cwd=slow.folder, env=variables, capture_output=True, text=True)

    port = cluster.ports["controller"]
    done = look("--reach", f"127.0.0.1:{port}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "partition main (default): 20 CPUs, 32000 MiB, 2 GPUs a node, no time limit" in done.stdout
    assert "accounts: assay" in done.stdout and "accounting: runs" in done.stdout
    assert re.search(r"node \S+ of urgent: /\S+/apptainer, reaches the network", done.stdout)
    profile = yaml.safe_load((slow.folder / "profiles/site/config.yaml").read_text())
    assert profile["default-resources"]["slurm_account"] == "assay"
    assert profile["software-deployment-method"] == ["apptainer"]
    again = look()
    assert again.returncode == 2 and "is there already; --force writes over it" in again.stderr
    nowhere = look("--force", "--reach", "127.0.0.1:1")
    assert nowhere.returncode == 1 and "does not reach the network" in nowhere.stdout
    output = slow.run("--profile", "profiles/site", "--", "results/tiny/data/manifest.json")
    assert "Unable to guess SLURM account" not in output


def test_apptainer_on_the_nodes_alone_is_enough(site: Site) -> None:
    without = 'mount --bind /dev/null "$(command -v apptainer)" && ! apptainer --version && exec "$@"'
    command = site.command("--", "results/tiny/health/record.json")
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", without, "login", *command],
        cwd=site.folder,
        env=site.environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr + site.slurm_logs()
    record = json.loads((site.results / "health/record.json").read_text())
    assert record["environment"]["image"] is not None


def test_a_profile_of_the_users_own_is_not_shadowed_without_a_word(site: Site) -> None:
    own = site.folder / "home/.config/snakemake/slurm"
    own.mkdir(parents=True)
    (own / "config.yaml").write_text("jobs: 1\n")
    said = site.run("--dry-run")
    assert f"profile slurm: of this folder, not your own; for that, write --profile {own}" in said


def test_a_time_limit(site: Site, uninterrupted: str) -> None:
    slowed(site, 0.5)
    process = site.start(
        "--set-resources", "train:runtime=2", "train:slurm_extra=--signal=USR1@30", "--", RECORD
    )
    first = site.wait_for_steps()
    record = site.finish(process)
    check_resumed(record, site, uninterrupted)
    assert site.job() == first, "Slurm took the same job up again"
    assert "asked to end by signal 10" not in site.logs(), "the log is the last attempt's"


def test_scancel(slow: Site, uninterrupted: str) -> None:
    process = slow.start("--slurm-status-command", "sacct", "--", RECORD)
    first = slow.wait_for_steps()
    slow.cluster.run("scancel", first)
    cancelled = slow.folder / "cancelled.log"
    cancelled.write_text(f"Slurm job {first}\nits own words")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", slow.cluster.environment["SLURM_CONF"])
        slow.cluster.wait_until(lambda: state_of(cancelled) == "CANCELLED", 60)
        assert minutes(60, cancelled, attempt=2) == 60, "time was not what it wanted"
    record = slow.finish(process)
    check_resumed(record, slow, uninterrupted)
    assert slow.job() != first, "Snakemake submitted another job"


def test_preemption(slow: Site, uninterrupted: str) -> None:
    process = slow.start(RECORD)
    first = slow.wait_for_steps()
    slow.cluster.run(
        "sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2"
    )
    record = slow.finish(process)
    check_resumed(record, slow, uninterrupted)
    assert slow.job() == first, "Slurm took the same job up again"


def test_a_node_that_dies(slow: Site, uninterrupted: str) -> None:
    process = slow.start(RECORD)
    first = slow.wait_for_steps()
    node = slow.cluster.run("squeue", "--noheader", f"--job={first}", "--format=%N").strip()
    slow.cluster.kill_node(node)
    slow.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=died")
    try:
        record = slow.finish(process)
    finally:
        slow.cluster.revive_node(node)
    check_resumed(record, slow, uninterrupted)
    assert slow.job() == first, "Slurm took the same job up again, and no other was submitted beside it"


def test_two_nodes_train_one_run(site: Site) -> None:
    experiment = yaml.safe_load((site.folder / "tiny.yaml").read_text())
    site.write(
        experiment | {"arms": {name: arm | {"execution": {"nodes": 2}} for name, arm in TINY["arms"].items()}}
    )
    record = "results/tiny/runs/mlp/seed-0/train/record.json"
    site.run("--", record)
    together = json.loads((site.folder / record).read_text())
    assert together["outcome"] == "completed" and together["environment"]["image"] is not None
    assert len(together["details"]["ranks"]) == 2
    host = copy_project(site.folder / "host")
    host.write(
        TINY | {"arms": {name: {"execution": {"nodes": 2}} | arm for name, arm in TINY["arms"].items()}}
    )
    refused = host.snakemake("--dry-run")
    assert refused.returncode != 0
    assert "execution.nodes: 2 needs a cluster" in refused.stdout + refused.stderr
    host.write(TINY)
    host.run("--", record)
    alone = json.loads((host.folder / record).read_text())
    assert together["batches_sha256"] == alone["batches_sha256"], "the same examples"
    here, there = (
        load_file(project.folder / record.replace("record.json", "model.safetensors"))
        for project in (host, site)
    )
    for name, weight in here.items():
        assert (weight - there[name]).abs().max() < 1e-4, name
