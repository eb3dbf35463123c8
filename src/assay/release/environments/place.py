"""Environments by name: what decides their content is in it, so that two bundles with the same lock share one.

ENVIRONMENTS/NAME/            the environment
ENVIRONMENTS/NAME.json        what it is, and which versions used it
ENVIRONMENTS/NAME.use         locked, shared, by every process that runs in it; alone by who removes it
"""

import fcntl
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from assay.image.lock import ImageLock
from assay.records import Typed, sha256_file, sha256_text
from assay.release.bundle.manifest import IMAGE_LOCK, REQUIREMENTS

Kind = Literal["host", "venv", "apptainer"]
VARIABLE = "ASSAY_ENVIRONMENTS"
"""Where environments are: a folder that releases of this machine share."""
DEFAULT = Path("releases/environments")
NAME = re.compile(r"(?P<name>serve-(?:py3\.\d+\.\d+|sif)-[0-9a-f]{16})")


class PlaceError(ValueError):
    """An environment that cannot be made, or told of."""


class About(Typed):
    """`NAME.json`."""

    schema_version: Literal[1] = 1
    kind: Literal["venv", "apptainer"]
    requirements_sha256: str
    python: str | None = Field(description="Of a virtual environment; null: the image's.")
    image: str | None = Field(default=None, description="Name of the image that it stands on.")
    made: str
    versions: list[str] = Field(description="Of bundles that it was asked for by.")


@dataclass(frozen=True)
class Place:
    """One environment's files."""

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def about(self) -> Path:
        return self.root / f"{self.name}.json"

    @property
    def use(self) -> Path:
        return self.root / f"{self.name}.use"

    @property
    def sif(self) -> Path:
        return self.folder / f"{self.name}.sif"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def read(self) -> About | None:
        """None: it was never finished. Raises: PlaceError for a damaged file."""
        if not self.about.exists():
            return None
        return About.parse(self.about, "", "remove the file and run the command again", PlaceError)


def environments() -> Path:
    """The folder of all environments: `ASSAY_ENVIRONMENTS`, or `releases/environments` here."""
    return Path(os.environ.get(VARIABLE) or DEFAULT)


def name_of(kind: Kind, bundle: Path) -> str | None:
    """The name of the environment that a bundle needs; None: it needs none of that kind, or says not which."""
    requirements = bundle / REQUIREMENTS
    if kind == "host" or not requirements.is_file():
        return None
    if kind == "venv":
        # To the last digit: where Python was updated, one that runs is not made anew in its place.
        return f"serve-py{'.'.join(map(str, sys.version_info[:3]))}-{sha256_file(requirements)[:16]}"
    lock = bundle / IMAGE_LOCK
    if not lock.is_file():
        return None
    content = f"{ImageLock.read(lock).sif_sha256} {sha256_file(requirements)}"
    return f"serve-sif-{sha256_text(content)[:16]}"


def lease(place: Place, *, wait: bool = True) -> int:
    """A descriptor with which the environment is in use, as long as any process has it open. Children get it.

    Raises: BlockingIOError, unless it is to wait, while somebody removes it.
    """
    return _locked(place.use, fcntl.LOCK_SH | (0 if wait else fcntl.LOCK_NB))


@contextmanager
def alone(place: Place) -> Iterator[bool]:
    """Whether nobody uses it; nobody begins to, meanwhile."""
    try:
        descriptor = _locked(place.use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)


def _locked(path: Path, how: int) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, how)
            # Who removed the environment removed the file too: a lock on it would hold nothing.
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                os.set_inheritable(descriptor, True)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
