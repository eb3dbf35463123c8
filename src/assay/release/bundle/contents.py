"""Files of a bundle that are copied or derived from others: code, environments."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from assay.image.lock import ImageLock
from assay.image.recipe import images
from assay.models.sources import source_files
from assay.records import Record, sha256_file
from assay.release.bundle.manifest import CODE, CONDA, IMAGE_LOCK, MODULES, REQUIREMENTS
from assay.sources import PACKAGE

LOCK = PACKAGE.parents[1] / "requirements" / "serve.txt"
"""What a server process may import, with hashes."""


def code() -> Iterator[tuple[str, bytes]]:
    """Assay's package, so that the bundle runs without the checkout. Bytecode and compiled files stay."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield f"{CODE}/assay/{path.relative_to(PACKAGE).as_posix()}", path.read_bytes()


def modules(source: str, record: Record, roots: Sequence[Path] | None) -> tuple[list[Path], dict[str, bytes]]:
    """The folders in which the user's modules are sought, and the modules by place.

    roots: None: where the training found them. Raises: ValueError for one that is missing or was changed since.
    """
    known = record.code.user_sources
    if roots is None:
        roots = _roots(source, list(known)) or [Path()]
    found = {}
    for path in source_files(source, roots):
        if sha256_file(path) not in known.values():
            raise ValueError(
                f"{path}: was changed since the run was trained; train it again, or name the folder of the module that "
                "was used: --module-root FOLDER"
            )
        root = next(root for root in roots if path.is_relative_to(root))
        found[f"{MODULES}/{path.relative_to(root).as_posix()}"] = path.read_bytes()
    return list(roots), found


def _roots(source: str, files: Sequence[str]) -> list[Path]:
    """The folders from which the training's own module must have been imported."""
    name = source.partition(":")[0].replace(".", "/")
    endings = (f"{name}.py", f"{name}/__init__.py")
    found = [
        Path(file.removesuffix(ending) or ".")
        for file in files
        for ending in endings
        if file == ending or file.endswith(f"/{ending}")
    ]
    return list(dict.fromkeys([*found, Path()]))


def environment(name: str, record: Record, lock: Path, image_lock: Path | None) -> dict[str, bytes]:
    """The hash-locked requirements, the same for conda, and the image's lock where the run had an image.

    Raises: ValueError for a lock without hashes, and for an image lock that is not the run's.
    """
    content = _locked(lock)
    found = {REQUIREMENTS: content, CONDA: conda(name, record.environment.python)}
    path = image_lock or _lock_of(record)
    if path is not None:
        image = ImageLock.read(path)
        used = record.environment.image
        if used is not None and used.get("sif_sha256") not in (None, image.sif_sha256):
            raise ValueError(f"{path}: is of another image than the run's ({used['sif_sha256']})")
        found[IMAGE_LOCK] = path.read_bytes()
    return found


def conda(name: str, python: str) -> bytes:
    """`conda env create --file environment.yml`: Python from conda, all else from the lock beside it, hashes required."""
    version = ".".join(python.split(".")[:2])
    return (
        f"name: {name}\nchannels:\n  - conda-forge\ndependencies:\n  - python={version}\n  - pip\n"
        "  - pip:\n      - --require-hashes\n      - -r requirements.txt\n"
    ).encode()


def _locked(lock: Path) -> bytes:
    try:
        content = lock.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{lock}: cannot be read ({error.strerror}); name a lock file: --requirements FILE"
        ) from None
    entries = content.decode("utf-8", "replace").replace("\\\n", " ").splitlines()
    for entry in entries:
        if entry.strip() and not entry.lstrip().startswith("#") and "--hash=sha256:" not in entry:
            raise ValueError(
                f"{lock}: {entry.split()[0]}: has no hash; lock it: uv pip compile --generate-hashes, or take the "
                "default by leaving --requirements out"
            )
    return content


def _lock_of(record: Record) -> Path | None:
    """Of the image that the run was trained in, if it is on this machine."""
    used = record.environment.image
    if used is None or "sif_sha256" not in used:
        return None
    for path in sorted(images().glob("*/lock.json")):
        if json.loads(path.read_bytes()).get("sif_sha256") == used["sif_sha256"]:
            return path
    return None
