"""`assay plan`: how many seeds a verdict takes, and what they cost."""

import argparse
import math
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:  # every command of `assay` declares its arguments: nothing heavy before `run`
    from assay.comparison.model import Comparison, MetricResult
    from assay.comparison.pilot import Cost, Pilot
    from assay.comparison.sequential import Schedule

EPILOG = """PILOT is a finished experiment (its file, or its folder such as results/digits), or a table as `assay compare` takes it.
Without one, tell a guess:

  assay plan results/digits
  assay plan results/digits --difference 0.005 --power 0.9
  assay plan results/digits --for equivalence --margin 0.01 --difference 0
  assay plan --difference 0.01 --deviation 0.008
  assay plan results/digits --difference 0.005 --looks 8,12,16 --spending pocock

Differences, deviations and margins are in the metric's unit, for costs relative: 0.05 is 5%.
"""


def declare(parser: argparse.ArgumentParser) -> None:
    from assay.comparison.table_command import declare_settings

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        "pilot", type=Path, nargs="?", metavar="PILOT", help="experiment file, folder of results, or table"
    )
    parser.add_argument("--power", type=float, default=0.8, metavar="SHARE", help="default: 0.8")
    parser.add_argument(
        "--for",
        dest="goal",
        choices=("difference", "equivalence"),
        default="difference",
        help="default: difference",
    )
    parser.add_argument(
        "--difference", type=float, metavar="D", help="to be found, or supposed (default: the pilot's)"
    )
    parser.add_argument(
        "--deviation", type=float, metavar="S", help="of the differences between pairs (default: the pilot's)"
    )
    parser.add_argument("--margin", type=float, metavar="M", help="for equivalence (default: the pilot's)")
    parser.add_argument("--arms", type=int, default=2, metavar="N", help="of a guess, baseline included")
    parser.add_argument(
        "--at-once", type=int, default=1, metavar="N", help="jobs that run side by side, for the wall time"
    )
    parser.add_argument(
        "--looks", metavar="N,N,…", help="seeds after which it is looked, ascending: what that is worth"
    )
    parser.add_argument(
        "--spending",
        choices=("obrien-fleming", "pocock"),
        default="obrien-fleming",
        help="of looks (default: obrien-fleming)",
    )
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    declare_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    import json

    from assay.comparison.plan import Wanted, plan
    from assay.comparison.plan_text import text

    _check(arguments)
    wanted = Wanted(
        goal=arguments.goal,
        power=arguments.power,
        difference=arguments.difference,
        deviation=arguments.deviation,
        margin=arguments.margin,
        at_once=arguments.at_once,
        schedule=_schedule(arguments),
    )
    plans = [plan(pilot, wanted, cost) for pilot, cost in _pilots(arguments)]
    if arguments.json:
        print(json.dumps([one.model_dump(mode="json") for one in plans], indent=1, allow_nan=False))
    else:
        print(text(plans, at_once=arguments.at_once))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises: ValueError for arguments that say nothing."""
    for name, low, high, instead in (
        ("power", 0.0, 1.0, "a share between 0 and 1, e.g. 0.8"),
        ("deviation", 0.0, math.inf, "a number above 0"),
        ("margin", 0.0, math.inf, "a number above 0"),
        ("difference", -math.inf, math.inf, "a number"),
        ("at_once", 0, math.inf, "1 or more"),
        ("arms", 1, 1000, "2 or more, at most 999"),
        ("confidence", 0.5, 1.0, "a share above 0.5 and below 1, e.g. 0.95"),
    ):
        value = getattr(arguments, name)
        if value is not None and not low < value < high:
            raise ValueError(f"assay plan: --{name.replace('_', '-')} {value:g}: write {instead}")
    if arguments.power > 0.999:
        raise ValueError(f"assay plan: --power {arguments.power:g}: simulation tells up to 0.999; write less")
    if arguments.pilot is None and (arguments.deviation is None or arguments.difference is None):
        raise ValueError(
            "assay plan: name a finished experiment or a table, or tell a guess: --difference D --deviation S"
        )


def _schedule(arguments: argparse.Namespace) -> "Schedule | None":
    """Raises: ValueError for what are no looks."""
    if arguments.looks is None:
        return None
    from assay.comparison.sequential import Schedule

    words = arguments.looks.split(",")
    looks = tuple(int(word) for word in words if word.strip().isdecimal() and len(word) < 4)
    if len(looks) != len(words) or len(looks) < 2 or sorted(set(looks)) != list(looks) or looks[0] < 3:
        raise ValueError(
            f"assay plan: --looks {arguments.looks}: write numbers of seeds, ascending, e.g. 8,12,16"
        )
    return Schedule(looks, arguments.spending)


def _pilots(arguments: argparse.Namespace) -> list[tuple["Pilot", "Cost"]]:
    from assay.comparison.pilot import Cost, block_cost, seed_cost

    unknown = Cost(None, None, None)
    if arguments.pilot is None:
        return [(_guess(arguments), unknown)]
    path = arguments.pilot
    if path.suffix in {".csv", ".tsv", ".parquet"}:
        from assay.comparison.table_command import settings_of
        from assay.comparison.table_run import compare_table

        comparison = compare_table(path, settings_of(arguments))
        chosen = comparison.metrics if arguments.metric else comparison.metrics[:1]
        return [(pilot, unknown) for metric in chosen for pilot in _of_arms(comparison, metric)]
    folder = _folder(path)
    from assay.comparison.model import Comparison
    from assay.comparison.run import read_experiment

    comparison = Comparison.read(folder / "comparison" / "comparison.json")
    experiment = read_experiment(folder / "experiment.yaml")
    found = []
    for metric in _chosen(comparison, arguments.metric or [], folder):
        cost = (seed_cost if metric.pairing == "seed" else block_cost)(experiment, folder)
        found += [(pilot, cost) for pilot in _of_arms(comparison, metric)]
    return found


def _of_arms(comparison: "Comparison", metric: "MetricResult") -> list["Pilot"]:
    """Arms of which nothing can be learnt are named, and the others planned."""
    from assay.comparison.pilot import left_out, pilots

    found = pilots(comparison, metric)
    for text in left_out(metric):
        print(f"not planned: {text}", file=sys.stderr)
    return found


def _folder(path: Path) -> Path:
    """Of results, by itself or by its experiment's file."""
    if path.is_dir():
        return path
    if path.suffix not in {".yaml", ".yml"}:
        raise ValueError(f"{path}: no such folder of results; name one, an experiment file, or a .csv table")
    from assay.config.load import load

    folder = Path("results") / load(path).name
    if not (folder / "comparison" / "comparison.json").exists():
        raise ValueError(
            f"{path}: there is no finished pilot in {folder}; run the experiment with a few seeds first, or tell a guess: "
            "assay plan --difference D --deviation S"
        )
    return folder


