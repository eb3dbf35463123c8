"""The command `assay`."""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Where few letters are known, `\\u2192` stands for an arrow: it is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
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
    words = sys.argv[1:] if argv is None else argv
    # What belongs to Snakemake is split off first: argparse would take the 2 of `--cores 2` for the file.
    words, rest = _split(words)
    arguments = parser.parse_args(words)
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
    from assay.config.check import check, coloured

    text = check(arguments.file, results=Path("results"), full=arguments.full)
    _check_sources(arguments.file)
    if sys.stdout.isatty() and not arguments.full:
        from rich.console import Console

        Console(highlight=False).print(coloured(text))
    else:
        print(text)
    return 0


def _check_sources(file: Path) -> None:
    """Raises: ValueError with every network, module or function that is not there."""
    from assay.config.load import load
    from assay.models.sources import check_source

    problems = []
    for name, arm in load(file).arms.items():
        try:
            check_source(arm.model.source, [file.parent, Path()])
        except ValueError as error:
            problems.append(f"{file}: arms.{name}.model.source: {error}")
    if problems:
        raise ValueError("\n".join(problems))


def _declare_run(parser: argparse.ArgumentParser) -> None:
    _declare_file(parser)
    parser.usage = "assay run [-h] [FILE] [SNAKEMAKE ARGUMENTS]"
    parser.epilog = "What stands after FILE goes to Snakemake, e.g. --dry-run, --cores 2 or --config seeds=3."


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The words that Assay parses; and what goes to Snakemake."""
    if words[:1] in (["run"], ["noise"]):
        return _split_run(words)
    if words[:1] == ["reproduce"] and "--" in words:
        return words[: words.index("--")], words[words.index("--") + 1 :]
    return words, []


def _split_run(words: list[str]) -> tuple[list[str], list[str]]:
    """`run` or `noise`, its help and its file; and what goes to Snakemake."""
    own = 2 if words[1:2] and (words[1] in {"-h", "--help"} or not words[1].startswith("-")) else 1
    return words[:own], words[own:]


def _run(arguments: argparse.Namespace) -> int:
    """Check the file, so that its mistakes are told in short, and hand over to Snakemake in this folder."""
    from assay.config.load import load

    _refuse_misplaced_file(arguments.command, arguments.rest)
    overrides = _overrides(arguments.rest)
    experiment = load(arguments.file, overrides=overrides)
    _refuse_read_only_folder(arguments.rest)

    def command(options: list[str]) -> list[str]:
        return _command(arguments.file, options)

    if experiment.comparison.looks is None or "seeds" in overrides:
        _hand_over(arguments.file, arguments.rest)
    from assay.looks import run_by_looks

    return run_by_looks(arguments.file, experiment, arguments.rest, command)


def _hand_over(file: Path, options: list[str]) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, _command(file, options))


def _command(file: Path, options: list[str]) -> list[str]:
    return [
        # -P: a random.py of the user's own, in this folder, is not Python's.
        *(sys.executable, "-P", "-m", "snakemake"),
        *("--snakefile", str(ROOT / "Snakefile"), "--configfile", str(file)),
        *_defaults(options),
        *options,
    ]


def _refuse_misplaced_file(command: str, options: list[str]) -> None:
    """An experiment file that stands among Snakemake's arguments would be taken for a target, and done."""
    for before, word in zip(["", *options], options, strict=False):
        value = before.startswith("--") and before not in {"--dry-run", "--dryrun"}
        misplaced = Path(word).suffix in {".yaml", ".yml"} and not word.startswith("-") and not value
        if misplaced or word.split("=")[0] in {"--configfile", "--configfiles"}:
            raise ValueError(
                f"assay {command}: {word}: write the experiment file first: assay {command} FILE …"
            )


def _refuse_read_only_folder(options: list[str]) -> None:
    """Results and Snakemake's own files go into the current folder, unless it is told another."""
    if any(word.startswith(("--directory", "-d")) for word in options) or os.access(".", os.W_OK):
        return
    raise ValueError(
        f"{os.path.realpath('.')}: cannot be written to, and results go there; run it in a folder of your own "
        "(the experiment file may lie anywhere)"
    )


def _defaults(options: list[str]) -> list[str]:
    """What is told to Snakemake unless the user tells it."""
    names = {option.split("=")[0] for option in options}
    names |= {option[:2] for option in options if option[:2] in {"-c", "-j"}}
    defaults = []
    if not names & {"--workflow-profile"}:
        defaults += ["--workflow-profile", str(ROOT / "profiles" / "default")]
    if not names & {"--cores", "-c", "--jobs", "-j", "--profile", "--executor", "-e"}:
        defaults += ["--cores", "all"]
    return defaults


def _overrides(options: list[str]) -> dict[str, Any]:
    """The values of `--config key=value …`, read as YAML, as Snakemake reads them."""
    import yaml

    values: dict[str, Any] = {}
    taking = False
    for option in options:
        if option.startswith("-"):
            taking = option.split("=")[0] in {"--config", "-C"}
            option = option.removeprefix("--config=") if option.startswith("--config=") else ""
        if taking and "=" in option:
            key, value = option.split("=", 1)
            try:
                values[key] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise ValueError(f"assay run: --config {option}: not YAML: {error}") from None
    return values


