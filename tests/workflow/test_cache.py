"""What a change reruns, by dry run on a finished experiment: no more and no less."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import TINY, Project

from assay.records import Record
from assay.telemetry.window import lines

pytestmark = pytest.mark.xdist_group("finished")

PAGE = {"report": 1, "archive": 1}
RESULT = {"compare": 1, **PAGE}
RESOLVED = {"resolve_experiment": 1, **RESULT}


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """A file with one edit, put back afterwards with its times."""
    before, times = path.read_text(), path.stat()
    assert old in before
    path.write_text(before.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_text(before)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@contextmanager
def settings(project: Project, **changes: Any) -> Iterator[None]:
    project.write(deepcopy(TINY) | changes)
    try:
        yield
    finally:
        project.write(TINY)


def test_nothing_changed_runs_nothing(finished: Project) -> None:
    assert finished.planned() == {}


def test_with_nothing_to_do_the_verdict_is_shown_again(finished: Project) -> None:
    said = finished.run()
    assert "Nothing to do" in said and "Report: results/tiny/report/index.html" in said
    assert "inconclusive" in said


@contextmanager
def without(path: Path) -> Iterator[None]:
    """A file gone, put back afterwards."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


def test_files_that_were_lost_are_made_again(finished: Project) -> None:
    run = finished.results / "runs/cnn/seed-1"
    with without(run / "train/model.safetensors"):
        assert finished.planned() == {"train": 1, "evaluate": 1, **RESULT}
    with without(run / "evaluate/predictions.parquet"):
        assert finished.planned() == {"evaluate": 1, **RESULT}
    with without(finished.results / "comparison/comparison.json"):
        assert finished.planned() == RESULT
    with without(finished.results / "profile/block-0/mlp/record.json"):
        assert finished.planned() == {"profile": 1, **RESULT}
    with without(finished.results / "trace/mlp/record.json"):
        assert finished.planned() == {"trace": 1, **PAGE}
    with without(finished.results / "archive/tiny.crate.zip"):
        assert finished.planned() == {"archive": 1}
    assert finished.planned() == {}


