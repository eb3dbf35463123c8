"""An arm that takes memory or processes without end, beside one that behaves."""

import json
import re
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from project import TINY, Project

from assay.isolation.attempts import Ended, Evidence, last_attempt

OWN = """
import os, time
from pathlib import Path
from torch import nn

BEGAN = time.monotonic()
MOST_PROCESSES, MOST_MIB = {most_processes}, 1200

def here():
    return sum(name.isdigit() for name in os.listdir("/proc"))

def memory(num_classes):
    held = []
    while len(held) * 16 < MOST_MIB:
        held.append(bytearray(os.urandom(1 << 20) * 16))
    unstopped()

def forks(num_classes):
    while here() < MOST_PROCESSES and time.monotonic() - BEGAN < 60:
        if os.fork() == 0:
            os.setsid()
    unstopped()

def unstopped():
    time.sleep(300)  # who was to stop this may have been stopped itself
    raise AssertionError("nobody stopped this")

def net(num_classes, in_channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))
"""
"""Hogs that end by themselves: where nothing bounds them, a test fails and no machine does. Those of other tests count too."""
BOUND_MB, BOUND_PROCESSES = 900, 150


def plant(project: Project) -> None:
    here = len(list(Path("/proc").glob("[0-9]*")))
    (project.folder / "own.py").write_text(OWN.format(most_processes=here + 800))


def experiment(source: str) -> dict[str, Any]:
    return deepcopy(TINY) | {
        "factors": ["model"],
        "arms": {"mlp": {"model": {"source": "builtin:mlp"}}, "other": {"model": {"source": source}}},
        "bounds": {"memory_mb": BOUND_MB, "processes": BOUND_PROCESSES},
    }


def essence(project: Project) -> list[object]:
    """What the arm that behaves came to, to the bit."""
    found: list[object] = []
    for path in sorted(project.results.glob("runs/mlp/*/*/record.json")):
        record = json.loads(path.read_text())
        assert record["outcome"] == "completed"
        timeless = {
            name: value for name, value in record["metrics"].items() if value["unit"] in ("fraction", "nats")
        }
        found += [path.parts[-3:], record["weights_sha256"], record["batches_sha256"], timeless]
    assert found
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    from project import copy_project

    project = copy_project(tmp_path_factory.mktemp("undisturbed"))
    plant(project)
    project.write(experiment("own:net"))
    project.run()
    return essence(project)


@pytest.mark.parametrize(
    ("source", "outcome", "ended", "words"),
    [
        ("own:memory", "out_of_memory", "out_of_memory", f"more than the bound of {BOUND_MB} MiB"),
        ("own:forks", "failed", "too_many_processes", f"more than the bound of {BOUND_PROCESSES};"),
    ],
)
def test_a_hog_is_its_own_result_and_nobody_elses(
    source: str, outcome: str, ended: str, words: str, project: Project, undisturbed: list[object]
) -> None:
    plant(project)
    project.write(experiment(source))
    said = project.run()
    records = sorted(project.results.glob("runs/other/*/*/record.json"))
    records += sorted(project.results.glob("profile/*/other/record.json"))
    assert len(records) == 5, "two trainings, two evaluations, one block"
    for path in records:
        record = json.loads(path.read_text())
        assert record["outcome"] == outcome and words in record["message"], path
        assert not any(value["value"] for value in record["metrics"].values())
    for path in project.results.glob("runs/other/*/train"):
        attempt = last_attempt(path)
        assert attempt is not None and attempt.ended == ended and attempt.memory_bound_mb == BOUND_MB
        assert attempt.peak_memory_mb is not None
        record = json.loads((path / "record.json").read_text())
        assert "train_energy" in record["metrics"]
        assert ended != "out_of_memory" or record["telemetry"]["samples"] > 0
        assert ended != "out_of_memory" or BOUND_MB < attempt.peak_memory_mb < 2 * BOUND_MB
    assert essence(project) == undisturbed
    profiled = json.loads((project.results / "profile/block-0/mlp/record.json").read_text())
    assert profiled["outcome"] == "completed"
    assert "inconclusive" in said
    page = (project.results / "report/index.html").read_text()
    assert words.strip() in page, "the report says why"
    end = (
        time.monotonic() + 120
    )  # Snakemake does not wait for all that ends with it; a hog would stay for longer
    while left := left_in(project.folder):
        assert time.monotonic() < end, left
        time.sleep(0.1)
    assert project.planned() == {}, "a result is not tried again"


def left_in(folder: Path) -> list[int]:
    """Processes that still work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_memory_is_shared_out_by_snakemake_and_overridden_by_its_own_means(project: Project) -> None:
    plant(project)
    project.write(experiment("own:memory") | {"bounds": {}})
    record = project.results / "runs/other/seed-0/train"
    project.run(
        "--set-resources", "train:mem_mb=700", "--", str((record / "record.json").relative_to(project.folder))
    )
    assert "more than the bound of 700 MiB" in json.loads((record / "record.json").read_text())["message"]
    project.write(experiment("own:memory") | {"bounds": {"memory_mb": 5}})
    assert project.planned(str((record / "record.json").relative_to(project.folder))) == {}, (
        "a bound reruns nothing"
    )


@pytest.mark.parametrize(
    ("attempt", "ended", "words"),
    [
        (1, "out_of_memory", "--memory-mb 6144 --at-memory-bound retry"),
        (2, "out_of_memory", "--memory-mb 4096 --at-memory-bound retry"),
        (2, "interrupted", "--memory-mb 2048 --at-memory-bound retry"),
        (4, "out_of_memory", "--memory-mb 4096 --at-memory-bound result"),
    ],
)
def test_a_cluster_gives_more_memory_for_want_of_memory_alone(
    attempt: int, ended: Ended, words: str, project: Project
) -> None:
    record = "results/tiny/runs/mlp/seed-0/train/record.json"
    Evidence(project.folder / Path(record).parent, 2048).end(ended)
    said = project.run(
        "--executor", "slurm", "--jobs", "2", "--attempt", str(attempt), "--dry-run", "-p", "--", record
    )
    (command,) = re.findall(r"stage train .*", said)
    assert words in command


def test_trainings_and_evaluations_share_a_gpu_and_what_is_timed_does_not(project: Project) -> None:
    project.write(
        deepcopy(TINY) | {"bounds": {"runs_per_gpu": 3}, "noise": {"enabled": True, "blocks": 0}, "seeds": 3}
    )
    said = project.run("--dry-run", "-p")
    commands = re.findall(r"stage (\w+) .*", said)
    sharing = re.findall(r"stage (\w+) .*--runs-per-gpu 3 ", said)
    assert {"train", "evaluate", "profile", "trace"} <= set(commands)
    assert sharing == [name for name in commands if name in ("train", "evaluate")]
    assert len(sharing) == 2 * (2 * 3 + 3), "of two arms at three seeds, and of the noise floor"
