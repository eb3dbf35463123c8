"""Keys and secrets: from files, read again when they change, or from the environment."""

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")

ENVIRONMENT = "env:"
"""`env:NAME` in place of a file's path: the content is that of the variable."""
LARGEST = 1_000_000
"""Bytes: a file that is larger holds no keys."""
LOOK = 0.5
"""Seconds between two looks whether a file has changed."""
YOUNG = 1.0
"""Seconds in which a changed file is read again anyway: clocks of file systems are coarse."""


def read_source(source: str, what: str, *, private: bool) -> bytes:
    """The content of a file, or of the variable that `env:NAME` names.

    private: refuse a file that others may read; any is refused that others may write.
    Raises: ValueError naming it and what to do; nothing of the content is in its text.
    """
    if source.startswith(ENVIRONMENT):
        name = source.removeprefix(ENVIRONMENT)
        if name not in os.environ:
            raise ValueError(f"{what}: the variable {name} is not set; set it, or name a file")
        return os.environb[name.encode()]
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"{what}: {source}: cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        _check(os.fstat(descriptor), source, what, private)
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"{what}: {source}: has more than {LARGEST} bytes; that is no file of keys")
    return content


def _check(found: os.stat_result, source: str, what: str, private: bool) -> None:
    """Raises: ValueError for what is no file, or is open to the wrong people."""
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{what}: {source}: is no file")
    if found.st_uid not in (0, os.geteuid()):
        raise ValueError(
            f"{what}: {source}: belongs to another user; `chown` it to the one that the server runs as"
        )
    if found.st_mode & stat.S_IWOTH:
        raise ValueError(f"{what}: {source}: everybody may write to it; `chmod o-w {source}`")
    if private and found.st_mode & (0o007 if _is_credential(source) else 0o077):
        raise ValueError(f"{what}: {source}: others may read it; `chmod 600 {source}`")


def _is_credential(source: str) -> bool:
    """systemd's credentials show a group bit that is the mask of an access list for one user."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(folder) and Path(source).parent == Path(folder or "")


class Standing(NamedTuple):
    """How a watched file stands."""

    usable: bool
    """False: it cannot be used, and what was last good stays in use."""
    changed: float | None
    """Seconds since 1970 when what is in use was written; None: it is a variable's."""


class Watched(Generic[T]):
    """What a file says, read again when it changes. A file that cannot be used leaves what was last good.

    `parse` raises ValueError. The same content gives the same object, so that users see a change by `is`.
    """

    def __init__(self, source: str, what: str, parse: Callable[[bytes], T], *, private: bool) -> None:
        """Raises: ValueError where the file is unusable now."""
        self._source, self._what, self._parse, self._private = source, what, parse, private
        self.problem: str | None = None
        """Why the last good content is still in use; None: it is the file's."""
        self._seen: tuple[int, int, int] | None = None
        self._looked = -LOOK
        self._changed: float | None = None
        self._content = read_source(source, what, private=private)
        self._value = parse(self._content)

    def current(self) -> T:
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            self._look()
        return self._value

    def standing(self) -> Standing:
        self.current()
        return Standing(self.problem is None, self._changed)

    def _look(self) -> None:
        seen = self._stamp()
        if seen is not None and seen == self._seen:
            return
        try:
            content = read_source(self._source, self._what, private=self._private)
            if content != self._content:
                self._value = self._parse(content)
                self._content = content
                logger.warning("%s: %s: read again", self._what, self._source)
        except ValueError as error:
            if str(error) != self.problem:
                self.problem = str(error)
                logger.error("%s; the last good content stays in use", error)
            self._seen = None
            return
        self.problem = None
        self._changed = None if seen is None else seen[0] / 1e9
        young = seen is not None and time.time_ns() - seen[0] < YOUNG * 1e9
        self._seen = None if young else seen

    def _stamp(self) -> tuple[int, int, int] | None:
        with contextlib.suppress(OSError):
            found = os.stat(self._source)  # noqa: PTH116
            return found.st_mtime_ns, found.st_size, found.st_ino
        return None
