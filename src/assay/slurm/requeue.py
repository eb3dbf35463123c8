"""A job whose time ended, or that made way for another, goes back into the queue."""

import atexit
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from assay.records import ASKED_TO_END

MOST_RESTARTS = 100
"""Of one job: a run that never gets further than its checkpoint does not go round for ever."""
SECONDS = 30.0
"""For Slurm's controller to answer."""


def requeue_when_interrupted(unfinished: Callable[[], Iterable[Path]]) -> None:
    """For the process on a node that runs a job, before it starts it.

    Slurm announces the end of a job's time by SIGUSR1 (`--signal`) to every process of its step. This process and all
    that it starts ignore it; only a training listens, writes a checkpoint, says so in its log, and ends. Then the job
    goes back into the queue. So does one that was preempted: where it ends by itself within its grace period, Slurm
    leaves it in the state PREEMPTED, from which nothing takes it up.

    unfinished: the text logs of what the job was to make and did not.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def at_exit() -> None:
        job, logs = os.environ.get("SLURM_JOB_ID"), list(unfinished())
        if job and logs and (any(map(_ran_out_of_time, logs)) or _was_preempted(job)):
            requeue(job)

    atexit.register(at_exit)


def requeue(job: str) -> None:
    """Ask Slurm to run the job again; where it does not, the job fails and Snakemake submits it again."""
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if restarts >= MOST_RESTARTS:
        print(f"Slurm job {job} was restarted {restarts} times: not again", file=sys.stderr)
        return
    done = _scontrol("requeue", job)
    if done.returncode:
        print(f"Slurm does not requeue job {job}: {done.stderr.strip()}", file=sys.stderr)


def _ran_out_of_time(log: Path) -> bool:
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return ASKED_TO_END.format(signal=signal.SIGUSR1.value) in text


def _was_preempted(job: str) -> bool:
    found = re.search(r"\bPreemptTime=(\S+)", _scontrol("show", "job", job, "--oneliner").stdout)
    return found is not None and found[1] not in ("None", "Unknown")


def _scontrol(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["scontrol", *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))
