"""A disk without room: nothing can be written down, so nothing is begun; to remove a file still works (ADR 11)."""

import contextlib
import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from assay.release.layout import Layout

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _FULL


@contextmanager
def without_room() -> Iterator[None]:
    """For what may be written later: a full disk is no error."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise


class Room:
    """What the controller knows of it, and tells by `layout.room`: a file that is there while it can write."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.there = False
        """Whether the last that had to be written was; at first nobody knows."""
        self._since: float | None = None

    def lost(self, error: OSError) -> None:
        self.there = False
        with contextlib.suppress(FileNotFoundError):
            self._layout.room.unlink()
        if self._since is None:
            self._since = time.monotonic()
            with contextlib.suppress(OSError):
                print(f"{self._layout.folder}: {_TOLD} ({error})", file=sys.stderr, flush=True)

    def found(self) -> float | None:
        """Seconds for which there was none; None: there always was. Raises: OSError where there is none."""
        self._layout.room.parent.mkdir(parents=True, exist_ok=True)
        self._layout.room.touch()
        self.there = True
        since, self._since = self._since, None
        return None if since is None else time.monotonic() - since


_TOLD = "no room on the disk: the share is held until there is; a roll-back works"
