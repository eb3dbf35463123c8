"""What the terminal says of jobs that fail."""

import io
import logging
from pathlib import Path
from typing import Any

import pytest

from snakemake_logger_plugin_assay import LogHandler
from snakemake_logger_plugin_assay.failures import LAST_LINES, MOST_TOLD, Failures
from snakemake_logger_plugin_assay.progress import Progress


def record(**fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", logging.ERROR, "", 0, "", None, None)
    made.__dict__.update(fields)
    return made


def failing(log: Path) -> tuple[Progress, io.StringIO]:
    """A progress that has seen one job start."""
    stream = io.StringIO()
    progress = Progress(stream)
    progress.handle("run_info", record(stats={"train": 1, "total": 1}))
    progress.handle(
        "job_info", record(rule_name="train", rule_msg="Train b at seed 0", jobid=1, log=[str(log)])
    )
    return progress, stream


def test_a_failure_is_told_by_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "seed-0.log"
    log.write_text("\n".join(f"line {number}\n" for number in range(20)) + "\nKeyError: 'my bug'\n")
    progress, stream = failing(log)
    progress.handle("job_error", record(rule_name="train", jobid=1, log=["x/log.jsonl", str(log)]))
    progress.stop()
    said = stream.getvalue().splitlines()
    assert said[1] == f"Train b at seed 0 failed ({log}):"
    assert said[-1] == "  KeyError: 'my bug'"
    assert len(said) == 2 + LAST_LINES


def test_a_job_that_is_tried_again_is_told_once_and_forgotten_when_it_succeeds(tmp_path: Path) -> None:
    log = tmp_path / "seed-0.log"
    log.write_text("the disk was away\n")
    progress, stream = failing(log)
    for _ in range(2):
        progress.handle("job_error", record(rule_name="train", jobid=1, log=[str(log)]))
        progress.handle(
            "job_info", record(rule_name="train", rule_msg="Train b at seed 0", jobid=1, log=[str(log)])
        )
    assert stream.getvalue().count("the disk was away") == 1
    progress.handle("job_finished", record(job_id=1))
    progress.stop()
    assert progress.failures.titles == {}


def test_a_job_without_a_log_and_one_with_an_empty_log_are_told_too(tmp_path: Path) -> None:
    (tmp_path / "empty.log").touch()
    failures = Failures()
    for number, title, logs in (
        (1, "Report", [str(tmp_path / "none.log")]),
        (2, "Compare", [str(tmp_path / "empty.log")]),
        (3, "Train", []),
    ):
        assert failures.add(number, title, logs) is None, "the next attempt may say more"
    silent = failures.summary().splitlines()
    assert f"Report failed and said nothing ({tmp_path / 'none.log'})" in silent
    assert f"Compare failed and said nothing ({tmp_path / 'empty.log'})" in silent
    assert "Train failed and said nothing" in silent


def test_a_log_that_the_next_attempt_has_emptied_says_nothing_only_if_it_stays_empty(tmp_path: Path) -> None:
    """Snakemake starts the next attempt, which empties the log, while the failure is still to be told."""
    log = tmp_path / "seed-1.log"
    log.touch()
    failures = Failures()
    for number in (1, 2):
        assert failures.add(number, f"Train b at seed {number}", [str(log)]) is None
    failures.mended(2)
    log.write_text("width is not a number\n")
    assert failures.add(1, "Train b at seed 1", [str(log)]) == (
        f"Train b at seed 1 failed ({log}):\n  width is not a number"
    )
    assert "said nothing" not in failures.summary()
    assert "1 job failed: Train b at seed 1." in failures.summary()


def test_what_slurm_says_of_a_job_stands_beside_its_own_words(tmp_path: Path) -> None:
    own, slurm = tmp_path / "block-0.log", tmp_path / "8.log"
    own.touch()
    refused = "srun: error: Unable to create step for job {}: More processors requested than permitted"
    slurm.write_text(f"Building DAG of jobs...\n{refused.format(8)}\nExiting because a job failed\n")
    failures = Failures()
    logs = [str(own), str(tmp_path / "log.jsonl"), str(slurm)]
    assert failures.add(1, "Profile", logs) == f"Profile failed ({own}):\n  {refused.format(8)}"
    slurm.write_text(refused.format(9))
    assert failures.add(1, "Profile", logs) is None, "the same, of the next attempt"


@pytest.mark.parametrize("said", ["no such file\n", ""])
def test_a_sweep_whose_every_run_fails_does_not_flood_the_terminal(tmp_path: Path, said: str) -> None:
    log = tmp_path / "log"
    log.write_text(said)
    failures = Failures()
    told = [failures.add(number, f"Train b at seed {number}", [str(log)]) for number in range(1000)]
    shown = [text for text in told if text] if said else failures.summary().split("said nothing")[1:]
    assert len(shown) == MOST_TOLD
    assert f"and {1000 - MOST_TOLD} more" in failures.summary()
    assert "1000 jobs failed: Train b at seed 0; " in failures.summary()


def test_jobs_that_a_selection_spares_are_not_waited_for() -> None:
    """Snakemake plans anew after a checkpoint, and then has fewer jobs in all."""
    progress = Progress(io.StringIO())
    progress.handle(
        "run_info", record(stats={"select_settings": 1, "train": 4, "compare": 1, "all": 1, "total": 7})
    )
    progress.handle("job_info", record(rule_name="select_settings", rule_msg="Select", jobid=1, log=[]))
    progress.handle("progress", record(done=0, total=7))
    assert progress.tally.total == 6
    progress.handle("job_finished", record(job_id=1))
    progress.handle("progress", record(done=1, total=3))
    progress.stop()
    assert (progress.tally.done, progress.tally.total) == (1, 2)


def said_of(*texts: str) -> str:
    """What stands on the terminal after warnings of Snakemake."""
    handler = object.__new__(LogHandler)
    logging.Handler.__init__(handler)
    stream = io.StringIO()
    handler._plain, handler._progress = False, Progress(stream)
    for text in texts:
        handler.emit(logging.LogRecord("snakemake", logging.ERROR, "", 0, text, None, None))
    handler._progress.stop()
    return stream.getvalue()


def test_a_run_that_was_told_to_stop_says_how_it_goes_on() -> None:
    """On SIGTERM Snakemake lets running jobs end and starts no others: nothing has failed."""
    said = said_of("WorkflowError:\nAt least one job did not complete successfully.")
    assert "Stopped before all was done" in said and "the same command goes on" in said
    assert "WorkflowError" not in said and "failed" not in said


def test_a_folder_in_use_is_told_without_the_places_in_the_code() -> None:
    said = said_of(
        'ExperimentInUse in file "/a/Snakefile", line 46:\n'
        "results/digits: another run of this experiment is going on (process 7 on vm); wait for it\n"
        '  File "/a/Snakefile", line 46, in __onstart\n  File "/a/src/assay/session.py", line 76, in hold'
    )
    assert said.splitlines() == [
        "results/digits: another run of this experiment is going on (process 7 on vm); wait for it"
    ]
