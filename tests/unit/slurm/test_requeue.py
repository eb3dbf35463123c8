"""A job goes back into the queue when its time ended or it was preempted, and for no other reason."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from assay.records import ASKED_TO_END
from assay.slurm.requeue import MOST_RESTARTS

SCONTROL = """#!/bin/sh
echo "$@" >> {calls}
echo "JobId=7 Requeue=1 PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime={preempted} SecsPreSuspend=0"
"""
SCRIPT = """
import os, signal, subprocess, sys
from pathlib import Path
from assay.slurm.requeue import requeue_when_interrupted
logs = [Path(name) for name in sys.argv[1:]]
requeue_when_interrupted(lambda: logs)
os.kill(os.getpid(), signal.SIGUSR1)
subprocess.run(["sh", "-c", "kill -USR1 $$; echo lived on"], check=True)
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A function that runs a job to its end, and gives what Slurm was asked."""
    calls = tmp_path / "calls"

    def run(*logs: str, preempted: str = "None", restarts: int = 0) -> list[str]:
        calls.write_text("")
        program = tmp_path / "scontrol"
        program.write_text(SCONTROL.format(calls=calls, preempted=preempted))
        program.chmod(0o755)
        paths = []
        for number, text in enumerate(logs):
            paths.append(tmp_path / f"{number}.log")
            paths[-1].write_text(text)
        environment = os.environ | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_RESTART_COUNT": str(restarts),
        }
        command = [sys.executable, "-c", SCRIPT, *map(str, paths)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "lived on" in done.stdout, "what it starts ignores the signal too"
        return calls.read_text().splitlines()

    return run


OUT_OF_TIME = "x: " + ASKED_TO_END.format(signal=signal.SIGUSR1.value) + "; the same command goes on"


def test_time_that_ended(asked) -> None:  # type: ignore[no-untyped-def]
    assert asked(OUT_OF_TIME) == ["requeue 7"]


def test_what_is_finished_or_failed_by_itself_is_not(asked) -> None:  # type: ignore[no-untyped-def]
    assert asked() == []
    assert asked("KeyError: 'my bug'") == ["show job 7 --oneliner"]
    assert asked(ASKED_TO_END.format(signal=signal.SIGTERM.value)) == ["show job 7 --oneliner"], "scancel"


def test_preempted(asked) -> None:  # type: ignore[no-untyped-def]
    assert asked("", preempted="2026-01-01T00:00:09") == ["show job 7 --oneliner", "requeue 7"]


def test_a_run_that_never_gets_further_is_given_up(asked) -> None:  # type: ignore[no-untyped-def]
    assert asked(OUT_OF_TIME, restarts=MOST_RESTARTS) == []
