"""`assay verify`."""

import argparse
import sys
from pathlib import Path

EXIT_CODES = """exit codes:
  0  everything agrees: every file has its checksum, and every number comes out of the records again
  1  something does not: one line each, with the file that it is about
  2  there is nothing to check: no such file, or no results in it
"""


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "It checks every checksum, every record against its schema, its place and its log, and computes every table and\n"
        "figure again from the records. It needs no network and runs none of the code in the archive.\n\n"
        + EXIT_CODES
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE|FOLDER",
        help="an archive (NAME.crate.zip), the folder of one that was taken out, or a folder of results",
    )


def run(arguments: argparse.Namespace) -> int:
    from assay.archive.verify import verify

    try:
        found = verify(arguments.file)
    except OSError as error:
        raise ValueError(f"assay verify: {error}") from None
    for problem in found.problems:
        print(problem)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    sums = f"{found.files:,} files, " if found.files is not None else ""
    looked = f"{sums}{found.records:,} records, {found.recomputed:,} files computed again"
    if found.holds:
        print(f"{arguments.file}: everything agrees ({looked})")
        return 0
    count = len(found.problems)
    print(
        f"{arguments.file}: {count} {'thing does' if count == 1 else 'things do'} not agree ({looked})",
        file=sys.stderr,
    )
    return 1
