"""Who asks, as the identity service says, kept no longer than it allows and by all workers of the front together."""

import hashlib
import re
import sqlite3
import time
from pathlib import Path

from assay.release.routing.upstream import NoAnswer, Upstream, Versions

FILE = "identities.sqlite"
MOST = 65_536
"""Answers kept."""
SECONDS = 1.0
_LOCK_SECONDS = 0.05
_DIGEST = re.compile(r"[0-9a-f]{32}")
_TABLE = """
CREATE TABLE IF NOT EXISTS kept (token BLOB PRIMARY KEY, user TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ends ON kept (until);
"""


class Identities:
    """In a file that the workers share: what one of them was told holds for a user whom another answers next, and for
    the worker that takes the place of one that died. A token is kept as its SHA-256.

    A file that cannot be read or written costs a question to the service, never an answer."""

    def __init__(self, versions: Versions, path: Path) -> None:
        self._versions = versions
        self._path = path
        self._database: sqlite3.Connection | None = None

    async def user(self, address: str, authorization: bytes, salt: str = "") -> str:
        """The digest of a verified user; empty for anyone else, and where nobody is there to verify.

        salt: the release's; with another one the same user has another digest.
        """
        key = hashlib.sha256(salt.encode() + b" " + authorization).digest()
        if kept := self._kept(key):
            return kept
        asked = Upstream(
            address, "GET", b"/identity", [(b"host", b"assay"), (b"authorization", authorization)], b""
        )
        try:
            status, headers, _ = await self._versions.ask(asked, SECONDS)
        except NoAnswer:
            return ""
        said = {name.lower(): value.decode("latin-1") for name, value in headers}
        user = said.get(b"x-assay-user", "")
        if status != 200 or not _DIGEST.fullmatch(user):
            return ""
        if (seconds := said.get(b"x-accel-expires", "")).isdigit() and int(seconds) > 0:
            self._keep(key, user, time.time() + int(seconds))
        return user

    def _kept(self, key: bytes) -> str:
        try:
            found = self._open().execute(
                "SELECT user FROM kept WHERE token = ? AND until > ?", (key, time.time())
            )
            return str((found.fetchone() or [""])[0])
        except sqlite3.Error:
            self._close()
            return ""

    def _keep(self, key: bytes, user: str, until: float) -> None:
        """And forget those that are over, and beyond the most those that are over soonest."""
        try:
            with self._open() as database:
                database.execute("DELETE FROM kept WHERE until <= ?", (time.time(),))
                database.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", (key, user, until))
                database.execute(
                    "DELETE FROM kept WHERE token IN (SELECT token FROM kept ORDER BY until"
                    " LIMIT max(0, (SELECT count(*) FROM kept) - ?))",
                    (MOST,),
                )
        except sqlite3.Error:
            self._close()

    def _open(self) -> sqlite3.Connection:
        """Nothing waits for the disk: what is lost with the machine is asked again."""
        if self._database is None:
            self._database = sqlite3.connect(self._path, timeout=_LOCK_SECONDS)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.executescript(_TABLE)
        return self._database

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def forget(folder: Path) -> None:
    """What was kept in `folder`, by a front that has ended."""
    for path in folder.glob(f"{FILE}*"):
        path.unlink(missing_ok=True)
