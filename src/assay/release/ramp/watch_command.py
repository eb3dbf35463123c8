"""`assay release watch`: the status, again and again, until the release is over."""

import argparse
import sys
import time
from typing import TYPE_CHECKING

from assay.release.ramp.options import declare_release

if TYPE_CHECKING:
    from assay.release.layout import Layout

INTERVAL_SECONDS = 1.0


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "exit codes: 0 promoted, 3 rolled back, 130 left with Ctrl-C (the release goes on)"
    declare_release(parser)


def run(arguments: argparse.Namespace) -> int:
    """On a terminal the picture is drawn anew; elsewhere each event is a line. Raises: ValueError."""
    from assay.release.ramp.find import find

    layout = find(arguments.release)
    return _on_terminal(layout) if sys.stdout.isatty() else _as_lines(layout)


def _on_terminal(layout: "Layout") -> int:
    from rich.live import Live
    from rich.text import Text

    from assay.release.ramp.status import Standing

    with Live(refresh_per_second=4) as live:
        while True:
            standing = Standing(layout)
            live.update(Text(standing.text(), no_wrap=True, overflow="ellipsis"))
            if standing.state.over:
                return standing.exit_code
            time.sleep(INTERVAL_SECONDS)


def _as_lines(layout: "Layout") -> int:
    from assay.release.ramp.status import Standing, told

    shown = 0
    while True:
        standing = Standing(layout)
        for line in standing.lines[shown:]:
            print(told(line, standing.release), flush=True)
        shown = len(standing.lines)
        if standing.state.over:
            return standing.exit_code
        time.sleep(INTERVAL_SECONDS)
