"""Speed of the thing itself in one table: training, what the harness adds to a visit, and what the sampler costs.

    python benchmarks/speed.py [--timm FOLDER] [--torchvision FOLDER] [--against FOLDER] [--rounds 5] …

The parts are those of `training.py`, `visit.py` and `telemetry.py`, which say how each is measured and print more.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import telemetry
import torch
import training
import visit

Line = tuple[str, str, str, str, str]
"""What; Assay's; the other's; ratio with its interval; the aim."""


def trainings(options: argparse.Namespace) -> list[Line]:
    lines: list[Line] = []
    for table, (ours, *others) in training.run(options).items():
        for row in others:
            rates = f"{ours.rate:,.1f}", f"{row.rate:,.1f}"
            lines.append(
                (f"images/s, {table}: {row.name}", *rates, training.shown(row.ratio, row.interval), ">= 1")
            )
            rates = f"{ours.cpu_rate:,.1f}", f"{row.cpu_rate:,.1f}"
            ratio = training.shown(row.cpu_ratio, row.cpu_interval)
            lines.append(("    per CPU second", *rates, ratio, ">= 1"))
    return lines


def visits(options: argparse.Namespace) -> list[Line]:
    found = visit.measure(options)
    medians = [
        {part: median(parts[part] for parts in rounds) for part in visit.PARTS} for rounds in found.values()
    ]
    lines: list[Line] = []
    for part in visit.PARTS:
        other = f"{medians[1][part]:.2f}" if len(medians) == 2 else "-"
        lines.append((f"s added to a visit, {part}", f"{medians[0][part]:.2f}", other, "-", "-"))
    sums = [f"{median(visit.sum_of(parts) for parts in rounds):.2f}" for rounds in found.values()]
    ratio = "-"
    if len(sums) == 2:
        middle, *ends = visit.ratio(*found.values())
        ratio = training.shown(middle, (ends[0], ends[1]))
    return [*lines, ("s added to a visit, all", sums[0], sums[1] if len(sums) == 2 else "-", ratio, "< 1")]


def sampler(options: argparse.Namespace) -> list[Line]:
    torch.set_num_threads(1)
    cpus = os.sched_getaffinity(0)
    settings = argparse.Namespace(rounds=options.pairs, seconds=0.5, interval=0.1, share=False)
    with tempfile.TemporaryDirectory() as folder:
        ratios, cost = telemetry.pairs(settings, Path(folder) / "telemetry.jsonl")
    os.sched_setaffinity(0, cpus)
    ratio = training.shown(median(ratios), telemetry.interval_of_median(ratios))
    return [
        ("throughput with the sampler / without", "-", "-", ratio, f"> {1 - telemetry.AIM:.3f}"),
        ("CPU time of the sampler, of one CPU", f"{cost:.2%}", "-", "-", f"< {telemetry.AIM:.1%}"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    training.add_options(parser)
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="another checkout of Assay, for visits"
    )
    parser.add_argument("--seconds", type=float, default=0.1, help="of each measurement of a visit")
    parser.add_argument("--pairs", type=int, default=100, help="of slices with and without the sampler")
    options = parser.parse_args()
    lines = [*trainings(options), *visits(options), *sampler(options)]
    if options.against is None:
        print("visits: not compared; give another checkout of Assay by --against FOLDER")
    header = ("what", "assay", "the other", "ratio [95% interval]", "aim")
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(5)]
    print(f"\n{training.described(options)}; torch {torch.__version__}, Python {sys.version.split()[0]}")
    for line in (header, *lines):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
