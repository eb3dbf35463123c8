"""How a run is told to be, from the files of the real writers and a clock that the test turns."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from watched_runs import STEPS, Clock, Live, experiment_of, shift

from assay import records
from assay.config.resolve import spec_sha256
from assay.isolation.attempts import Ended
from assay.monitoring.run import RunFiles
from assay.monitoring.state import Run
from assay.records import Record
from assay.telemetry.beside import Sampler


def watched(folder: Path) -> RunFiles:
    return RunFiles(folder, "small", 0)


def settle(files: RunFiles, clock: Clock, live: Live, seconds: float, *, beats: bool) -> Run:
    """Look on for so long, every ten seconds."""
    run = files.look(clock.moment)
    for _ in range(int(seconds / 10)):
        if beats:
            live.beat()
        run = files.look(clock.after(10))
    return run


def test_a_real_training_is_told_line_by_line(trained: Path, clock: Clock) -> None:
    """Its files, as they were at each moment: from nothing to its record and its evaluation."""
    kept = trained.with_name("kept")
    trained.rename(kept)
    files = watched(trained)
    assert files.look(clock.moment) == Run("small", 0)
    (trained / "train").mkdir(parents=True)
    seen = []
    for line in (kept / "train" / "log.jsonl").read_bytes().splitlines(keepends=True):
        with (trained / "train" / "log.jsonl").open("ab") as file:
            file.write(line)
        seen.append(files.look(clock.after(0.5)))
    assert {run.state for run in seen} == {"running"}
    steps = [run.step for run in seen]
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] == 3 * STEPS == seen[0].steps
    epochs = [run.epoch for run in seen]
    assert epochs == sorted(epochs) and set(epochs) == {0, 1, 2, 3}
    assert seen[0].loss is None and seen[0].seconds_left is None, "nothing was measured yet"
    assert all(run.gpu_memory_mb is None for run in seen), "not 0 where there is no GPU"
    half = next(run for run in seen if run.epoch == 2)
    assert half.seconds_left is not None and half.seconds_left > 0
    shutil.copy(kept / "train" / "record.json", trained / "train")
    run = files.look(clock.after(1))
    record = Record.read(kept / "train" / "record.json")
    assert (run.state, run.stage, run.test_accuracy) == ("waiting", "evaluate", None)
    assert run.validation_accuracy == record.metrics["validation_accuracy"].value
    assert run.step == run.steps == 3 * STEPS and run.seconds is not None and run.seconds > 0
    shutil.copytree(kept / "evaluate", trained / "evaluate")
    run = files.look(clock.after(1))
    assert (run.state, run.stage) == ("completed", "evaluate")
    assert run.test_accuracy == Record.read(kept / "evaluate" / "record.json").metrics["accuracy"].value


def test_a_record_of_other_settings_or_of_other_weights_does_not_count(trained: Path, clock: Clock) -> None:
    files = watched(trained)
    files.spec_sha256 = spec_sha256(experiment_of().arms["small"])
    assert files.look(clock.moment).state == "completed"
    files.spec_sha256 = spec_sha256(experiment_of().arms["large"])
    run = files.look(clock.moment)
    assert (run.state, run.stage, run.step) == ("waiting", "train", None)
    assert run.why == "its record is of other settings"
    files.spec_sha256 = None
    record = Record.read(trained / "evaluate" / "record.json")
    record.model_copy(update={"weights_sha256": "0" * 64}).write(trained / "evaluate" / "record.json")
    run = files.look(clock.after(20))
    assert (run.state, run.stage, run.test_accuracy) == ("waiting", "evaluate", None)


def test_a_damaged_record_is_told_and_no_error(trained: Path, clock: Clock) -> None:
    path = trained / "evaluate" / "record.json"
    path.write_text(path.read_text()[:100])
    run = watched(trained).look(clock.moment)
    assert run.state == "failed" and run.why is not None and str(path) in run.why


@pytest.mark.parametrize("outcome", ["diverged", "out_of_memory", "failed"])
def test_outcomes_of_records_are_states(trained: Path, clock: Clock, outcome: str) -> None:
    path = trained / "train" / "record.json"
    record = json.loads(path.read_text()) | {"outcome": outcome, "message": "training loss is nan"}
    path.write_text(json.dumps(record))
    run = watched(trained).look(clock.moment)
    assert (run.state, run.why, run.stage) == (outcome, "training loss is nan", "train")


def test_silent_and_alive_is_stalled_and_runs_again_when_it_goes_on(tmp_path: Path, clock: Clock) -> None:
    live, files = Live(tmp_path), watched(tmp_path)
    live.step()
    live.step()
    assert settle(files, clock, live, 50, beats=True).state == "running", "below the floor of a minute"
    run = settle(files, clock, live, 20, beats=True)
    assert run.state == "stalled" and run.seconds_left is None
    assert run.why == "no line for 1 min 10 s: its process lives"
    live.step()
    assert files.look(clock.after(1)).state == "running"


def test_silent_and_dead_is_killed(tmp_path: Path, clock: Clock) -> None:
    """`kill -9` of everything, or a dead node: nobody was left to write how it ended."""
    live, files = Live(tmp_path), watched(tmp_path)
    live.step()
    live.step()
    assert settle(files, clock, live, 60, beats=True).state == "running"
    run = settle(files, clock, live, 70, beats=False)
    assert (run.state, run.why) == ("killed", "no sign of life for 1 min 10 s")
    live.beat()
    assert files.look(clock.after(1)).state == "stalled"


def test_death_on_this_machine_is_known_sooner(tmp_path: Path, clock: Clock) -> None:
    live, files = Live(tmp_path, host=os.uname().nodename), watched(tmp_path)
    live.step()
    assert settle(files, clock, live, 10, beats=False).state == "running"
    run = settle(files, clock, live, 20, beats=False)
    assert (run.state, run.why) == ("killed", "no sign of life for 30 s")


def test_where_nothing_tells_whether_it_lives_that_is_said(tmp_path: Path, clock: Clock) -> None:
    live, files = Live(tmp_path, supervised=False), watched(tmp_path)
    live.step()
    live.step()
    run = settle(files, clock, live, 120, beats=False)
    assert (run.state, run.why) == ("stalled", "no line for 2 min 00 s: nothing tells whether it lives")


def test_patience_goes_by_the_runs_own_rhythm(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, files = Live(tmp_path), watched(tmp_path)
    for minute in (0, 2):
        monkeypatch.setattr(records, "now", lambda minute=minute: f"2999-01-01T00:{minute:02d}:00.000000Z")
        live.step()
    assert settle(files, clock, live, 350, beats=True).state == "running", "three times its longest silence"
    assert settle(files, clock, live, 20, beats=True).state == "stalled"


def test_gaps_between_lines_are_its_rhythm(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, files = Live(tmp_path), watched(tmp_path)
    for minute in (0, 1, 3, 4):
        monkeypatch.setattr(records, "now", lambda minute=minute: f"2026-01-01T00:{minute:02d}:00.000000Z")
        live.step()
    files.look(clock.moment)
    assert files.log.longest_gap == 120.0
    assert files.look(clock.moment).seconds_left == pytest.approx((70 - 4) * 80, rel=0.05)


def test_the_first_validation_may_take_as_long_as_the_epoch(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has seen how long it takes: its silence is not compared with that between steps."""
    live, files = Live(tmp_path), watched(tmp_path)
    for step in range(STEPS):
        monkeypatch.setattr(records, "now", lambda step=step: f"2999-01-01T00:{step:02d}:00.000000Z")
        live.step()
    assert settle(files, clock, live, 1250, beats=True).state == "running"
    assert settle(files, clock, live, 20, beats=True).state == "stalled"


