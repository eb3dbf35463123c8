"""Whether an image is still the one that its lock describes."""

from pathlib import Path

from assay.image.build import looked_at
from assay.image.lock import ImageError, ImageLock
from assay.image.recipe import CONTAINERS, Place
from assay.records import sha256_file

_AGAIN = "remove its folder and build it again: assay image build"
_MOST_NAMED = 5


def verify_file(place: Place) -> ImageLock:
    """The lock of an image whose file is unchanged. Raises: ImageError naming file and difference."""
    lock = ImageLock.read(place.lock)
    if lock.name != place.name:
        raise ImageError(f"{place.lock}: is the lock of {lock.name}, not of {place.name}; {_AGAIN}")
    try:
        size = place.sif.stat().st_size
    except FileNotFoundError:
        raise ImageError(f"{place.sif}: is gone, its lock is there; {_AGAIN}") from None
    if size != lock.sif_bytes:
        raise ImageError(f"{place.sif}: has {size:,} bytes, its lock says {lock.sif_bytes:,}; {_AGAIN}")
    found = sha256_file(place.sif)
    if found != lock.sif_sha256:
        raise ImageError(
            f"{place.sif}: was changed: its SHA-256 is {found}, its lock says {lock.sif_sha256}; {_AGAIN}"
        )
    return lock


def verify_packages(place: Place, lock: ImageLock, containers: Path = CONTAINERS) -> None:
    """Raises: ImageError where packages in the image and in its lock differ."""
    found = looked_at(place.sif, "packages", containers)
    for kind, locked in (("packages", lock.packages), ("system_packages", lock.system_packages)):
        lines = differences(locked, found[kind])
        if lines:
            rest = len(lines) - _MOST_NAMED
            more = f" and {rest} more" if rest > 0 else ""
            raise ImageError(
                f"{place.sif}: packages differ from its lock: {'; '.join(lines[:_MOST_NAMED])}{more}; {_AGAIN}"
            )


def verify_content(place: Place, lock: ImageLock, containers: Path = CONTAINERS) -> None:
    """Raises: ImageError where any file in the image differs from what was built."""
    found = looked_at(place.sif, "content", containers)["content_sha256"]
    if found != lock.content_sha256:
        raise ImageError(
            f"{place.sif}: its files hash to {found}, its lock says {lock.content_sha256}; {_AGAIN}"
        )


def differences(locked: dict[str, str], found: dict[str, str]) -> list[str]:
    """In words, by package: another version, missing, or too many."""
    lines = []
    for name in sorted(locked.keys() | found.keys()):
        before, after = locked.get(name), found.get(name)
        if after is None:
            lines.append(f"{name} {before} is missing")
        elif before is None:
            lines.append(f"{name} {after} is not in the lock")
        elif before != after:
            lines.append(f"{name} is {after}, the lock says {before}")
    return lines