def _declare_noise(parser: argparse.ArgumentParser) -> None:
    _declare_file(parser)
    parser.usage = "assay noise [-h] [FILE] [SNAKEMAKE ARGUMENTS]"
    parser.epilog = (
        "It measures the baseline, or the arm that `noise: {arm: NAME}` names, a second time under another name, and writes "
        "results/EXPERIMENT/noise/floor.json. With `noise: {enabled: true}` verdicts are held against it. What stands after "
        "FILE goes to Snakemake, e.g. --dry-run."
    )


def _noise(arguments: argparse.Namespace) -> NoReturn:
    """Tell what it costs, and hand over to Snakemake."""
    from assay.config.check import noise_cost
    from assay.config.estimate import estimate_noise
    from assay.config.load import load

    _refuse_misplaced_file(arguments.command, arguments.rest)
    experiment = load(arguments.file, overrides=_overrides(arguments.rest))
    cost = estimate_noise(experiment, Path("results"))
    if not cost.trainings and not cost.blocks:
        raise ValueError(f"{arguments.file}: noise: neither seeds nor blocks: nothing would be measured")
    print(noise_cost(cost))
    # A target among Snakemake's arguments would be taken for a value of the option before it.
    _hand_over(arguments.file, [*arguments.rest, "--", f"results/{experiment.name}/noise/floor.json"])


def _declare_verdict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        metavar="FOLDER",
        help="a finished experiment, e.g. results/digits (default: the only one in results/)",
    )


def _verdict(arguments: argparse.Namespace) -> int:
    folder = arguments.folder or _only_result()
    if not folder.is_dir():
        raise ValueError(f"assay verdict: {folder}: is no folder of results; name one, e.g. results/digits")
    from assay.comparison.terminal import show

    show(folder)
    return 0


def _only_result() -> Path:
    found = sorted(path.parents[1] for path in Path("results").glob("*/comparison/comparison.json"))
    if len(found) != 1:
        which = (
            f"one of {', '.join(map(str, found))}" if found else "a finished experiment; results/ holds none"
        )
        raise ValueError(f"assay verdict: name {which}")
    return found[0]


def _declare_nothing(parser: argparse.ArgumentParser) -> None:
    """A command without arguments."""


def _schema(_: argparse.Namespace) -> int:
    import json

    from assay.config.document import schema

    print(json.dumps(schema(), indent=1, ensure_ascii=False))
    return 0


Declare = Callable[[argparse.ArgumentParser], None]
Run = Callable[[argparse.Namespace], int]


def _module(name: str, *given: Path) -> tuple[Declare, Run]:
    """The `declare` and `run` of a command that has a module of its own, imported when it is asked for.

    given: what `declare` takes beside the parser.
    """

    def declare(parser: argparse.ArgumentParser) -> None:
        importlib.import_module(name).declare(parser, *given)

    def run(arguments: argparse.Namespace) -> int:
        status: int = importlib.import_module(name).run(arguments)
        return status

    return declare, run


COMMANDS: dict[str, tuple[str, Declare, Run]] = {
    "check": ("validate an experiment file and show what it will run", _declare_check, _check),
    "plan": ("how many seeds a verdict takes, and what they cost", *_module("assay.comparison.plan_command")),
    "run": ("run an experiment in this folder and print its verdict", _declare_run, _run),
    "watch": ("follow a running experiment, from its logs", *_module("assay.monitoring.command", DEFAULT)),
    "monitor": (
        "exporter, Prometheus, Alertmanager, Grafana: start, stop, status",
        *_module("assay.monitoring.stack_command"),
    ),
    "exporter": (
        "experiments as Prometheus metrics, over HTTP or in a file",
        *_module("assay.monitoring.exporter"),
    ),
    "noise": ("measure an arm against itself: what difference means nothing here", _declare_noise, _noise),
    "verdict": ("print the verdict of a finished experiment", _declare_verdict, _verdict),
    "compare": (
        "the verdict on a table of results that Assay did not produce",
        *_module("assay.comparison.table_command"),
    ),
    "index": ("one page over a folder of results", *_module("assay.reporting.index_command")),
    "gate": (
        "a candidate against a stored baseline, with an exit code for pipelines",
        *_module("assay.gate.command"),
    ),
    "track": ("send results to the experiment's MLflow server", *_module("assay.tracking.command")),
    "image": (
        "the container image: list, lock, build, verify, packages",
        *_module("assay.image.command", DEFAULT),
    ),
    "verify": (
        "check an archive: every file, and every number again from the records",
        *_module("assay.archive.command"),
    ),
    "reproduce": (
        "run an archive's experiment again, and compare",
        *_module("assay.archive.reproduce_command"),
    ),
    "release": (
        "serve the winner to users, one careful step at a time",
        *_module("assay.release.command"),
    ),
    "slurm-profile": (
        "look at this cluster and write its Snakemake profile",
        *_module("assay.slurm.command"),
    ),
    "schema": ("print the JSON schema of the experiment file, for editors", _declare_nothing, _schema),
}


if __name__ == "__main__":
    sys.exit(main())
