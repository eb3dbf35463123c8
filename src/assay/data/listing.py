"""Which files a data set is made from, told apart without reading them."""

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

MOST_SIZED = 100_000
"""Files up to which sizes count too: asking for them takes seconds where there are more."""


def listing_sha256(path: Path | str | None) -> str:
    """SHA-256 over names and sizes of all files below a folder; empty for none. Times do not count, contents neither."""
    if path is None or not Path(path).is_dir():
        return ""
    found = sorted(_files(str(path), ""))
    sized = len(found) <= MOST_SIZED
    digest = sha256()
    for name, entry in found:
        size = entry.stat().st_size if sized else 0
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files(folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path, f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry
