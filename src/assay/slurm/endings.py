"""How Slurm says that a job ended, for whoever starts it again."""

import re
from pathlib import Path

from assay.slurm.site import run

JOB = "Slurm job {}"
"""The first line of the text log of a job that Slurm runs."""


def state_of(log: Path) -> str | None:
    """The last state of the Slurm job that wrote a log, e.g. TIMEOUT; None where it cannot be known."""
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            found = re.fullmatch(JOB.format(r"(\d+)"), lines.readline().strip())
    except OSError:
        return None
    if found is None:
        return None
    told = run(
        ["sacct", "--allocations", "--noheader", "--parsable2", "--format=State", f"--jobs={found[1]}"]
    )
    states = told.stdout.split()
    return states[0] if told.returncode == 0 and states else None


def minutes(base: int, log: Path, attempt: int) -> int:
    """To ask for: twice as much with each attempt where the last one ran out of time, else as at first."""
    return base * 2 ** (attempt - 1) if attempt > 1 and state_of(log) == "TIMEOUT" else base
