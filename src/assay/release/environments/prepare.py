"""An environment, made unless it is there, and the command with which a version runs in it."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.clock import now
from assay.records import sha256_file
from assay.release.bundle.manifest import CODE, IMAGE_LOCK, REQUIREMENTS
from assay.release.bundle.read import Bundle, read
from assay.release.environments.place import About, Kind, Place, PlaceError, environments, lease, name_of
from assay.release.registry.history import locked
from assay.sources import PACKAGE

SETUP = PACKAGE.parents[1] / "tools" / "setup.py"
_WITH_TORCH, _WITHOUT = 8 * 10**9, 10**8
"""Bytes that must be free before an environment is made."""


@dataclass(frozen=True)
class Environment:
    """Where a version runs. While it is open, or a process has `lease`, nobody removes it."""

    kind: Kind
    name: str
    place: Place | None = None
    """None: this very environment."""
    lease: int | None = None
    """Descriptor to hand on to what runs there (`pass_fds`)."""

    def command(
        self, bundle: Path, words: Sequence[str], variables: Mapping[str, str], binds: Sequence[Path] = ()
    ) -> tuple[list[str], dict[str, str]]:
        """What to start, and with which variables, so that Python runs `words` there.

        On the host with this very Assay, elsewhere with the one that lies in the bundle. variables: all of the process's.
        binds: folders that must be seen inside an image, beside the bundle and the current one.
        """
        if self.place is None:
            return [sys.executable, "-P", *words], dict(variables)
        code = str((bundle / CODE).absolute())
        # A bundle is left as it is: bytecode goes beside the environment.
        own = {"PYTHONPATH": code, "PYTHONNOUSERSITE": "1"}
        if self.kind == "venv":
            cache = {"PYTHONPYCACHEPREFIX": str((self.place.folder / "bytecode").absolute())}
            kept = {
                name: value for name, value in variables.items() if name not in ("PYTHONHOME", "VIRTUAL_ENV")
            }
            return [str(self.place.python.absolute()), "-P", *words], {**kept, **own, **cache}
        from assay.release.environments.image import in_image

        return in_image(self.place, words, {**variables, **own}, [bundle, *binds])

    def close(self) -> None:
        """Let it go; what still runs there keeps it."""
        if self.lease is not None:
            os.close(self.lease)


def prepare(kind: Kind, bundle_folder: Path, root: Path | None = None) -> Environment:
    """The environment of a bundle. Of two that ask at once, the second waits for the first.

    Raises: PlaceError saying what stands in the way.
    """
    if kind == "host":
        return Environment("host", "host")
    bundle = read(bundle_folder)
    place = place_of(kind, bundle_folder, root)
    held = lease(place)
    try:
        if kind == "venv":
            _make_venv(place, bundle, held)
        else:
            from assay.release.environments.image import make_image

            make_image(place, bundle)
        _note(kind, place, bundle)
    except BaseException:
        os.close(held)
        raise
    return Environment(kind, place.name, place, held)


def place_of(kind: Kind, bundle: Path, root: Path | None = None) -> Place:
    """Where the environment of a bundle is or will be. Raises: PlaceError where it can be none of that kind."""
    name = name_of(kind, bundle)
    if name is None:
        raise PlaceError(
            f"{bundle / IMAGE_LOCK}: is not there: the run had no image; write `environment: venv` or `environment: "
            "host`, or name a lock when the bundle is made: --image-lock FILE"
        )
    return Place((root or environments()).absolute(), name)


def _make_venv(place: Place, bundle: Bundle, held: int) -> None:
    """By the set-up that makes Assay's own: hashes required, whole or made anew, its stamp last."""
    if not SETUP.exists():
        raise PlaceError(f"{SETUP}: is not there: a virtual environment is made from a checkout of Assay")
    lock = (bundle.folder / REQUIREMENTS).absolute()
    with_torch = any(line.startswith("torch==") for line in lock.read_text(encoding="utf-8").splitlines())
    command = [
        *(sys.executable, str(SETUP), "--environment", str(place.folder), "--requirements", str(lock)),
        *("--without-assay", "--needs", str(_WITH_TORCH if with_torch else _WITHOUT)),
    ]
    # A venv.py or pip.py of the user's own, in the folder that they stand in, is not Python's.
    if subprocess.run(command, stdout=2, pass_fds=[held], cwd="/").returncode != 0:
        raise PlaceError(f"{place.folder}: could not be made from {lock}; see above")


def _note(kind: Kind, place: Place, bundle: Bundle) -> None:
    """Which version asked for it: what must stay can be told without its bundle."""
    assert kind != "host", "it has no place"
    with locked(place.about):
        known = place.read()
        version = bundle.manifest.version
        if known is None:
            from assay.image.lock import ImageLock

            image = ImageLock.read(bundle.folder / IMAGE_LOCK).name if kind == "apptainer" else None
            known = About(
                kind=kind,
                requirements_sha256=sha256_file(bundle.folder / REQUIREMENTS),
                python=".".join(map(str, sys.version_info[:3])) if kind == "venv" else None,
                image=image,
                made=now(),
                versions=[],
            )
        if version not in known.versions:
            known.model_copy(update={"versions": [*known.versions, version]}).write(place.about)
