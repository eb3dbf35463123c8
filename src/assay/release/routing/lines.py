"""Log lines, each one write, to whatever file has the log's name at the time."""

import os
from pathlib import Path
from typing import Any

import orjson


class Lines:
    """A log that cannot be written costs its lines, and nothing else: `lost` counts them."""

    def __init__(self) -> None:
        self.lost = 0
        self._path = ""
        self._file: int | None = None
        self._inode = (0, 0)

    def write(self, path: str, line: dict[str, Any]) -> None:
        try:
            content = orjson.dumps(line) + b"\n"
            if os.write(self._opened(path), content) < len(content):
                self.lost += 1
        except OSError:
            self.lost += 1

    def _opened(self, path: str) -> int:
        """The file, opened anew where it was moved aside."""
        try:
            at = Path(path).stat()
            inode = (at.st_dev, at.st_ino)
        except FileNotFoundError:
            inode = (0, 0)
        if self._file is None or path != self._path or inode != self._inode:
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            if self._file is not None:
                os.close(self._file)
            at = os.fstat(opened)
            self._file, self._path, self._inode = opened, path, (at.st_dev, at.st_ino)
        return self._file
