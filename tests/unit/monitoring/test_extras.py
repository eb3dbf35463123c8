"""Kernel traces and the noise floor, watched as stages of their own."""

import json
import shutil
from pathlib import Path

from test_block_states import evidence_of, leave
from test_watcher import text_of
from watched_runs import Clock, Live, experiment_of, resolve

from assay.monitoring.watcher import Watcher
from assay.records import Code, Environment, Outcome, Record

NOISE = {"enabled": True, "arm": "small", "seeds": 3, "blocks": 3}


def leave_trace(folder: Path, arm: str, outcome: Outcome) -> None:
    Record(
        stage="trace",
        experiment="e",
        arm=arm,
        outcome=outcome,
        message=None if outcome == "completed" else "an operator is missing",
        started="2026-01-01T00:00:00.000000Z",
        finished="2026-01-01T00:01:00.000000Z",
        code=Code(version="1", sources_sha256="0"),
        environment=Environment(host="n1", platform="", python="", packages={}, cpu="", cpu_count=1),
    ).write(folder / "record.json")


def test_traces_are_followed_arm_by_arm(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "results" / "e"
    resolve(experiment_of(), folder)
    watcher = Watcher(folder)
    snapshot = watcher.look(clock.moment)
    assert [(one.arm, one.state) for one in snapshot.traces] == [("small", "waiting"), ("large", "waiting")]
    assert "kernel traces: 0 of 2 arms completed" in text_of(snapshot)
    evidence_of(folder / "trace" / "small")
    snapshot = watcher.look(clock.after(1))
    assert snapshot.traces[0].state == "running" and snapshot.traces[0].host == "elsewhere"
    assert snapshot.phase == "running" and "e is running" in text_of(snapshot)
    leave_trace(folder / "trace" / "small", "small", "completed")
    leave_trace(folder / "trace" / "large", "large", "failed")
    snapshot = watcher.look(clock.after(1))
    assert [one.state for one in snapshot.traces] == ["completed", "failed"]
    told = text_of(snapshot)
    assert "kernel traces: 1 of 2 arms completed, 1 failed" in told
    assert "trace of large" in told and "an operator is missing" in told
    (folder / "trace" / "small" / "record.json").write_text("{")
    assert watcher.look(clock.after(1)).traces[0].state == "running", "half a record is none"
    json.dumps(snapshot.json())


def test_a_trace_without_a_sign_of_life_is_dead(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "results" / "e"
    resolve(experiment_of(), folder)
    watcher = Watcher(folder)
    evidence = evidence_of(folder / "trace" / "large")
    assert watcher.look(clock.after(1)).traces[1].state == "running"
    assert watcher.look(clock.after(59)).traces[1].state == "running"
    trace = watcher.look(clock.after(10)).traces[1]
    assert trace.state == "killed" and "no sign of life" in (trace.why or "")
    evidence.end("interrupted", 15)
    trace = watcher.look(clock.after(1)).traces[1]
    assert trace.state == "interrupted" and trace.why == "asked to end by SIGTERM"


def test_an_experiment_without_them_has_no_line_for_them(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "results" / "e"
    resolve(experiment_of(profile={"blocks": 2, "traces": False}), folder)
    snapshot = Watcher(folder).look(clock.moment)
    assert snapshot.traces == () and snapshot.noise is None
    assert "trace" not in text_of(snapshot) and "noise" not in text_of(snapshot)


def test_second_runs_stand_apart_under_their_own_name(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "results" / "e"
    resolve(experiment_of(seeds=3, noise=NOISE), folder)
    watcher = Watcher(folder)
    noise = watcher.look(clock.moment).noise
    assert noise is not None and noise.arm == "small" and noise.floor == "waiting"
    assert [run.name for run in noise.runs] == [f"small-again seed {seed}" for seed in range(3)]
    Live(folder / "noise" / "runs" / "small-again" / "seed-1").step()
    evidence_of(folder / "noise" / "profile" / "block-2")
    snapshot = watcher.look(clock.after(1))
    assert len(snapshot.runs) == 6 and {run.state for run in snapshot.runs} == {"waiting"}
    assert snapshot.noise is not None and snapshot.phase == "running"
    assert [run.state for run in snapshot.noise.runs] == ["waiting", "running", "waiting"]
    assert [block.state for block in snapshot.noise.blocks] == ["waiting", "waiting", "running"]
    told = text_of(snapshot, width=120)
    assert (
        "noise floor of small: 0 of 3 second runs completed, 1 running; 0 of 3 blocks completed, 1 running; not found"
        in told
    )
    assert "0 of 6 runs completed" in told, "they are not counted among the experiment's own"
    assert "small-again" in told and "noise block 2: " in told
    shutil.rmtree(folder / "noise")
    assert {run.state for run in watcher.look(clock.after(1)).noise.runs} == {"waiting"}  # type: ignore[union-attr]


def test_a_broken_block_of_the_floor_is_told_from_one_of_the_profile(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "results" / "e"
    resolve(experiment_of(seeds=3, noise=NOISE), folder)
    for arm in ("small", "small-again"):
        (folder / "noise" / "profile" / "block-0" / arm).mkdir(parents=True)
        leave(folder / "noise" / "profile" / "block-0", arm, "invalid")
    told = text_of(Watcher(folder).look(clock.moment), width=120)
    assert "noise block 0 invalid" in told
    assert "0 of 2 profile blocks done" in told


def test_what_assay_noise_began_is_watched_and_what_nobody_asked_for_is_not(
    tmp_path: Path, clock: Clock
) -> None:
    folder = tmp_path / "results" / "e"
    resolve(experiment_of(seeds=3, noise=NOISE | {"enabled": False}), folder)
    watcher = Watcher(folder)
    assert watcher.look(clock.moment).noise is None
    Live(folder / "noise" / "runs" / "small-again" / "seed-0").step()
    noise = watcher.look(clock.after(1)).noise
    assert noise is not None and noise.runs[0].state == "running"


def test_a_floor_counts_while_it_is_newer_than_all_its_records(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "results" / "e"
    asked = {"enabled": True, "arm": "small", "seeds": 0, "blocks": 3}
    resolve(experiment_of(seeds=1, noise=asked), folder)
    watcher = Watcher(folder)
    noise = watcher.look(clock.moment).noise
    assert noise is not None and noise.runs == () and len(noise.blocks) == 3
    for number in range(3):
        for arm in ("small", "small-again"):
            path = folder / "noise" / "profile" / f"block-{number}"
            (path / arm).mkdir(parents=True)
            leave(path, arm, "completed")
    (folder / "noise" / "floor.json").write_text("{}")
    noise = watcher.look(clock.after(60)).noise
    assert noise is not None and noise.floor == "completed"
    assert "; found" in text_of(watcher.look(clock.after(60)), width=120)
    (folder / "noise" / "profile" / "block-1" / "small" / "record.json").unlink()
    noise = watcher.look(clock.after(60)).noise
    assert noise is not None and noise.floor == "waiting", "it is found anew from all its records"
