"""`assay gate`: a candidate against a baseline, for pipelines."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:  # every command of `assay` declares its arguments: nothing heavy before `run`
    from assay.gate.model import Gate

EXIT_CODES = """exit codes:
  0  passed: in no metric worse than the margin (or undecided, with --inconclusive pass)
  1  a run of one side is missing or was interrupted, or Assay itself failed: nothing was judged
  2  wrong arguments, or a difference that is not declared: refused
  3  worse by more than a margin (or undecided, with --inconclusive fail)
  4  undecided
"""


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXIT_CODES
    add = parser.add_argument
    add(
        "candidate",
        type=Path,
        metavar="CANDIDATE",
        help="folder of results, e.g. results/digits, or an archive",
    )
    add(
        "--baseline",
        type=Path,
        metavar="RESULTS",
        help="folder or archive of an earlier commit's results (default: the baseline arm of CANDIDATE)",
    )
    add("--arm", metavar="NAME", help="which arm (default: the one that is not the experiment's baseline)")
    add(
        "--session",
        type=Path,
        action="append",
        default=[],
        metavar="RESULTS",
        help="a further measurement of the baseline: with two of them, costs of different sessions are compared",
    )
    add(
        "--changed",
        action="append",
        default=[],
        metavar="WHAT",
        help="declare a difference: a setting such as `model`, or packages, python, image, code, device, cpu, …",
    )
    add(
        "--margin",
        type=_margin,
        action="append",
        default=[],
        metavar="METRIC=SIZE",
        help="instead of the experiment's: how much worse passes; relative (0.05 = 5%%) for costs",
    )
    add("--inconclusive", choices=("pass", "fail"), help="end with 0 or 3 where nothing was decided")
    add("--json", type=Path, metavar="FILE", help="write everything that was found")
    add("--junit", type=Path, metavar="FILE", help="write JUnit XML, a test case per metric")
    add("--markdown", type=Path, metavar="FILE", help="write a summary for a pull request")
    add(
        "--webhook",
        action="store_true",
        help="POST the JSON to the URL in ASSAY_WEBHOOK_URL, with the token in ASSAY_WEBHOOK_TOKEN if there is one",
    )


def _margin(word: str) -> tuple[str, float]:
    from assay.config.metrics import METRICS, holds_every_difference

    name, _, size = word.partition("=")
    try:
        value = float(size)
    except ValueError:
        value = 0.0
    if not name or not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{word!r}: write METRIC=SIZE, e.g. accuracy=0.005")
    if name in METRICS and holds_every_difference(METRICS[name], value):
        what = f"{word!r} lets everything pass: {name} lies between 0 and 1"
        raise argparse.ArgumentTypeError(f"{what}; write {value:g}% as {name}={value / 100:g}")
    return name, value


def run(arguments: argparse.Namespace) -> int:
    from assay.gate.run import gate
    from assay.gate.wording import text

    url = _webhook() if arguments.webhook else None
    found = gate(
        candidate=arguments.candidate,
        baseline=arguments.baseline,
        arm=arguments.arm,
        sessions=arguments.session,
        changed=arguments.changed,
        margins=dict(arguments.margin),
        inconclusive=arguments.inconclusive,
    )
    print(text(found), end="")
    _write(found, arguments)
    if url is not None:
        from assay.gate.webhook import notify

        if problem := notify(found, url):
            print(f"assay gate: warning: {problem}", file=sys.stderr)
    return found.exit_code


def _webhook() -> str | None:
    """A webhook that cannot be is a warning too: it decides nothing."""
    import os

    from assay.gate.webhook import URL_VARIABLE, url_problem

    url = os.environ.get(URL_VARIABLE, "")
    problem = url_problem(url) if url else "is not set"
    if problem is None:
        return url
    print(f"assay gate: warning: --webhook: {URL_VARIABLE} {problem}; nothing is sent", file=sys.stderr)
    return None


def _write(found: "Gate", arguments: argparse.Namespace) -> None:
    """Raises: ValueError for a file that cannot be written."""
    import socket

    from assay.clock import now
    from assay.gate.junit import junit
    from assay.gate.markdown import markdown
    from assay.records import write_atomically

    contents: list[tuple[Path | None, Callable[[], bytes]]] = [
        (arguments.json, lambda: found.model_dump_json(indent=1).encode() + b"\n"),
        (arguments.junit, lambda: junit(found, timestamp=now()[:19], hostname=socket.gethostname())),
        (arguments.markdown, lambda: markdown(found).encode()),
    ]
    for path, content in contents:
        if path is not None:
            try:
                write_atomically(path, content())
            except OSError as error:
                raise ValueError(f"assay gate: {path}: cannot be written: {error.strerror}") from None
