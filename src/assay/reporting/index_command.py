"""`assay index`: one page over a folder of results."""

import argparse
from collections import Counter
from pathlib import Path


def declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("results"),
        metavar="FOLDER",
        help="folder that holds the experiments' folders (default: results)",
    )
    parser.epilog = (
        "Writes FOLDER/index.html: every experiment with its question, verdict, validity, seeds and links to its report and "
        "archive; what is unfinished or cannot be read is listed with the reason."
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the page, and print where it is and what is on it."""
    from assay.reporting.index import write_index

    path, entries = write_index(arguments.folder)
    counts = Counter(entry.state for entry in entries)
    listed = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no experiments"
    print(f"{path}: {listed}")
    return 0
