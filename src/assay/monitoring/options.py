"""Options that several commands of the monitoring have."""

import argparse
from collections.abc import Callable

from assay.monitoring.job import LEAST_SILENCE


def seconds(least: float, most: float) -> Callable[[str], float]:
    """The type of an option that takes seconds within bounds."""

    def read(word: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{word!r}: write seconds, from {least:g} to {most:g}")
        return value

    return read


def add_interval(
    parser: argparse.ArgumentParser, default: float, what: str, *, least: float, most: float
) -> None:
    """what: that lies between two of them."""
    parser.add_argument(
        "--interval",
        type=seconds(least, most),
        default=default,
        metavar="SECONDS",
        help=f"between two {what} (default: {default:g})",
    )


def add_silence(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--silence",
        type=seconds(0.1, 86400),
        default=LEAST_SILENCE,
        metavar="SECONDS",
        help=f"without a line, below which no run counts as stalled or killed (default: {LEAST_SILENCE:g})",
    )
