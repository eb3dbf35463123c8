"""Finding environments, and removing those that nothing refers to."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from assay.release.environments.place import NAME, About, Place, alone
from assay.release.environments.references import Kept, processes

_LEFT = re.compile(rf"\.{NAME.pattern}\.")


@dataclass(frozen=True)
class Found:
    """One environment, and why it stays; with no reason it may go."""

    place: Place
    about: About | None
    """None: it was never finished."""
    reasons: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes that would be free; files that are linked from elsewhere stay there."""
        total = 0
        for parent, _, names in os.walk(self.place.folder):
            for name in names:
                try:
                    status = (Path(parent) / name).lstat()
                except OSError:
                    continue
                total += status.st_size if status.st_nlink == 1 else 0
        return total


def find(root: Path, kept: Kept) -> list[Found]:
    """All environments below a folder, by name; what has another name is none of ours."""
    return [_look(place, kept) for place in _places(root)]


def prune(root: Path, kept: Callable[[], Kept]) -> tuple[list[Found], list[Found]]:
    """Remove what nothing refers to: what went, and what stayed.

    Each is looked at while nobody can begin to use it, and is moved aside before it is removed: nobody sees half of one.
    """
    gone, stayed = [], []
    for place in _places(root):
        with alone(place) as free:
            found = _look(place, kept())
            if not free:
                found = Found(place, found.about, ("in use by a process", *found.reasons))
            if found.reasons:
                stayed.append(found)
                continue
            _remove(place)
            gone.append(found)
    return gone, stayed


def _places(root: Path) -> Iterator[Place]:
    """Of environments, and of what a killed maker or remover left of one, under a hidden name."""
    if root.is_dir():
        folders = [path.name for path in root.iterdir() if path.is_dir() and not path.is_symlink()]
        found = [NAME.fullmatch(name) or _LEFT.match(name) for name in folders]
        for name in sorted({one["name"] for one in found if one is not None}):
            yield Place(root.absolute(), name)


def _look(place: Place, kept: Kept) -> Found:
    about = place.read()
    reasons = [f"process {number}" for number in processes(place)]
    for name in (place.name, *(about.versions if about is not None else [])):
        reasons += kept.get(name, [])
    return Found(place, about, tuple(dict.fromkeys(reasons)))


def _remove(place: Place) -> None:
    if place.folder.exists():
        aside = Path(tempfile.mkdtemp(dir=place.root, prefix=f".{place.name}.removed."))
        place.folder.rename(aside / place.name)
    for path in (place.about, place.root / f"{place.name}.lock"):
        path.unlink(missing_ok=True)
    for path in place.root.glob(f".{place.name}.*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    place.use.unlink(missing_ok=True)
