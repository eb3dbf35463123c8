"""Jobs that failed: what each said last, once; and which they were, at the end."""

import re
from dataclasses import dataclass, field
from pathlib import Path

LAST_LINES = 6
"""Of a job's log: the end of a traceback, or all of a refusal."""
SLURM = ("slurmstepd:", "srun: error:", "sbatch: error:")
MOST_TOLD = 10
"""Failures told as they happen: a sweep whose every run fails does not flood the terminal."""

ALREADY_TOLD = ("CalledProcessError", "Exiting because a job execution failed")
"""In Snakemake's own words about a job's failure: the whole command, once more."""
INTERRUPTED = "Terminating processes on user request"
END = "At least one job did not complete successfully"


@dataclass
class Failures:
    """The failures of one run of the workflow, by job."""

    titles: dict[int, str] = field(default_factory=dict)
    told: set[tuple[int, str]] = field(default_factory=set)
    silent: dict[int, str] = field(default_factory=dict)
    """Told at the end: a log that is empty may have been emptied by the next attempt, which then says it again."""
    interrupted: bool = False

    def add(self, number: int, title: str, logs: list[str]) -> str | None:
        """What to say of a job's failure; None for what was said before the job was tried again."""
        texts = [Path(name) for name in logs if not name.endswith(".jsonl")]
        log = texts[0] if texts else None
        end = "\n".join(filter(None, [last_lines(log), *map(cluster_lines, texts[1:])]))
        self.titles[number] = title
        where = "" if log is None else f" ({log})"
        if not end:
            self.silent[number] = f"{title} failed and said nothing{where}"
            return None
        self.silent.pop(number, None)
        # Another attempt is another process, another Slurm job, another second.
        same = (number, re.sub(r"\d+", "#", end))
        if self.interrupted or same in self.told or len(self.told) >= MOST_TOLD:
            return None
        self.told.add(same)
        return f"{title} failed{where}:\n{end}"

    def mended(self, number: int) -> None:
        """The job was tried again and finished."""
        self.titles.pop(number, None)
        self.silent.pop(number, None)

    def summary(self) -> str:
        """What to read last, after everything else that could run has run."""
        if self.interrupted:
            return "\nInterrupted. What is done stays done: the same command goes on from here."
        if not self.titles:
            return (
                "\nStopped before all was done. What is done stays done: the same command goes on from here."
            )
        titles = list(self.titles.values())
        rest = len(titles) - MOST_TOLD
        named = "; ".join(titles[:MOST_TOLD]) + (f"; and {rest} more" if rest > 0 else "")
        count = f"{len(titles)} job{'s' if len(titles) != 1 else ''}"
        silent = "".join(f"\n{text}" for text in list(self.silent.values())[:MOST_TOLD])
        return (
            f"{silent}\n{count} failed: {named}.\n"
            "There is no verdict without them. What is done stays done: mend the cause, then run the same command."
        )


def last_lines(log: Path | None) -> str:
    """The end of a text log, indented; empty where there is none."""
    return _indented(_lines(log)[-LAST_LINES:])


def cluster_lines(log: Path) -> str:
    """What Slurm itself wrote last into the log of its job: a limit, a signal, a request that cannot be met."""
    return _indented([line for line in _lines(log) if line.startswith(SLURM)][-LAST_LINES:])


def _lines(log: Path | None) -> list[str]:
    try:
        text = "" if log is None else log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()]


def _indented(lines: list[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
