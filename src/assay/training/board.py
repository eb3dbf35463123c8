"""What the processes of a run on several devices tell each other, beside what they compute."""

import json
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

MEETING_SECONDS = 300
"""How long nodes wait for each other at the start."""


class Board:
    """Notes in the store that torchrun keeps on the first node; a keeper is that node, port 0 is any free one.

    Raises: torch.distributed.DistError where the first node does not answer, then and at any time later.
    """

    def __init__(self, host: str, port: int, *, keeper: bool = False) -> None:
        timeout = timedelta(seconds=MEETING_SECONDS)
        self._server = TCPStore(host, port, None, keeper, timeout, wait_for_workers=False, multi_tenant=True)
        self.port = self._server.port
        self._store = PrefixStore("assay", self._server)

    def put(self, name: str, value: Any = True) -> None:
        self._store.set(name, json.dumps(value))

    def get(self, name: str) -> Any:
        """None where nobody has put it."""
        return json.loads(self._store.get(name)) if self._store.check([name]) else None

    def end(self, **how: Any) -> None:
        """Say how the run ends: `kind` is stopped, out_of_memory, refused or failed. The first to say it decides."""
        self._store.compare_set("ending", "", json.dumps(how))

    @property
    def ending(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.get("ending")
        return found
