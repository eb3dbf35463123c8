"""`assay release status`: what is served to whom, and how sure the judge is."""

import argparse
import json

from assay.release.ramp.options import declare_release

EXIT_CODES = """exit codes with --exit-code (otherwise 0):
  0  promoted
  3  rolled back
  4  not over: going on, held or paused
"""


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXIT_CODES
    declare_release(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--exit-code", action="store_true", help="tell how it stands by the exit code")


def run(arguments: argparse.Namespace) -> int:
    """Raises: ValueError."""
    from assay.release.ramp.find import find
    from assay.release.ramp.status import Standing

    standing = Standing(find(arguments.release))
    print(json.dumps(standing.as_dict(), indent=1) if arguments.json else standing.text())
    return standing.exit_code if arguments.exit_code else 0
