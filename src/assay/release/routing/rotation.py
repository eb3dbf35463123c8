"""Logs that grow for as long as a release lasts: `NAME` is the newest, then `NAME.1`, `NAME.2` …"""

import shutil
from pathlib import Path


def shift(path: Path, size: int, keep: int) -> bool:
    """Move a log of at least `size` bytes aside and keep `keep` old ones; whether it was moved."""
    if not _is_due(path, size):
        return False
    _make_room(path, keep)
    path.replace(_old(path, 1))
    return True


def cut(path: Path, size: int, keep: int) -> bool:
    """The same for a log that its writers open once, to append: it is copied, then emptied.

    What is written in between is lost. Raises: OSError where there is no room for a copy; the log is then as it was.
    """
    if not _is_due(path, size):
        return False
    copied = path.with_name(f".{path.name}.copied")
    try:
        shutil.copyfile(path, copied)
        _make_room(path, keep)
        copied.replace(_old(path, 1))
    except OSError:
        if copied.is_file():
            copied.unlink()
        raise
    with path.open("r+b") as log:
        log.truncate(0)
    return True


def _is_due(path: Path, size: int) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size >= size
    except OSError:
        return False


def _make_room(path: Path, keep: int) -> None:
    for number in range(keep, 1, -1):
        if _old(path, number - 1).exists():
            _old(path, number - 1).replace(_old(path, number))


def _old(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
