"""`assay run` of an experiment that takes several workflows: one for each look, with more of the seeds."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from assay.comparison.model import Comparison, Sequential
from assay.config.schema import Experiment

_RUNS_NOTHING = {
    *(
        "-n",
        "--dry-run",
        "--dryrun",
        "--unlock",
        "--touch",
        "-t",
        "--dag",
        "--rulegraph",
        "--filegraph",
        "--d3dag",
    ),
    *("--lint", "--list-rules", "--list", "-l", "--summary", "-S", "--detailed-summary", "-D", "--report"),
    *("--version", "-v", "--help", "-h", "--delete-all-output", "--list-untracked"),
}
"""Options of Snakemake with which no job runs, so that there is nothing to look at."""

Command = Callable[[list[str]], list[str]]


def run_by_looks(file: Path, experiment: Experiment, options: list[str], command: Command) -> int:
    """Run the workflow with the seeds of one look after the other, until the first metric is decided.

    What a look has trained, the next finds there. An experiment that was interrupted goes on at the look it had come to.
    Raises: ValueError where the file's seeds are not those of its last look.
    """
    looks = experiment.comparison.looks
    assert looks is not None
    seeds = experiment.seeds
    if len(seeds) != looks[-1]:
        raise ValueError(
            f"{file}: comparison.looks: the last look is after {looks[-1]} seeds, and there are {len(seeds)}; end with "
            f"{len(seeds)}, or write `seeds: {looks[-1]}`"
        )
    if _runs_nothing(options):
        return _wait(command(options))
    results = _working_folder(options) / "results" / experiment.name
    begun = _begun(results, experiment)
    for number, look in enumerate(looks, start=1):
        if look < begun:
            continue
        print(f"Look {number} of {len(looks)}: {look} of {looks[-1]} seeds", flush=True)
        code = _wait(command(options if look == looks[-1] else with_seeds(options, seeds[:look])))
        if code:
            return code
        found = Comparison.read(results / "comparison" / "comparison.json").sequential
        if found is None or found.seeds != look:
            return 0  # targets of the user's own: there was nothing to compare
        print(_told(found), flush=True)
        if found.decided:
            return 0
    return 0


def _runs_nothing(options: Sequence[str]) -> bool:
    return bool(_RUNS_NOTHING & {option.split("=")[0] for option in options})


def _told(found: Sequential) -> str:
    state = f"Look {found.look} of {len(found.looks)}, {found.seeds} of {found.looks[-1]} seeds"
    if found.stopped_early:
        return f"{state}: the first metric is decided, no further seeds are run"
    if found.look == len(found.looks):
        return f"{state}: this was the last look"
    return f"{state}: the first metric is open, on with {found.looks[found.look]} seeds"


def with_seeds(options: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Snakemake's options with these seeds: it takes the last `--config` alone, so they join one that is there."""
    word = f"seeds={json.dumps(list(seeds), separators=(',', ':'))}"
    found = list(options)
    for place in reversed(range(len(found))):
        if found[place] in {"--config", "-C"}:
            return [*found[: place + 1], word, *found[place + 1 :]]
        if found[place].startswith("--config="):
            return [
                *found[:place],
                "--config",
                word,
                found[place].removeprefix("--config="),
                *found[place + 1 :],
            ]
    # Last, but before `--`, after which targets stand: what follows `--config` is taken for its values.
    end = found.index("--") if "--" in found else len(found)
    return [*found[:end], "--config", word, *found[end:]]


def _begun(results: Path, experiment: Experiment) -> int:
    """Seeds of the look that the experiment has come to; 0: none yet.

    Only where it was begun with these looks and the first of these seeds.
    """
    from assay.comparison.run import read_experiment

    try:
        before = read_experiment(results / "experiment.yaml")
    except ValueError:
        return 0
    same = before.comparison.looks == experiment.comparison.looks
    return len(before.seeds) if same and before.seeds == experiment.seeds[: len(before.seeds)] else 0


def _working_folder(options: Sequence[str]) -> Path:
    for place, option in enumerate(options):
        if option in {"--directory", "-d"} and place + 1 < len(options):
            return Path(options[place + 1])
        if option.startswith("--directory="):
            return Path(option.removeprefix("--directory="))
    return Path()


def _wait(command: list[str]) -> int:
    """Run it as `exec` would: with this terminal, and every request to end handed on."""
    process = subprocess.Popen(command)

    def hand_on(number: int, _: FrameType | None) -> None:
        # A terminal sends Ctrl-C to both; a second one would make Snakemake give up its jobs.
        if number != signal.SIGINT or not _shares_terminal():
            process.send_signal(number)

    before = {
        number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code


def _shares_terminal() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False
