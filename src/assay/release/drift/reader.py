"""Prediction logs read while they grow: one file per worker, closed and followed by others, in the end removed."""

from collections.abc import Iterator
from pathlib import Path

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
            try:
                said: Prediction = orjson.loads(line)
                float(said["timestamp"])
            except (ValueError, KeyError, TypeError):
                self.damaged += 1
                continue
            yield said
