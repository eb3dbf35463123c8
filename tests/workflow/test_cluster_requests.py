"""What a cluster is asked for, and what is refused before it is: the executor needs no Slurm for either."""

import re
from typing import Any

import pytest
from project import TINY, Project

ON_SLURM = ("--executor", "slurm", "--jobs", "2", "--dry-run", "-p")


def on(**execution: Any) -> dict[str, Any]:
    return TINY | {"execution": execution}


def said(project: Project, *arguments: str) -> str:
    done = project.snakemake(*arguments)
    return done.stdout + done.stderr


def test_both_kinds_of_node_are_checked_where_trainings_ask_for_gpus(project: Project) -> None:
    project.write(on(device="cuda"))
    checks = re.findall(r"stage check_health .*--device (\w+) --record (\S+)", said(project, *ON_SLURM))
    assert sorted(checks) == [
        ("cpu", "results/tiny/health/without-gpu/record.json"),
        ("cuda", "results/tiny/health/record.json"),
    ]
    assert project.planned()["check_health"] == 1 and "check_health_without_gpu" not in project.planned()
    project.write(on(device="cpu"))
    assert said(project, *ON_SLURM).count("stage check_health") == 1, "one kind of node"


def test_several_nodes_start_one_run_together_in_the_image(project: Project) -> None:
    project.write(on(nodes=2))
    planned = said(project, *ON_SLURM)
    assert re.search(r"on_nodes 1; stage train ", planned)
    assert "Shell command" in planned and "Error" not in planned, planned


@pytest.mark.parametrize(
    ("execution", "arguments", "words"),
    [
        ({"nodes": 2}, ("--dry-run",), "execution.nodes: 2 needs a cluster (snakemake --profile slurm)"),
        (None, ON_SLURM, "all arms of an experiment train on as many nodes; write nodes: 2 for all"),
    ],
)
def test_nodes_that_cannot_be_had_are_refused(
    execution: dict[str, Any] | None, arguments: tuple[str, ...], words: str, project: Project
) -> None:
    if execution is None:
        arms = TINY["arms"] | {"cnn": {"model": {"source": "builtin:cnn"}, "execution": {"nodes": 2}}}  # type: ignore[operator]
        project.write(TINY | {"arms": arms, "factors": ["model", "execution.nodes"]})
    else:
        project.write(on(**execution))
    assert words in said(project, *arguments)


@pytest.mark.parametrize("by_profile", [False, True])
def test_job_arrays_are_refused_before_any_job(by_profile: bool, project: Project) -> None:
    arguments = ["--slurm-array-jobs", "train,evaluate"]
    if by_profile:
        site = project.folder / "site"
        site.mkdir()
        (site / "config.yaml").write_text("slurm-array-jobs: train,evaluate\n")
        arguments = ["--profile", str(site)]
    done = project.snakemake("--executor", "slurm", "--jobs", "2", *arguments)
    told = done.stdout + done.stderr
    assert done.returncode != 0
    assert "--slurm-array-jobs=train,evaluate: refused" in told and "--group-components" in told, told
    assert "Traceback" not in told
    assert not project.results.exists() and not list(project.folder.glob(".snakemake/slurm_logs/*"))