def _chosen(comparison: "Comparison", names: list[str], folder: Path) -> list["MetricResult"]:
    from assay.config.advice import instead_of

    by_name = {metric.name: metric for metric in comparison.metrics}
    for name in names:
        if name not in by_name:
            raise ValueError(f"{folder}: no metric {name!r} was judged; {instead_of(name, by_name)}")
    return [by_name[name] for name in names] if names else comparison.metrics[:1]


def _guess(arguments: argparse.Namespace) -> "Pilot":
    from assay.comparison.model import MetricResult
    from assay.comparison.pilot import Pilot
    from assay.comparison.table_settings import metric_of_argument
    from assay.config.metrics import METRICS

    told = metric_of_argument((arguments.metric or ["metric"])[0])
    own = METRICS.get(told.name)
    contrasts = math.comb(arguments.arms, 2) if arguments.contrasts == "all" else arguments.arms - 1
    level = round(1 - (arguments.confidence or 0.95), 12) / contrasts
    metric = MetricResult(
        name=told.name,
        title=own.title if own else told.name,
        unit=own.unit if own else "",
        direction=told.direction or (own.direction if own else "higher"),
        pairing="block" if own and own.pairing == "block" else "seed",
        scale=told.scale or (own.scale if own else "difference"),
        margin=told.margin,
        position=0,
        arms={},
        contrasts=[],
    )
    return Pilot(metric, "an arm", "the baseline", 0, math.nan, math.nan, level, level)
