"""The pipelines that users copy: valid, and their commands do what they say.

Their commands run in a shell as the pipeline would run them. `assay` is the real one, but for `assay run`, in whose place
stand results written beforehand; `curl` is one that keeps files in a folder.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest_gate import GOOD, moved

Side = Callable[..., Path]
ROOT = Path(__file__).parents[3]
PIPELINES = ROOT / "docs" / "ci"
ASSAY = """#!/bin/bash
if [ "$1" = run ]; then test "$2" = experiment.yaml && mkdir -p results && cp -r "$PREPARED" "results/$EXPERIMENT"; exit; fi
PYTHONPATH={source} exec {python} -m assay "$@"
"""
CURL = """#!/bin/bash
store="$STORE/$(basename "${@: -1}")"
while [ $# -gt 1 ]; do
  case $1 in --output) cp "$store" "$2" || exit 22;; --upload-file) cp "$2" "$store" || exit 22;; esac; shift
done
"""


class Project:
    """A user's repository with a runner's environment."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder, programs = folder / "project", folder / "bin"
        for path in (self.folder, programs, folder / "store"):
            path.mkdir()
        for name, text in (
            ("assay", ASSAY.format(source=ROOT / "src", python=sys.executable)),
            ("curl", CURL),
        ):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.environment = {
            **{name: str(value) for name, value in values.items()},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "STORE": str(folder / "store"),
            "EXPERIMENT": "gated",
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "CI_JOB_TOKEN": "token",
            "CI_DEFAULT_BRANCH": "main",
        }

    def run(self, script: str, prepared: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment | {"PREPARED": str(prepared)},
            capture_output=True,
            text=True,
            timeout=600,
        )

    def anew(self) -> None:
        """A fresh checkout: what is not kept is gone."""
        for name in ("results", "baseline"):
            subprocess.run(["rm", "-rf", str(self.folder / name)], check=True)
        for path in self.folder.glob("*gate*"):
            path.unlink()


@pytest.fixture
def candidates(side: Side) -> dict[str, Path]:
    return {
        "baseline": side("baseline"),
        "good": side("good", moved(GOOD, 0.001)),
        "bad": side("candidate", moved(GOOD, -0.03)),
    }


def test_github(tmp_path: Path, candidates: dict[str, Path]) -> None:
    content = yaml.safe_load((PIPELINES / "github.yml").read_text())
    (job,) = content["jobs"].values()
    assert set(content[True]) == {"push", "pull_request"}  # YAML 1.1 reads `on` as true
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    steps = {step.get("name", step.get("uses")): step for step in job["steps"]}
    project = Project(tmp_path, content["env"])
    kept = steps["Keep the baseline"]["with"]["path"]
    assert kept == steps["Get the baseline"]["with"]["path"] == "baseline"
    gate = "\n".join(steps[name]["run"] for name in ("Run the experiment", "Gate"))

    first = project.run(gate, candidates["baseline"])
    assert first.returncode == 0 and "no baseline yet" in first.stdout
    project.anew()
    pushed = "\n".join(steps[name]["run"] for name in ("Run the experiment", "Make it the baseline"))
    assert project.run(pushed, candidates["baseline"]).returncode == 0
    for name, code in (("good", 0), ("bad", 3)):
        subprocess.run(["rm", "-rf", str(project.folder / "results")], check=True)
        done = project.run(gate, candidates[name])
        assert done.returncode == code, done.stderr
        assert project.run(steps["Show it"]["run"], candidates[name]).returncode == 0
    summary = (tmp_path / "summary.md").read_text()
    assert "Assay gate: passed" in summary and "Assay gate: worse" in summary
    assert (project.folder / "gate.xml").exists() and (project.folder / "gate.json").exists()


def test_gitlab(tmp_path: Path, candidates: dict[str, Path]) -> None:
    content = yaml.safe_load((PIPELINES / "gitlab.yml").read_text())
    jobs = {name: content[".assay"] | content[name] for name in ("assay-gate", "assay-baseline")}
    assert all(job["stage"] in content["stages"] and job["extends"] == ".assay" for job in jobs.values())
    assert jobs["assay-gate"]["artifacts"]["reports"]["junit"] == "gate.xml"
    project = Project(tmp_path, {**content[".assay"]["variables"], "BASELINE": "https://x/gated.tar.gz"})
    scripts = {name: "\n".join(job["script"]) for name, job in jobs.items()}

    first = project.run(scripts["assay-gate"], candidates["baseline"])
    assert first.returncode == 0 and "no baseline" in first.stdout
    project.anew()
    done = project.run(scripts["assay-baseline"], candidates["baseline"])
    assert done.returncode == 0, done.stderr
    for name, code in (("good", 0), ("bad", 3)):
        project.anew()
        done = project.run(scripts["assay-gate"], candidates[name])
        assert done.returncode == code, done.stderr
        assert (project.folder / "gate.xml").exists() and "token" not in done.stdout + done.stderr
