"""Prediction logs read while they grow: one file per worker, closed and followed by others, in the end removed."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import orjson

from assay.release.observations import Prediction

MOST_BYTES = 16 * 2**20
"""Of one file at once."""


class PredictionReader:
    """Each call of `read` gives the lines of a version that were written since the last one.

    positions: bytes read by file name; they go into the state of whoever reads.
    """

    def __init__(self, folder: Path, positions: dict[str, int] | None = None) -> None:
        self.folder = folder
        self.positions = dict(positions or {})
        self.damaged = 0

    def read(self) -> list[Prediction]:
        """In the order of time, as far as it was read."""
        files = sorted(self.folder.glob("*.jsonl"))
        found = [one for path in files for one in self._read(path)]
        self.positions = {
            path.name: self.positions[path.name] for path in files if path.name in self.positions
        }
        return sorted(found, key=lambda one: one["timestamp"])

    def _read(self, path: Path) -> Iterator[Prediction]:
        begin = self.positions.get(path.name, 0)
        try:
            with path.open("rb") as file:
                file.seek(begin)
                content = file.read(MOST_BYTES)
        except OSError:
            return
        whole = content.rfind(b"\n") + 1
        self.positions[path.name] = begin + whole
        for line in content[:whole].splitlines():
            said = _parsed(line)
            if said is None:
                self.damaged += 1
            else:
                yield said


def _parsed(line: bytes) -> Prediction | None:
    """None for what is no line of a prediction log."""
    try:
        said = orjson.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict) or not isinstance(said.get("timestamp"), float | int):
        return None
    texts = all(isinstance(said.get(key), str) for key in ("user", "request_id", "route"))
    return cast(Prediction, said) if texts and isinstance(said.get("shadow"), bool) else None
