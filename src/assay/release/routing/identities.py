"""Who asks, as the identity service says, kept no longer than it allows."""

import hashlib
import re
import time
from collections import OrderedDict

from assay.release.routing.upstream import NoAnswer, Upstream, Versions

MOST = 65_536
"""Answers kept."""
SECONDS = 1.0
_DIGEST = re.compile(r"[0-9a-f]{32}")


class Identities:
    """A token is kept as its SHA-256."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._kept: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    async def user(self, address: str, authorization: bytes) -> str:
        """The digest of a verified user; empty for anyone else, and where nobody is there to verify."""
        key = hashlib.sha256(authorization).digest()
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() < kept[1]:
            self._kept.move_to_end(key)
            return kept[0]
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
            self._kept[key] = (user, time.monotonic() + int(seconds))
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)
        return user