def test_a_damaged_store_costs_no_training(finished: Project) -> None:
    manifest = finished.results / "data/manifest.json"
    before, times = manifest.read_bytes(), manifest.stat()
    records = sorted(finished.results.glob("runs/*/*/*/record.json"))
    manifest.write_bytes(before[:100])
    try:
        refused = finished.snakemake()
        assert refused.returncode != 0
        assert "manifest.json: " in refused.stderr and "remove the folder" in refused.stderr
        assert sorted(finished.results.glob("runs/*/*/*/record.json")) == records
        shutil.move(finished.results / "data", finished.folder / "damaged")
        assert finished.planned()["train"] == 4, "who prepares it with all the rest trains anew"
        finished.run("results/tiny/data/manifest.json")
        assert manifest.read_bytes() == before, "the same data give the same manifest"
    finally:
        manifest.write_bytes(before)
        os.utime(manifest, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert finished.planned() == {}


def test_touched_files_run_nothing(finished: Project) -> None:
    for folder in ("src", "workflow", "results", "profiles"):
        for path in sorted((finished.folder / folder).rglob("*")):
            if path.is_file():
                path.touch()
    (finished.folder / "tiny.yaml").touch()
    assert finished.planned() == {}


def test_comment_in_the_experiment_runs_nothing(finished: Project) -> None:
    text = "# a remark\n" + yaml.safe_dump(TINY, sort_keys=False, default_flow_style=None)
    with edited(finished.folder / "tiny.yaml", (finished.folder / "tiny.yaml").read_text(), text):
        assert finished.planned() == {}


def test_code_of_a_plot_runs_the_report_alone(finished: Project) -> None:
    figures = finished.folder / "src/assay/reporting/figures.py"
    with edited(figures, "\n", "\n# edited\n"):
        assert finished.planned() == PAGE


def test_learning_rate_of_one_arm_runs_that_arm(finished: Project) -> None:
    arms: dict[str, Any] = deepcopy(TINY["arms"])  # type: ignore[arg-type]
    arms["cnn"]["training"] = {"optimizer": {"learning_rate": 0.02}}
    with settings(finished, arms=arms):
        assert finished.planned() == {"train": 2, "evaluate": 2, **RESOLVED}
        assert finished.planned("results/tiny/runs/mlp/seed-0/evaluate/record.json") == {}


def test_added_seeds_run_alone(finished: Project) -> None:
    with settings(finished, seeds=4):
        assert finished.planned() == {"train": 4, "evaluate": 4, **RESOLVED}
        assert finished.planned("results/tiny/runs/cnn/seed-1/evaluate/record.json") == {}


def test_code_of_training_runs_training(finished: Project) -> None:
    with edited(finished.folder / "src/assay/training/run.py", "\n", "\n# edited\n"):
        planned = finished.planned()
    assert planned["train"] == 4
    assert "prepare_data" not in planned


def test_margin_runs_the_comparison_alone(finished: Project) -> None:
    with settings(finished, metrics=[{"name": "accuracy", "margin": 0.02}, "latency_ms"]):
        assert finished.planned() == RESOLVED


def test_every_training_and_every_profile_is_watched(finished: Project) -> None:
    records = [
        *finished.results.glob("runs/*/*/train/record.json"),
        *finished.results.glob("profile/*/*/record.json"),
    ]
    assert len(records) > 2
    for path in records:
        samples = [line for line in lines(path.with_name("telemetry.jsonl")) if line["event"] == "sample"]
        assert len(samples) >= 2, path
        record = Record.read(path)
        if record.stage == "train":
            assert record.telemetry is not None and record.telemetry.samples == len(samples)
        else:
            assert {gate["name"] for gate in record.details["gates"]} > {"throttling", "cpu_contention"}


def test_how_closely_runs_are_watched_runs_no_measurement(finished: Project) -> None:
    with settings(finished, telemetry={"interval": 0.5}):
        assert finished.planned() == RESOLVED
    with settings(finished, bounds={"runs_per_gpu": 4}):
        assert finished.planned() == RESOLVED, "how many share a GPU"
    with settings(finished, telemetry={"enabled": False}):
        assert finished.planned() == RESOLVED


def test_kernel_traces_cost_no_measurement_and_no_comparison(finished: Project) -> None:
    """They are asked for, withdrawn, and taken anew where their own code changes, beside everything else."""
    with settings(finished, profile={**TINY["profile"], "traces": False}):  # type: ignore[dict-item]
        assert finished.planned() == RESOLVED
    with edited(finished.folder / "src/assay/tracing/kernels.py", "\n", "\n# edited\n"):
        assert finished.planned() == {"trace": 2, **PAGE}
    with edited(finished.folder / "src/assay/profiling/block.py", "\n", "\n# edited\n"):
        assert finished.planned() == {"profile": 1, **RESULT}
    record = Record.read(finished.results / "trace/cnn/record.json")
    assert record.outcome == "completed"
    page = (finished.results / "report/index.html").read_text()
    assert "aten::convolution_backward" in page


def test_split_runs_everything(finished: Project) -> None:
    with settings(finished, data={"source": "digits", "split_seed": 1}):
        planned = finished.planned()
    assert planned["prepare_data"] == 1
    assert planned["train"] == planned["evaluate"] == 4


def test_editing_ones_own_model_runs_its_arm(project: Project) -> None:
    (project.folder / "nets.py").write_text(
        "import torch\nfrom parts import head\n\n"
        "def tiny(num_classes, in_channels, image_size):\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), head(in_channels * image_size**2, num_classes))\n"
    )
    parts = project.folder / "parts.py"
    parts.write_text("import torch\n\ndef head(n, m):\n    return torch.nn.Linear(n, m)\n")
    experiment = deepcopy(TINY) | {"profile": {"enabled": False}, "metrics": ["accuracy"]}
    experiment["arms"] = {
        "mlp": {"model": {"source": "builtin:mlp"}},
        "own": {"model": {"source": "nets:tiny"}},
    }
    project.write(experiment)
    project.run()
    assert project.planned() == {}
    with edited(parts, "Linear(n, m)", "Linear(n, m, bias=False)"):
        assert project.planned() == {"train": 2, "evaluate": 2, **RESULT}
        assert project.planned("results/tiny/runs/mlp/seed-0/evaluate/record.json") == {}
