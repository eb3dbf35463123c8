"""A whole experiment: what is planned, what was done, how long it takes, and what one look costs."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from watched_runs import EXPERIMENT, Clock, Live, experiment_of, resolve

from assay.monitoring.state import Block, Run, Snapshot
from assay.monitoring.time_left import profile_left, training_left, with_time_left
from assay.monitoring.view import render
from assay.monitoring.watcher import Watcher
from assay.records import canonical_json, sha256_text


def text_of(snapshot: Snapshot, width: int = 80, height: int | None = None) -> str:
    file = io.StringIO()
    Console(width=width, highlight=False, markup=False, no_color=True, file=file).print(
        render(snapshot, width, height)
    )
    return file.getvalue()


def states(snapshot: Snapshot) -> dict[str, str]:
    return {run.name: run.state for run in snapshot.runs}


def test_before_it_begins_what_is_planned_is_known_from_its_file(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "results" / "e", experiment_of())
    snapshot = watcher.look()
    assert snapshot.phase == "not begun" and snapshot.planned and len(snapshot.runs) == 4
    assert [block.state for block in snapshot.blocks] == ["waiting", "waiting"]
    assert snapshot.training_seconds_left is None and snapshot.profile_seconds_left is None
    assert "e has not begun" in text_of(snapshot) and "0 of 4 runs completed" in text_of(snapshot)


def test_what_it_was_begun_with_counts_and_a_later_edit_of_the_file_too(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "e"
    watcher = Watcher(folder, experiment_of())
    resolve(experiment_of(seeds=3), folder)
    assert len(watcher.look().runs) == 6
    assert len(Watcher(folder, experiment_of(), time.time() + 60).look().runs) == 4
    (folder / "experiment.yaml").write_text("name: [")
    snapshot = watcher.look()
    assert len(snapshot.runs) == 4 and "cannot be read" in snapshot.warnings[0]
    (folder / "experiment.yaml").unlink()
    assert len(watcher.look().runs) == 4


def test_a_file_edited_while_a_workflow_runs_is_for_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "e"
    resolve(experiment_of(seeds=3), folder)
    watcher = Watcher(folder, experiment_of(), time.time() + 60)
    assert len(watcher.look().runs) == 4
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", "snakemake"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as workflow:
        (folder / ".lock").write_text(f"{workflow.pid} on {os.uname().nodename}\n")
        deadline = time.monotonic() + 300
        while len(watcher.look().runs) != 6:  # until it has become what it was told to be
            assert time.monotonic() < deadline
        assert "e is running" in text_of(watcher.look())
        workflow.communicate()
    snapshot = watcher.look()
    assert len(snapshot.runs) == 4 and snapshot.phase == "ended"


def test_without_a_plan_the_runs_that_have_begun_are_told(trained: Path, clock: Clock) -> None:
    folder = trained.parents[2]
    Live(folder / "runs" / "large" / "seed-7").step()
    (folder / "runs" / "large" / "notes").mkdir()
    snapshot = Watcher(folder).look(clock.moment)
    assert not snapshot.planned
    assert states(snapshot) == {"large seed 7": "running", "small seed 0": "completed"}
    assert "1 of 2 runs that have begun completed" in text_of(snapshot)


def test_finished_is_what_has_its_report_newer_than_all_records(trained: Path, clock: Clock) -> None:
    folder = trained.parents[2]
    resolve(experiment_of(seeds=1, profile={"enabled": False}), folder)
    shutil.copytree(trained, folder / "runs" / "large" / "seed-0")
    watcher = Watcher(folder)
    assert watcher.look(clock.moment).phase == "running"
    large = experiment_of().arms["large"].model_dump(mode="json")
    for stage in ("train", "evaluate"):
        path = folder / "runs" / "large" / "seed-0" / stage / "record.json"
        changes = {"arm": "large", "spec": large, "spec_sha256": sha256_text(canonical_json(large))}
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    for place in ("comparison/comparison.json", "report/index.html"):
        (folder / place).parent.mkdir()
        (folder / place).write_text("{}")
    snapshot = watcher.look(clock.after(60))
    assert snapshot.phase == "finished", snapshot.stages
    assert snapshot.headline is None, "a comparison that cannot be read"
    (trained / "train" / "record.json").unlink()
    snapshot = watcher.look(clock.after(60))
    assert snapshot.phase == "running" and snapshot.stages["report"] == "waiting"


def test_whether_the_workflow_is_there_is_told_where_it_can_be(trained: Path) -> None:
    folder = trained.parents[2]
    lock = folder / ".lock"
    lock.write_text("4194304 on elsewhere\n")
    session = Watcher(folder).look().session
    assert session is not None and session.alive is None
    lock.write_text(f"{os.getpid()} on {os.uname().nodename}\n")
    snapshot = Watcher(folder).look()
    assert snapshot.session is not None and snapshot.session.alive is False, "this process is no Snakemake"
    assert snapshot.phase == "ended"
    assert "nothing works on it any more" in text_of(snapshot)
    lock.write_bytes(b"\xff")
    assert Watcher(folder).look().session is None


def test_time_left_is_what_was_measured_or_not_known() -> None:
    done = Run("a", 0, stage="evaluate", state="completed", seconds=100.0)
    going = Run("a", 1, state="running", step=50, steps=100, seconds_left=40.0)
    waiting, other = Run("a", 2), Run("b", 0)
    found = with_time_left([done, going, waiting, other])
    assert [run.seconds_left for run in found] == [None, 40.0, 100.0, None]
    assert training_left(found) is None, "nothing tells how long b takes"
    assert training_left(found[:3]) == 140.0
    assert training_left([*found[:3], replace(going, seed=3, arm="c")]) == 90.0
    assert training_left([done]) == 0.0
    assert training_left([waiting]) is None, "nothing runs"
    by_pace = with_time_left([going, waiting])
    assert by_pace[1].seconds_left == 80.0, "no run of the arm has finished"
    ended = Block(0, state="completed", arms={"a": "completed"}, seconds=30.0)
    assert profile_left([ended, Block(1)]) == 30.0
    assert profile_left([Block(0)]) is None
    assert profile_left([ended, Block(1, state="running", seconds_left=12.0), Block(2)]) == 42.0


def test_five_hundred_runs_fit_a_terminal_and_cost_little(trained: Path, clock: Clock) -> None:
    folder = trained.parents[2]
    resolve(experiment_of(seeds=250), folder)
    for seed in range(1, 200):
        shutil.copytree(trained, trained.with_name(f"seed-{seed}"), copy_function=os.link)
    for seed in range(50):
        live = Live(folder / "runs" / "large" / f"seed-{seed}")
        live.step(float("nan") if seed == 33 else 1e-5)
        if seed < 20:
            live.evidence.end("error", 9)  # type: ignore[union-attr]
    watcher = Watcher(folder)
    snapshot = watcher.look(clock.moment)
    assert len(snapshot.runs) == 500
    took = []
    for _ in range(5):
        began = time.process_time()
        snapshot = watcher.look(clock.after(1))
        took.append(time.process_time() - began)
    assert min(took) < 0.2
    for height in (24, 50, None):
        lines = text_of(snapshot, 80, height).splitlines()
        assert height is None or len(lines) <= height
        assert max(map(len, lines)) <= 80
        text = "\n".join(lines)
        assert "200 of 500 runs completed" in text
        assert ("more runs under way" in text) == (height is not None)
    assert "GPU" not in text, "a machine without one has no column of it"
    rows = [line.split() for line in lines if line.startswith(("small ", "large "))]
    assert rows[0] == ["small", "50", "200"] and rows[1] == ["large", "200", "30", "20"]
    assert any("nan" in line for line in lines)


def test_long_names_and_strange_messages_stay_in_their_lines(trained: Path) -> None:
    name = "a" * 63
    runs = [
        Run(name, 10**9, state="running", epoch=99999, epochs=99999, step=1, steps=2, loss=-1.23456789e-300),
        Run(name, 1, state="failed", why="[red]\x1b[2J\x07bell\n" + "long " * 50, last_event="2026-01-01"),
    ]
    snapshot = replace(Watcher(trained.parents[2]).look(), runs=tuple(runs))
    for width in (40, 80, 200):
        text = text_of(snapshot, width)
        assert max(map(len, text.splitlines())) <= width
        assert "\x1b" not in text and "\x07" not in text
    assert "[red]" in text


def test_a_snapshot_is_json(trained: Path, clock: Clock) -> None:
    Live(trained.with_name("seed-1")).step(float("nan"))
    told = json.loads(json.dumps(Watcher(trained.parents[2]).look().json(), allow_nan=False))
    assert told["schema_version"] == 1
    assert [run["loss"] for run in told["runs"] if run["seed"] == 1] == ["nan"]


@pytest.mark.parametrize("name", ["runs", "profile", "comparison", "report", ".lock", "experiment.yaml"])
def test_files_where_folders_should_be_and_the_other_way_round(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "e"
    folder.mkdir()
    (folder / name).write_text("no folder")
    Watcher(folder).look()
    (folder / name).unlink()
    (folder / name).mkdir()
    Watcher(folder, experiment_of(**EXPERIMENT)).look()
