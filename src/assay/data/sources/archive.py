"""Published files, known by checksum: found, downloaded where the user says so, refused if damaged."""

import shutil
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.config.schema import Data
from assay.data.sources.base import DataError
from assay.records import sha256_file


@dataclass(frozen=True)
class Archive:
    """One published file. `places` are further folders below the source's where other tools keep it."""

    url: str
    sha256: str
    places: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def locate(archives: Sequence[Archive], settings: Data) -> dict[str, Path]:
    """The checked files by name, in the folder `data.path` (by default `data/SOURCE`).

    Raises: DataError listing every file that is missing, with where to put it and its checksum, or naming
    a damaged one with both checksums.
    """
    folder = Path(settings.path or f"data/{settings.source}")
    found = {archive.name: _find(archive, folder) for archive in archives}
    missing = [archive for archive in archives if found[archive.name] is None]
    if missing and not settings.download:
        lines = [
            f"  {folder / archive.name}\n    from {archive.url}\n    SHA-256 {archive.sha256}"
            for archive in missing
        ]
        raise DataError(
            f"data.source {settings.source}: files are missing; put them here, or write download: true:\n"
            + "\n".join(lines)
        )
    for archive in missing:
        found[archive.name] = _download(archive, folder / archive.name)
    paths = {name: path for name, path in found.items() if path is not None}
    for archive in archives:
        _check(archive, paths[archive.name])
    return paths


def _find(archive: Archive, folder: Path) -> Path | None:
    candidates = [folder / place / archive.name for place in ("", *archive.places)]
    return next((path for path in candidates if path.is_file()), None)


def _check(archive: Archive, path: Path) -> None:
    found = sha256_file(path)
    if found != archive.sha256:
        raise DataError(
            f"{path}: damaged or another file: SHA-256 is {found}, expected {archive.sha256}; "
            f"remove it and get it from {archive.url}"
        )


def _download(archive: Archive, path: Path) -> Path:
    """Fetch to a temporary file beside `path`; only a file with the right checksum takes its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    print(f"downloading {archive.url}", flush=True)
    try:
        with urllib.request.urlopen(archive.url, timeout=60) as response, temporary.open("wb") as file:
            shutil.copyfileobj(response, file, 1 << 20)
        _check(archive, temporary)
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"{archive.url}: cannot be downloaded ({error}); get it elsewhere and put it at {path}, "
            f"SHA-256 {archive.sha256}"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return path
