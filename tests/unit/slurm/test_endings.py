"""More time is asked for where a job ran out of it, and nowhere else."""

from pathlib import Path

import pytest

from assay.slurm.endings import minutes, state_of


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of job 7, about which `sacct` tells what stands in the file `state`."""
    program = tmp_path / "sacct"
    program.write_text(f'#!/bin/sh\ncase "$*" in *--jobs=7*) cat {tmp_path}/state;; *) exit 1;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "block-0.log").write_text("Slurm job 7\nvisit 1 of 4: mlp\n")
    return tmp_path / "block-0.log"


@pytest.mark.parametrize(
    ("state", "attempt", "asked"),
    [
        ("TIMEOUT", 1, 60),
        ("TIMEOUT", 2, 120),
        ("TIMEOUT", 3, 240),
        ("CANCELLED by 0", 2, 60),
        ("FAILED", 3, 60),
    ],
)
def test_minutes(state: str, attempt: int, asked: int, log: Path) -> None:
    (log.parent / "state").write_text(f"{state}\n")
    assert minutes(60, log, attempt) == asked


def test_a_log_of_no_slurm_job_tells_nothing(log: Path) -> None:
    (log.parent / "state").write_text("TIMEOUT\n")
    assert state_of(log) == "TIMEOUT"
    for text in ("", "visit 1 of 4\n", "Slurm job 8\n"):
        log.write_text(text)
        assert state_of(log) is None
    assert state_of(log.parent / "none.log") is None
