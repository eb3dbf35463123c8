"""The command `assay`."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import assay

ROOT = Path(__file__).parents[2]
"""The checkout: the workflow lies in it."""
DEFAULT = ROOT / "config" / "config.yaml"

EXIT_CODES = """exit codes:
  0  done
  1  a job failed, or Assay itself did
  2  wrong arguments, or an experiment file with mistakes (each is printed, none was run)
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="assay",
        description="Is model B better than model A, by how much, and would you get the same answer again?",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"assay {assay.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, declare, _) in COMMANDS.items():
        declare(commands.add_parser(name, help=summary, description=summary))
    arguments, rest = parser.parse_known_args(argv)
    if rest and arguments.command != "run":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.rest = rest
    try:
        return COMMANDS[arguments.command][2](arguments)
    except ValueError as error:
        # Every mistake of a user's is a ValueError whose text says what to write instead.
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _declare_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        default=DEFAULT,
        metavar="FILE",
        help="experiment file (default: config/config.yaml)",
    )


def _declare_check(parser: argparse.ArgumentParser) -> None:
    _declare_file(parser)
    parser.add_argument(
        "--full", action="store_true", help="print the resolved experiment with every default, as YAML"
    )


def _check(arguments: argparse.Namespace) -> int:
    from assay.config.check import check

    print(check(arguments.file, results=Path("results"), full=arguments.full))
    return 0


def _declare_run(parser: argparse.ArgumentParser) -> None:
    _declare_file(parser)
    parser.epilog = "What else is given goes to Snakemake, e.g. --dry-run, --cores 2 or --config seeds=3."


def _run(arguments: argparse.Namespace) -> NoReturn:
    """Check the file, so that its mistakes are told in short, and hand over to Snakemake in this folder."""
    from assay.config.load import load

    if "--config" not in arguments.rest:
        load(arguments.file)
    options: list[str] = [] if _names_cores(arguments.rest) else ["--cores", "all"]
    command = [
        *(sys.executable, "-m", "snakemake"),
        *("--snakefile", str(ROOT / "Snakefile"), "--configfile", str(arguments.file)),
        *options,
        *arguments.rest,
    ]
    sys.stdout.flush()
    os.execv(sys.executable, command)


def _names_cores(options: list[str]) -> bool:
    return any(
        option.split("=")[0] in {"--cores", "-c", "--jobs", "-j", "--profile", "--executor"}
        for option in options
    )


def _declare_verdict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="a finished experiment, e.g. results/digits"
    )


def _verdict(arguments: argparse.Namespace) -> int:
    from assay.comparison.terminal import show

    show(arguments.folder)
    return 0


def _declare_nothing(parser: argparse.ArgumentParser) -> None:
    """A command without arguments."""


def _schema(_: argparse.Namespace) -> int:
    import json

    from assay.config.document import schema

    print(json.dumps(schema(), indent=1, ensure_ascii=False))
    return 0


Declare = Callable[[argparse.ArgumentParser], None]
COMMANDS: dict[str, tuple[str, Declare, Callable[[argparse.Namespace], int]]] = {
    "check": ("validate an experiment file and show what it will run", _declare_check, _check),
    "run": ("run an experiment in this folder and print its verdict", _declare_run, _run),
    "verdict": ("print the verdict of a finished experiment", _declare_verdict, _verdict),
    "schema": ("print the JSON schema of the experiment file, for editors", _declare_nothing, _schema),
}


if __name__ == "__main__":
    sys.exit(main())
