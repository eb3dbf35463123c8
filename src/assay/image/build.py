"""Building an image: by whoever comes first, whole or not at all."""

import fcntl
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from assay.image import apptainer
from assay.image.lock import ImageLock
from assay.image.recipe import DEFINITION, Place, Recipe, place
from assay.records import now, sha256_file, sha256_text

INSPECT = "inspect_image.py"


def build(recipe: Recipe, root: Path | None = None) -> Place:
    """The image of a recipe, built unless it is there.

    Built in a folder beside its place and renamed there: of two builders on a shared file system the first to finish
    wins, the other throws its own away, and nobody sees half an image. Where the file system has locks, the second
    waits for the first instead.

    Raises: ImageError.
    """
    target = place(recipe, root)
    if target.exists():
        return target
    target.folder.parent.mkdir(parents=True, exist_ok=True)
    with _first(target.folder.parent / f".{target.name}.lock"):
        if target.exists():
            return target
        work = Path(tempfile.mkdtemp(dir=target.folder.parent, prefix=f".{target.name}."))
        try:
            work.chmod(0o755)
            _build_in(Place(work, target.name), recipe)
            _publish(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def looked_at(sif: Path, what: str, containers: Path) -> dict[str, Any]:
    """What the image says of itself: `packages`, or `content` too. Raises: ImageError."""
    text = apptainer.output(sif, "python3", "-", what, script=containers / INSPECT)
    return json.loads(text)  # type: ignore[no-any-return]


def _build_in(work: Place, recipe: Recipe) -> None:
    locks = {path.name: sha256_file(path) for path in recipe.files if path.suffix == ".txt"}
    arguments = {
        "BASE": f"{recipe.base.name}@{recipe.base.digest}",
        "DIGEST": recipe.base.digest,
        "LOCKS": sha256_text("".join(f"{name} {value}\n" for name, value in sorted(locks.items()))),
    }
    apptainer.build(recipe.containers / DEFINITION, work.sif, arguments)
    ImageLock(
        name=recipe.name,
        base_name=recipe.base.name,
        base_tag=recipe.base.tag,
        base_digest=recipe.base.digest,
        recipe_sha256=recipe.sha256,
        locks_sha256=locks,
        sif_sha256=sha256_file(work.sif),
        sif_bytes=work.sif.stat().st_size,
        built=now(),
        built_with=apptainer.version(),
        **looked_at(work.sif, "content", recipe.containers),
    ).write(work.lock)


def _publish(work: Path, target: Place) -> None:
    """An empty folder gives way to a rename, one with an image does not."""
    try:
        work.rename(target.folder)
    except OSError:
        if not target.exists():
            raise
        print(f"{target.folder}: another builder was faster; its image is used", file=sys.stderr)


@contextmanager
def _first(path: Path) -> Iterator[None]:
    """Wait for a builder on this file system; where it has no locks, the rename decides alone."""
    with path.open("a") as file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{path.parent}: another process builds this image; waiting for it", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            print(f"{path}: no locks here ({error.strerror}); building beside others", file=sys.stderr)
        yield