def test_a_start_may_take_long(tmp_path: Path, clock: Clock) -> None:
    live, files = Live(tmp_path), watched(tmp_path)
    assert settle(files, clock, live, 590, beats=True).state == "running"
    assert settle(files, clock, live, 20, beats=True).state == "stalled"


@pytest.mark.parametrize("ahead", [-3600, 3600])
def test_clocks_of_nodes_and_file_servers_do_not_matter(tmp_path: Path, clock: Clock, ahead: float) -> None:
    live, files = Live(tmp_path), watched(tmp_path)
    live.step()

    def show() -> Run:
        for path in (live.train / "log.jsonl", live.train / "attempt.json"):
            shift(path, ahead)
        return files.look(clock.moment)

    assert show().state == "running", "not certain at first sight"
    for _ in range(10):
        clock.after(10)
        live.step()
        live.beat()
        assert show().state == "running"
    assert settle(files, clock, live, 70, beats=False).state == "killed"


@pytest.mark.parametrize(
    ("ended", "number", "state"),
    [
        ("interrupted", signal.SIGTERM, "interrupted"),
        ("error", signal.SIGKILL, "killed"),
        ("error", signal.SIGSEGV, "failed"),
        ("error", None, "failed"),
        ("out_of_memory", signal.SIGKILL, "out_of_memory"),
        ("too_many_processes", signal.SIGKILL, "failed"),
    ],
)
def test_what_a_supervisor_says_of_the_end_counts_at_once(
    tmp_path: Path, clock: Clock, ended: Ended, number: int | None, state: str
) -> None:
    live, files = Live(tmp_path), watched(tmp_path)
    live.step()
    assert files.look(clock.moment).state == "running"
    assert live.evidence is not None
    live.evidence.end(ended, number)
    run = files.look(clock.after(0.1))
    assert run.state == state and run.step == 1
    again = Live(tmp_path, attempt=2)
    run = files.look(clock.after(0.1))
    assert (run.state, run.resumed, run.attempt, run.step) == ("running", True, 2, 1)
    assert again.evidence is not None and again.evidence.attempt.attempt == 2


