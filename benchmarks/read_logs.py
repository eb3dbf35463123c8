"""Time Assay's reader of logs against the fastest there are, on logs as a run writes them.

    python benchmarks/read_logs.py [--runs 100] [--lines 10000] [--repeats 5]

Each reader makes a table of arm, seed, event, step and loss of every line, in a process of its own, imports
apart. The readers take turns; the best time of each counts. Readers that are not installed are left out.
Prints times, their ratios to the fastest, and the memory that reading added at its peak.
"""

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COLUMNS = ("arm", "seed", "event", "step", "loss")


def write_logs(folder: Path, runs: int, lines: int) -> None:
    """Real lines of the real log; the clock is read once per line as in training."""
    from assay.records import Log

    for run in range(runs):
        identity: dict[str, str | int] = {
            "experiment": "sweep",
            "arm": f"arm-{run % 4}",
            "seed": run // 4,
            "stage": "train",
        }
        with Log(folder / f"run-{run}" / "log.jsonl", identity=identity) as log:
            for step in range(lines):
                log.write(
                    "step", step=step, epoch=step // 100, loss=2.3 / (1 + step / 50), accuracy=step / lines,
                    throughput_samples_per_sec=41_000.5, learning_rate=0.1,
                )  # fmt: skip


def read_with_assay(paths: list[Path]) -> float:
    from assay.reporting.logs import read_logs

    return float(read_logs(paths, COLUMNS)["loss"].sum())


def read_with_polars(paths: list[Path]) -> float:
    import polars as pl

    schema = {"arm": pl.String, "seed": pl.Int64, "event": pl.String, "step": pl.Int64, "loss": pl.Float64}
    return float(pl.scan_ndjson(paths, schema=schema).collect(engine="streaming")["loss"].sum())


def read_with_duckdb(paths: list[Path]) -> float:
    import duckdb

    columns = "{arm: 'VARCHAR', seed: 'BIGINT', event: 'VARCHAR', step: 'BIGINT', loss: 'DOUBLE'}"
    query = f"FROM read_json(?, format='newline_delimited', columns={columns})"
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE lines AS {query}", [[str(path) for path in paths]])
        return float(connection.execute("SELECT sum(loss) FROM lines").fetchall()[0][0])


def read_with_orjson(paths: list[Path]) -> float:
    import orjson

    lists: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                found = orjson.loads(line)
                for name, values in lists.items():
                    values.append(found[name])
    return float(sum(lists["loss"]))


def read_with_pandas(paths: list[Path]) -> float:
    import pandas as pd

    table = pd.concat(pd.read_json(path, lines=True)[list(COLUMNS)] for path in paths)
    return float(table["loss"].sum())


READERS = {
    "assay": (read_with_assay, ("polars", "assay")),
    "polars": (read_with_polars, ("polars",)),
    "duckdb": (read_with_duckdb, ("duckdb",)),
    "orjson": (read_with_orjson, ("orjson",)),
    "pandas": (read_with_pandas, ("pandas",)),
}


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(name: str, folder: Path) -> None:
    """In a process of its own: prints seconds, MiB added at the peak, and the sum of the losses."""
    reader, modules = READERS[name]
    for module in modules:
        importlib.import_module(module)
    paths = sorted(folder.rglob("log.jsonl"))
    reader(paths[:1])  # what a first call sets up, such as threads
    before = peak_mib()
    start = time.perf_counter()
    total = reader(paths)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "mib": peak_mib() - before, "total": total}))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("READER", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], Path(arguments.measure[1]))
        return 0
    readers = [
        reader
        for reader, (_, modules) in READERS.items()
        if all(importlib.util.find_spec(module) is not None for module in modules)
    ]
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_logs(Path(folder), arguments.runs, arguments.lines)
        size = sum(path.stat().st_size for path in Path(folder).rglob("log.jsonl")) / 1e6
        print(f"{arguments.runs} logs of {arguments.lines:,} lines, {size:.0f} MB, {os.cpu_count()} CPUs")
        for reader in readers * arguments.repeats:
            command = [sys.executable, __file__, "--measure", reader, folder]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            best[reader] = min(best.get(reader, found), found, key=lambda line: line["seconds"])
    assert len({f"{line['total']:.6g}" for line in best.values()}) == 1, "readers disagree"
    fastest = min(line["seconds"] for line in best.values())
    for reader, line in best.items():
        ratio = line["seconds"] / fastest
        print(f"{reader:8} {line['seconds']:7.3f} s  {ratio:6.2f} x the fastest  {line['mib']:7.0f} MiB")
    for reader in sorted(set(READERS) - set(readers)):
        print(f"{reader:8} not installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
