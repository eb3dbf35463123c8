"""Logs that grow for as long as a release lasts: `NAME` is the newest, then `NAME.1`, `NAME.2` …"""

from pathlib import Path


def shift(path: Path, size: int, keep: int) -> bool:
    """Move a log of at least `size` bytes aside and keep `keep` old ones; whether it was moved."""
    try:
        if path.is_symlink() or path.stat().st_size < size:
            return False
    except OSError:
        return False
    for number in range(keep, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        if newer.exists():
            newer.replace(older)
    return True
