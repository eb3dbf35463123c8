"""Kernel traces and the noise floor, watched as stages of their own."""

import json
import shutil
from pathlib import Path

from test_block_states import evidence_of, leave
from test_exporter import told_by
from test_watcher import text_of
from watched_runs import Clock, Live, experiment_of, resolve

from assay.monitoring.metrics import Collector
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


SWEEP = {
    "trials": 2,
    "seeds": [1000],
    "space": {"training.optimizer.learning_rate": [0.05, 0.1]},
}


def leave_trial(part: Path, outcome: Outcome) -> None:
    Record(
        stage="train",
        experiment="e",
        arm="small",
        seed=1000,
        outcome=outcome,
        message=None if outcome == "completed" else "why",
        started="2026-01-01T00:00:00.000000Z",
        finished="2026-01-01T00:01:00.000000Z",
        code=Code(version="1", sources_sha256="0"),
        environment=Environment(host="n1", platform="", python="", packages={}, cpu="", cpu_count=1),
    ).write(part / "record.json")


def test_trials_are_a_stage_of_their_own(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "results" / "e"
    resolve(experiment_of(sweep=SWEEP), folder)
    watcher = Watcher(folder)
    snapshot = watcher.look(clock.moment)
    assert [(sweep.arm, sweep.selected) for sweep in snapshot.sweeps] == [
        ("small", "waiting"),
        ("large", "waiting"),
    ]
    small = folder / "sweep" / "small"
    Live(small / "trial-1" / "seed-1000").step()
    snapshot = watcher.look(clock.after(1))
    assert [trial.name for trial in snapshot.sweeps[0].trials] == [
        "small trial 0 seed 1000",
        "small trial 1 seed 1000",
    ]
    assert snapshot.phase == "running" and {run.state for run in snapshot.runs} == {"waiting"}
    told = text_of(snapshot, width=120)
    assert "tuning of small: 0 of 2 trial runs completed, 1 running; not selected yet" in told
    assert "small trial 1" in told and "0 of 4 runs completed" in told
    leave_trial(small / "trial-0" / "seed-1000" / "train", "failed")
    leave_trial(small / "trial-1" / "seed-1000" / "train", "completed")
    (small / "selected.json").write_text("{}")
    told = text_of(watcher.look(clock.after(1)), width=120)
    assert "tuning of small: 1 of 2 trial runs completed, 1 failed; selected" in told
    assert "small trial 0 seed 1000 failed" in told
    json.dumps(watcher.look(clock.after(1)).json())


def test_a_trial_that_waits_to_be_compared_is_told_from_one_that_was_stopped(
    tmp_path: Path, clock: Clock
) -> None:
    folder = tmp_path / "results" / "e"
    resolve(experiment_of(sweep=SWEEP | {"prune": {"after": [1], "reduction_factor": 2}}), folder)
    watcher = Watcher(folder)
    for trial in range(2):
        leave_trial(folder / "sweep" / "small" / f"trial-{trial}" / "seed-1000" / "rung-0", "pruned")
    trials = watcher.look(clock.moment).sweeps[0].trials
    assert [(trial.state, trial.why) for trial in trials] == [
        ("waiting", "to be compared with other trials")
    ] * 2
    leave_trial(folder / "sweep" / "small" / "trial-0" / "seed-1000" / "train", "pruned")
    Live(folder / "sweep" / "small" / "trial-1" / "seed-1000").step()
    snapshot = watcher.look(clock.after(1))
    assert [trial.state for trial in snapshot.sweeps[0].trials] == ["pruned", "running"]
    assert "1 running, 1 pruned; not" in text_of(snapshot, width=120)


def test_the_archive_is_waited_for_last(tmp_path: Path, clock: Clock) -> None:
    folder = tmp_path / "results" / "e"
    resolve(experiment_of(), folder)
    watcher = Watcher(folder)
    assert watcher.look(clock.moment).stages["archive"] == "waiting"
    (folder / "archive").mkdir()
    (folder / "archive" / "e.crate.zip").write_bytes(b"")
    assert watcher.look(clock.after(1)).stages["archive"] == "waiting", "of an earlier report"


def test_the_exporter_counts_what_is_many_and_names_what_is_few(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    resolve(experiment_of(sweep=SWEEP, seeds=3, noise=NOISE), folder)
    (folder / ".lock").write_text("1 on nowhere\n")
    Live(folder / "sweep" / "small" / "trial-1" / "seed-1000").step()
    Live(folder / "noise" / "runs" / "small-again" / "seed-0").step(loss=1.5)
    evidence_of(folder / "noise" / "profile" / "block-2")
    told = told_by(Collector(tmp_path))
    jobs = {key[2:]: value for key, value in told.items() if key[0] == "assay_stage_jobs"}
    assert jobs["stage=sweep", "state=running"] == 1 and jobs["stage=sweep", "state=waiting"] == 3
    assert jobs["stage=trace", "state=waiting"] == 2 and jobs["stage=noise", "state=waiting"] == 1
    assert jobs["stage=archive", "state=waiting"] == 1
    assert told["assay_run_loss", "arm=small-again", "experiment=e", "seed=0"] == 1.5
    assert ("assay_run_state", "arm=small", "experiment=e", "seed=1000", "state=running") not in told
    assert told["assay_profile_block_state", "block=noise-2", "experiment=e", "state=running"] == 1
