"""`assay release start`: the ramp, from preflight to the end, or from wherever it stands."""

import argparse
import sys
from pathlib import Path

EXIT_CODES = """It begins the release, or goes on with one that has begun, until it is over. Ctrl-C and SIGTERM end only the
controller: users go on being served, at the share last set, and the same command takes the release up again.

exit codes:
  0  promoted
  1  Assay itself failed; the same command goes on
  2  wrong arguments or release file, or something speaks against beginning (each reason is printed)
  3  rolled back
  4  not over: held or paused (with --until-held), or the controller was ended
  5  another controller drives this release
"""
IN_USE = 5


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXIT_CODES
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="release file, e.g. config/release/digits.yaml"
    )
    parser.add_argument(
        "--until-held", action="store_true", help="end where a person has to decide, with code 4"
    )
    parser.add_argument(
        "--stay",
        action="store_true",
        help="go on after the end, and keep what is served running (for services)",
    )
    parser.add_argument(
        "--force", metavar="REASON", help="release a candidate that is worse offline; the reason is kept"
    )


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError telling what is wrong."""
    from assay.holding import InUse
    from assay.release.load import load
    from assay.release.ramp.start import Options, start
    from assay.release.ramp.status import exit_code

    release = load(arguments.file)
    options = Options(until_held=arguments.until_held, stay=arguments.stay, forced=arguments.force)
    try:
        state = start(release, options, lambda text: print(text, flush=True))
    except InUse as holder:
        print(f"{release.name}: another controller drives this release (process {holder})", file=sys.stderr)
        return IN_USE
    return exit_code(state)
