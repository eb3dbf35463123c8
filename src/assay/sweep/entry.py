"""What the entry points of a sweep have in common: their arguments, and how they end."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # nothing heavy before the arguments are read
    from assay.config.arm import Arm
    from assay.config.sweep import Sweep


@dataclass(frozen=True)
class Job:
    """One job of the search for an arm's settings."""

    experiment: str
    arm: str
    sweep: "Sweep"
    settings: "Arm"
    output: Path
    number: int
    """Of the round or comparison; 0 where a job has none."""


def entry(
    name: str,
    description: str | None,
    argv: Sequence[str] | None,
    act: Callable[[Job], object],
    number: str | None = None,
) -> int:
    """Read the arguments, act, and return the exit status. number: what `Job.number` counts, where it counts anything."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--sweep", required=True, help="how the arm is tuned, as JSON")
    parser.add_argument("--settings", required=True, help="the arm as in the file, as JSON")
    if number is not None:
        parser.add_argument(f"--{number}", type=int, required=True, help="from 0")
    parser.add_argument("--output", type=Path, required=True, help="folder of the arm's sweep")
    given = parser.parse_args(argv)

    from assay.config.arm import Arm
    from assay.config.sweep import Sweep

    try:
        sweep, settings = Sweep.model_validate_json(given.sweep), Arm.model_validate_json(given.settings)
        counted = 0 if number is None else getattr(given, number)
        act(Job(given.experiment, given.arm, sweep, settings, given.output, counted))
    except (ValueError, OSError) as error:
        print(f"{name}: {given.arm}: {error}", file=sys.stderr)
        return 1
    return 0