def test_a_process_that_ended_without_a_word_is_told_by_its_sampler(tmp_path: Path, clock: Clock) -> None:
    """A training that nobody supervises: its sampler sees it end."""
    live, files = Live(tmp_path, supervised=False), watched(tmp_path)
    live.step()
    sampler = Sampler(tmp_path / "train" / "telemetry.jsonl", interval=0.02, identity={"attempt": 1})
    sampler.stop()
    run = files.look(clock.after(0.1))
    assert (run.state, run.why) == ("killed", "its process is gone and left no record")


def test_a_job_that_dies_with_its_supervisor_is_known_soon(tmp_path: Path, clock: Clock) -> None:
    """Its sampler alone is left to tell, a tenth of a second later."""
    live, files = Live(tmp_path), watched(tmp_path)
    live.step()
    sampler = Sampler(tmp_path / "train" / "telemetry.jsonl", interval=0.02, identity={"attempt": 1})
    assert files.look(clock.moment).state == "running"
    sampler.stop()
    for _ in range(5):
        clock.after(2)
        live.beat()
        assert files.look(clock.moment).state == "running", "its supervisor is there to tell how it ended"
    assert files.look(clock.after(14)).state == "running"
    assert files.look(clock.after(2)).state == "killed"
    Live(tmp_path, attempt=2)
    assert files.look(clock.after(30)).state == "running", "what the sampler told is of the attempt before"


def test_a_loss_that_is_not_finite_is_shown_as_what_it_is(tmp_path: Path, clock: Clock) -> None:
    live, files = Live(tmp_path), watched(tmp_path)
    live.step(float("nan"))
    run = files.look(clock.moment)
    assert run.loss != run.loss and run.loss is not None
    live.step(float("inf"))
    assert files.look(clock.after(1)).loss == float("inf")
