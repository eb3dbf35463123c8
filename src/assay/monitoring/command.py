"""`assay watch`: a running experiment on a terminal, from its files."""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from assay.monitoring.job import CONFIRM_SECONDS, LEAST_SILENCE
from assay.monitoring.options import add_interval, add_silence

TYPE_CHECKING = False
if TYPE_CHECKING:  # every command of `assay` declares its arguments: nothing heavy before `run`
    from rich.console import Console

    from assay.monitoring.state import Snapshot
    from assay.monitoring.watcher import Watcher

FINISHED, UNFINISHED = 0, 1
_MARKS = ("experiment.yaml", ".lock", "runs", "data", "health", "profile")
"""Of these, a folder of results has at least one."""

EXIT_CODES = """It ends by itself when the experiment does. Exit codes:
  0    the experiment is finished: its report is there
  1    the workflow ended before that, on this machine; of one on another machine that cannot be seen
  2    wrong arguments
  130  Ctrl-C
--once and --json always end with 0.
"""


def declare(parser: argparse.ArgumentParser, default: Path) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXIT_CODES
    parser.set_defaults(default=default)
    parser.add_argument(
        "target",
        type=Path,
        nargs="?",
        metavar="FILE|FOLDER",
        help="experiment file, or its folder of results, e.g. results/digits "
        "(default: what was begun last in results/, else config/config.yaml)",
    )
    parser.add_argument(
        "--once", action="store_true", help="print once and end; also where the output is no terminal"
    )
    parser.add_argument("--json", action="store_true", help="print one snapshot as JSON and end")
    add_interval(parser, 1.0, "looks", least=0.05, most=86400)
    add_silence(parser)


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from assay.monitoring.view import render

    watcher = watcher_of(arguments.target or begun_last() or arguments.default, arguments.silence)
    console = Console(highlight=False, emoji=False, markup=False)
    if arguments.json:
        print(json.dumps(_look(watcher).json(), allow_nan=False))
        return 0
    if arguments.once or not console.is_terminal or console.is_dumb_terminal:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")
        console.print(render(_look(watcher), console.width))
        return 0
    return follow(watcher, console, arguments.interval)


def begun_last() -> Path | None:
    """The folder of results in which a workflow was started last."""
    found = [path for path in Path("results").glob("*/.lock") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def watcher_of(target: Path, least_silence: float = LEAST_SILENCE) -> "Watcher":
    """Raises: ValueError where `target` is neither an experiment file nor a folder of results."""
    from assay.monitoring.watcher import Watcher

    if target.is_dir():
        if any((target / name).exists() for name in _MARKS):
            return Watcher(target.resolve() if not target.name else target, least_silence=least_silence)
        inside = [str(path.parent) for path in sorted(target.glob("*/experiment.yaml"))]
        which = f"name one of {', '.join(inside[:5])}" if inside else "name one, e.g. results/digits"
        raise ValueError(f"assay watch: {target}: is no folder of results; {which}, or the experiment file")
    if not target.exists():
        raise ValueError(
            f"assay watch: {target}: no such file or folder; to watch an experiment from before it begins, name its file"
        )
    if target.name == "experiment.yaml" and any((target.parent / name).exists() for name in _MARKS[1:]):
        return watcher_of(target.parent, least_silence)
    from assay.config.load import load

    experiment = load(target)
    folder = Path("results") / experiment.name
    return Watcher(folder, experiment, target.stat().st_mtime, least_silence)


def _look(watcher: "Watcher") -> "Snapshot":
    """One snapshot. Whether somebody is silent takes two looks: times of change may be another clock's."""
    snapshot = watcher.look()
    silent = [run.silent_s for run in snapshot.runs if run.state == "running"]
    silent += [block.silent_s for block in snapshot.blocks if block.state == "running"]
    if any(seconds is None or seconds > watcher.least_silence for seconds in silent):
        time.sleep(CONFIRM_SECONDS)
        snapshot = watcher.look()
    return snapshot


def follow(watcher: "Watcher", console: "Console", interval: float) -> int:
    """Draw until the experiment is finished, or the workflow that was seen to work on it is gone."""
    from rich.live import Live

    from assay.monitoring.view import render

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)  # through Live, which gives the cursor back

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    seen_working = False
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            began = time.monotonic()
            snapshot = watcher.look()
            live.update(render(snapshot, console.width, console.height), refresh=True)
            if snapshot.phase == "finished":
                return FINISHED
            alive = snapshot.session is not None and snapshot.session.alive
            seen_working = seen_working or (snapshot.phase == "running" and bool(alive))
            if snapshot.phase == "ended" and seen_working:
                return UNFINISHED
            time.sleep(max(0.05, interval - (time.monotonic() - began)))
