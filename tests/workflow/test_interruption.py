"""Runs that are killed, stopped, doubled or sick: nothing is lost, and what is left is said."""

import json
import os
import shutil
import signal
import subprocess
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import held
from held import Held
from project import TINY, Project

LONGER: dict[str, Any] = deepcopy(TINY) | {
    "seeds": 1,
    "profile": {"enabled": False},
    "metrics": ["accuracy"],
}
LONGER["training"] = LONGER["training"] | {"epochs": 25, "checkpoint_seconds": 0.1}
LONGER["arms"] = {
    "mlp": {"model": {"source": "builtin:mlp"}},
    "cnn": {"model": {"source": "held:net", "options": {"width": 8, "dropout": 0.1}}},
}
CHECKPOINT = "runs/cnn/seed-0/checkpoint/state.pt"


def hold(project: Project, since: Path | int) -> Held:
    """Of the training of cnn, which goes no further from then on."""
    shutil.copy(held.__file__, project.folder)
    return Held(project.folder / "hold", since)


def wait_for_epoch(project: Project, running: "subprocess.Popen[str]", epoch: int) -> None:
    """Until some run has logged that epoch."""
    end = time.monotonic() + 300
    while time.monotonic() < end and running.poll() is None:
        for log in project.results.glob("runs/*/*/train/log.jsonl"):
            if f'"epoch": {epoch}' in log.read_text():
                return
        time.sleep(0.02)
    output = project.output.read_text()
    raise AssertionError(f"no run reached epoch {epoch}\n{output}\n{project.logs()}")


def hashes(project: Project) -> dict[str, tuple[str, str]]:
    records = sorted(project.results.glob("runs/*/seed-*/train/record.json"))
    read = {str(path.relative_to(project.results)): json.loads(path.read_text()) for path in records}
    return {name: (record["weights_sha256"], record["batches_sha256"]) for name, record in read.items()}


def test_killed_anywhere_the_same_command_ends_with_the_same_weights(project: Project) -> None:
    project.write(LONGER)
    shutil.copy(held.__file__, project.folder)
    project.run()
    undisturbed = hashes(project)
    assert len(undisturbed) == 2
    for folder in ("results", ".snakemake", "logs"):
        shutil.rmtree(project.folder / folder)
    for since in (project.results / CHECKPOINT, 50, 90):
        on_its_way = hold(project, since)
        running = project.start(**on_its_way.variables)
        on_its_way.wait(running)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    project.run()
    assert hashes(project) == undisturbed
    records = [json.loads(path.read_text()) for path in project.results.glob("runs/*/*/train/record.json")]
    assert any(record["resumed"] for record in records)
    assert all(record["metrics"]["train_seconds"]["value"] is None for record in records if record["resumed"])


def test_ctrl_c_leaves_nothing_locked(project: Project) -> None:
    experiment = deepcopy(LONGER)
    experiment["training"]["epochs"] = 10_000
    project.write(experiment)
    shutil.copy(held.__file__, project.folder)
    running = project.start()
    wait_for_epoch(project, running, 2)
    os.killpg(running.pid, signal.SIGINT)
    running.wait(timeout=300)
    assert running.returncode != 0, project.output.read_text()
    assert not list(project.results.glob("runs/*/*/train/.record*")), "half-written files were left"
    experiment["training"]["epochs"] = 2
    project.write(experiment)
    project.run()
    assert project.planned() == {}


def working_in(folder: Path, program: bytes = b"python") -> list[int]:
    """Processes whose current folder it is, with that word on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and program in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_no_measurement_outlives_its_session(project: Project) -> None:
    experiment = deepcopy(TINY)
    experiment["profile"] = TINY["profile"] | {"seconds": 900}  # type: ignore[operator]
    project.write(experiment)
    running = project.start()
    end = time.monotonic() + 300
    while not working_in(project.folder, b"profiling.visit"):
        assert time.monotonic() < end and running.poll() is None
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    end = time.monotonic() + 300
    while left := working_in(project.folder):
        assert time.monotonic() < end, left
        time.sleep(0.1)


def test_second_run_at_once_is_refused(project: Project) -> None:
    project.write(LONGER)
    going_on = hold(project, 20)
    first = project.start(**going_on.variables)
    going_on.wait(first)
    second = project.snakemake()
    assert second.returncode != 0
    assert "another run of this experiment" in second.stdout + second.stderr
    assert f"process {first.pid}" in second.stdout + second.stderr
    going_on.release()
    assert first.wait(timeout=900) == 0, project.output.read_text()


def test_a_job_that_fails_is_told_in_its_own_words_and_the_rest_is_kept(project: Project) -> None:
    experiment = deepcopy(LONGER)
    experiment["training"]["epochs"] = 1
    experiment["arms"]["cnn"] = {"model": {"source": "own:net"}}
    project.write(experiment)
    model = project.folder / "own.py"
    model.write_text("def net(num_classes):\n    raise KeyError('my bug')\n")
    failed = project.snakemake()
    assert failed.returncode != 0
    said = failed.stdout + failed.stderr
    assert said.count("KeyError: 'my bug'") == 1 and "own.py:2" in said, said
    assert "1 job failed: Train cnn at seed 0." in said
    assert "CalledProcessError" not in said and "--settings" not in said
    model.write_text(
        "from torch import nn\n"
        "def net(num_classes, in_channels, image_size):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))\n"
    )
    assert project.planned() == {"train": 1, "evaluate": 1, "compare": 1, "report": 1, "archive": 1}
    assert "Report: " in project.run()


def test_diverged_arm_is_a_result_and_the_report_says_so(project: Project) -> None:
    experiment = deepcopy(LONGER)
    experiment["training"]["epochs"] = 2
    experiment["seeds"] = 2
    experiment["arms"]["cnn"]["training"] = {"optimizer": {"learning_rate": 1e30}}
    project.write(experiment)
    shutil.copy(held.__file__, project.folder)
    output = project.run()
    record = json.loads((project.results / "runs/cnn/seed-0/train/record.json").read_text())
    assert record["outcome"] == "diverged"
    assert (
        json.loads((project.results / "runs/mlp/seed-0/train/record.json").read_text())["outcome"]
        == "completed"
    )
    comparison = json.loads((project.results / "comparison/comparison.json").read_text())
    assert "diverged" in json.dumps(comparison)
    assert "diverged" in (project.results / "report/index.html").read_text()
    assert "inconclusive" in output


def test_same_weights_forked_and_fresh(project: Project, tmp_path: Path) -> None:
    """A job forked from the loaded process and one that imports everything itself give the same bits."""
    experiment = deepcopy(LONGER)
    experiment["training"]["epochs"] = 2
    project.write(experiment)
    shutil.copy(held.__file__, project.folder)
    project.run()
    forked = hashes(project)
    shutil.rmtree(project.folder / "results")
    snakefile = project.folder / "Snakefile"
    text = snakefile.read_text()
    assert "fork_jobs=IMAGE is None and workflow.local_exec" in text
    snakefile.write_text(text.replace("fork_jobs=IMAGE is None and workflow.local_exec", "fork_jobs=False"))
    project.run()
    assert hashes(project) == forked
