"""A bundle's folder, written whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from assay.release.bundle.manifest import GOLDEN, MANIFEST, Manifest

_TRIES = 10


def publish(output: Path, files: Mapping[str, bytes], manifest: Manifest) -> None:
    """Write everything beside `output`, flushed to the disk, and rename it there; an older bundle gives way.

    Raises: ValueError for what is there and is no bundle, and where nothing can be written.
    """
    refuse_foreign(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    except OSError as error:
        raise ValueError(
            f"{output.parent}: cannot be written ({error.strerror}); name another: --output"
        ) from None
    try:
        work.chmod(0o755)
        for place, content in files.items():
            path = work / place
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, content)
        _write(work / MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")
        for folder in sorted({path.parent for path in work.rglob("*")} | {work}):
            sync(folder)
        replace(work, output)
    except OSError as error:
        raise ValueError(f"{output}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def refuse_foreign(output: Path) -> None:
    """Nothing is replaced that is no bundle. Raises: ValueError."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise ValueError(f"{output}: is there and is no bundle; name another place: --output FOLDER")
    # Snakemake takes the manifest away before it has a bundle made anew.
    known = any((output / name).exists() for name in (MANIFEST, GOLDEN))
    if output.is_dir() and any(output.iterdir()) and not known:
        raise ValueError(f"{output}: is there and is no bundle; name another place: --output FOLDER")


def replace(work: Path, output: Path) -> None:
    """Rename `work` to `output`; what is there goes first. Of two that do so at once the last one stays."""
    for _ in range(_TRIES):
        old = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.old."))
        try:
            if output.exists():
                output.rename(old)
            work.rename(output)
            sync(output.parent)
            return
        except OSError as error:
            # Somebody else put theirs there, or took it away, in between.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    raise OSError(errno.EBUSY, "others write there all the time")


def sync(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def copy(source: Path, places: Sequence[str], target: Path) -> None:
    """Copy a bundle's files, and no others, to a folder that is not there yet; whole, or not at all.

    Of two that copy at once, the first one's stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        work.chmod(0o755)
        for place in (*places, MANIFEST):
            path = work / place
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, (source / place).read_bytes())
        for folder in sorted({path.parent for path in work.rglob("*")} | {work}):
            sync(folder)
        try:
            work.rename(target)
        except OSError:
            if not (target / MANIFEST).exists():
                raise
        sync(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
