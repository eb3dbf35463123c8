"""An option that several commands of a release have. Light: commands are declared before what they need is imported."""

import argparse


def declare_release(parser: argparse.ArgumentParser) -> None:
    """Which release is meant: `find.find` takes it."""
    parser.add_argument(
        "release",
        nargs="?",
        metavar="RELEASE",
        help="name, folder or file (default: the only one in releases/)",
    )
