"""Reading logs: many runs, millions of lines, in the memory of the columns asked for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

LOG_COLUMNS: dict[str, type] = {
    "timestamp": str,
    "experiment": str,
    "arm": str,
    "seed": int,
    "stage": str,
    "attempt": int,
    "event": str,
    "step": int,
    "epoch": int,
    "loss": float,
    "accuracy": float,
    "gpu_memory_mb": float,
    "throughput_samples_per_sec": float,
    "learning_rate": float,
}
"""Columns of a log and their types; others are read as floats."""

_LINE_KEY = ("arm", "seed", "event", "step")
_TAIL = 1 << 14
"""Bytes at the end of a log in which its last lines are sought."""


class LogError(ValueError):
    """A log that is damaged elsewhere than in its last line."""


def read_logs(paths: Sequence[Path], columns: Sequence[str]) -> "pl.DataFrame":
    """The columns asked for of all lines of many logs; the order of the lines is not defined.

    Streams: memory is that of the columns asked for. Of two lines for the same arm, seed, event and step, the
    one of the higher attempt counts. A torn last line, of a run that goes on or was killed, is left out. NaN
    and infinities, which a log holds as text, come back as such.

    Raises: FileNotFoundError; LogError naming file and line where a line is not JSON.
    """
    import polars as pl

    ends = {path: _end(path) for path in paths}
    once = {path: torn for path, (attempt, torn) in ends.items() if attempt == 1}
    repeated = {path: torn for path, (attempt, torn) in ends.items() if attempt != 1}
    parts = [pl.DataFrame(schema=_schema(columns)), *_collect(once, columns)]
    if repeated:
        # A later attempt may have overwritten any line: only these files need the whole key.
        lines = pl.concat(_collect(repeated, tuple(dict.fromkeys((*columns, *_LINE_KEY, "attempt")))))
        latest = lines.sort("attempt").unique(_LINE_KEY, keep="last", maintain_order=True)
        parts.append(latest.select(columns))
    return pl.concat(parts)


def _end(path: Path) -> tuple[int, bool]:
    """The attempt of the last whole line (attempts only grow), and whether a torn one follows."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL))
        lines = file.read().split(b"\n")
    for line in reversed(lines[:-1]):
        try:
            return int(json.loads(line)["attempt"]), lines[-1] != b""
        except (ValueError, KeyError, TypeError):
            continue
    return 1, lines[-1] != b""


def _schema(columns: Sequence[str]) -> "dict[str, pl.DataType]":
    import polars as pl

    types: dict[type, pl.DataType] = {str: pl.String(), int: pl.Int64(), float: pl.Float64()}
    return {name: types[LOG_COLUMNS.get(name, float)] for name in columns}


def _collect(paths: Mapping[Path, bool], columns: Sequence[str]) -> "list[pl.DataFrame]":
    """Numbers as numbers first: only where that fails are floats read as text, for the sake of NaN."""
    import polars as pl

    schema = _schema(columns)
    floats = [name for name, type_ in schema.items() if type_ == pl.Float64]
    as_text = schema | dict.fromkeys(floats, pl.String())
    whole = [path for path, torn in paths.items() if not torn]
    sources: list[Any] = [whole] if whole else []
    sources += [_without_torn_line(path) for path, torn in paths.items() if torn]
    parts = []
    for source in sources:
        try:
            parts.append(pl.scan_ndjson(source, schema=schema).collect(engine="streaming"))
        except pl.exceptions.ComputeError:
            try:
                scan = pl.scan_ndjson(source, schema=as_text).with_columns(pl.col(floats).cast(pl.Float64))
                parts.append(scan.collect(engine="streaming"))
            except pl.exceptions.PolarsError as error:
                raise LogError(f"{_first_damaged(list(paths))}: not a line of a log: {error}") from None
    return parts


def _without_torn_line(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _first_damaged(paths: Sequence[Path]) -> str:
    """`file, line N` of the first line that is not JSON."""
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    json.loads(line)
                except ValueError:
                    if line.endswith(b"\n"):
                        return f"{path}, line {number}"
    return str(paths[0])
