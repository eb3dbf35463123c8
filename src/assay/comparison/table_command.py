"""`assay compare TABLE`: the verdict on results that Assay did not produce."""

import argparse
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:  # every command of `assay` declares its arguments: nothing heavy before `run`
    from assay.comparison.table_settings import TableSettings

EPILOG = """TABLE is a CSV, TSV or Parquet file with one row for each number and the columns arm, seed, metric and value.
Arms are paired by seed; an empty value is a run that has none. Metrics that Assay knows (config/README.md) are
judged as in an experiment; others need a direction and a scale:

  assay compare results.csv --baseline resnet50 --metric accuracy:0.005 --metric bleu:higher:difference:0.2

--settings FILE.yaml says the same at more length:

  baseline: resnet50
  confidence: 0.95
  metrics:
    - {name: accuracy, margin: 0.005}
    - {name: bleu, direction: higher, scale: difference, margin: 0.2, title: BLEU, unit: points}

There is no contract: nothing can be checked about what else differs between the arms.
"""


def declare(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("table", type=Path, metavar="TABLE", help="e.g. results.csv")
    declare_settings(parser)
    parser.add_argument(
        "--bayesian",
        action="store_true",
        default=None,
        help="estimate differences the Bayesian way too; it decides nothing",
    )
    parser.add_argument("--json", action="store_true", help="print comparison.json instead of the verdict")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="write comparison.json and metrics.csv there"
    )


def declare_settings(parser: argparse.ArgumentParser) -> None:
    """What tells how a table is compared."""
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML file; arguments override it")
    parser.add_argument("--baseline", metavar="ARM", help="default: the arm of the first row")
    parser.add_argument(
        "--metric",
        action="append",
        metavar="NAME[:…]",
        help="NAME[:higher|lower][:difference|ratio][:MARGIN]; again for further ones, most important first "
        "(default: all of the table, as they appear)",
    )
    parser.add_argument("--confidence", type=float, metavar="SHARE", help="default: 0.95")
    parser.add_argument(
        "--contrasts",
        choices=("baseline", "all"),
        help="each arm with the baseline, or all pairs, which takes more seeds to decide (default: baseline)",
    )
    parser.add_argument("--question", help="what you want to know, in one sentence")


def settings_of(arguments: argparse.Namespace) -> "TableSettings":
    """Raises: ValueError for a mistake in the file or the arguments."""
    from assay.comparison.table_settings import TableSettings, metric_of_argument, read_settings

    settings = read_settings(arguments.settings) if arguments.settings else TableSettings()
    given = {
        name: value
        for name in ("baseline", "confidence", "contrasts", "bayesian", "question")
        if (value := getattr(arguments, name, None)) is not None
    }
    if not 0.5 < given.get("confidence", 0.95) < 1:
        raise ValueError(
            f"--confidence {given['confidence']:g}: write a share above 0.5 and below 1, e.g. 0.95"
        )
    if arguments.metric:
        given["metrics"] = [metric_of_argument(text) for text in arguments.metric]
    return settings.model_copy(update=given)


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from assay.comparison.table_run import compare_table
    from assay.comparison.terminal import render

    comparison = compare_table(arguments.table, settings_of(arguments), output=arguments.output)
    if arguments.json:
        print(comparison.model_dump_json(indent=1))
        return 0
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    place = None if arguments.output is None else arguments.output / "comparison.json"
    render(comparison, place, Console(highlight=False, soft_wrap=False, markup=False, emoji=False))
    return 0
