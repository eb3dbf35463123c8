"""`assay reproduce`."""

import argparse
import sys
from pathlib import Path

EXIT_CODES = """exit codes:
  0  reproduced: to the bit, or within the intervals where bits cannot be the same
  1  not reproduced: another outcome, other data, or the run did not come to its end
  2  an archive that is damaged, data that are not named, a folder that is there already
"""


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = (
        "assay reproduce [-h] FILE [--into FOLDER] [--data FOLDER] [--cores N] [-- SNAKEMAKE ARGUMENTS]"
    )
    parser.epilog = (
        "SNAKEMAKE ARGUMENTS stand last, after --, e.g. -- --sdm apptainer.\n"
        "It runs the code that lies in the archive: do that with archives whose authors you trust, or in a container or\n"
        "machine of its own. What comes out is compared with the archive, and told in FOLDER/reproduction.json.\n\n"
        + EXIT_CODES
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="an archive, or the folder of one that was taken out"
    )
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="a new folder to run in (default: NAME-reproduced, here)"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="where the data lie, of an experiment on a folder of one's own",
    )
    parser.add_argument("--cores", default="all", metavar="N", help="how many cores to use (default: all)")


def run(arguments: argparse.Namespace) -> int:
    from assay.archive.reproduce import Again, NotReproduced, reproduce

    file: Path = arguments.file
    into = arguments.into or Path(f"{file.name.removesuffix('.zip').removesuffix('.crate')}-reproduced")
    again = Again(file, into, arguments.data, str(arguments.cores), arguments.rest)
    try:
        found = reproduce(again, lambda line: print(line, file=sys.stderr, flush=True))
    except NotReproduced as error:
        print(f"assay reproduce: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        raise ValueError(f"assay reproduce: {error}") from None
    for one in found.circumstances:
        print(f"{one.what}: archived {one.archived}, here {one.here}")
    for pair in found.runs:
        if not pair.identical:
            parts = {
                "outcome": pair.outcome,
                "batches": pair.batches,
                "weights": pair.weights,
                "metrics": pair.metrics,
            }
            other = ", ".join(name for name, same in parts.items() if same is False)
            print(f"{pair.arm}, seed {pair.seed}: other {other}")
    for line in found.estimates:
        if line.agrees is False or line.contradicts:
            print(
                f"{line.arm} in {line.metric}: archived {line.archived!r} ({line.archived_verdict}), "
                f"here {line.reproduced!r} ({line.reproduced_verdict})"
            )
    print(found.sentence)
    print(f"Details: {into / 'reproduction.json'}")
    return 1 if found.word == "different" else 0
