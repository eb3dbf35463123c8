"""`assay release stop`: end what a release left serving."""

import argparse
import sys

EXIT_CODES = """It ends front, versions and identity service when they have answered what they have. Nobody is served any more.

exit codes: 0 all is asked to end; 2 wrong arguments; 5 a controller drives it: end that first
"""
IN_USE = 5


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXIT_CODES
    parser.add_argument("release", metavar="RELEASE", help="name, folder or file")


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError."""
    from assay.holding import InUse
    from assay.release.ramp.find import find
    from assay.release.ramp.start import stop

    layout = find(arguments.release)
    try:
        stop(layout)
    except InUse as holder:
        print(
            f"{layout.folder}: a controller drives this release (process {holder}); end it first",
            file=sys.stderr,
        )
        return IN_USE
    return 0
