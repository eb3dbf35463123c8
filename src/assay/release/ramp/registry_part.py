"""The registry as the controller sees it."""

import math
import threading
import time
from dataclasses import dataclass

from assay.release.ramp.parts import PartError
from assay.release.ramp.state import State
from assay.release.registry.store import CHAMPION, Registry

_TRUSTED_SECONDS = 60.0
"""How long an answer about the alias counts: a server is not asked four times a second."""
HANDED_OVER = "handed_over"
"""Event: another release serves its users."""
_FOLDER_SECONDS = 0.2
"""By when a registry without a server has answered."""
_UNKNOWN = "has not answered yet"
_TELLING = (
    HANDED_OVER,
    "preflight",
    "shadow",
    "step",
    "bake",
    "retire",
    "promoted",
    "rollback",
    "rolled_back",
)


class _Naming(threading.Thread):
    """Points the alias at a version. A thread, since a server that hangs must hold up neither roll-back nor guards."""

    def __init__(self, registry: Registry, release: str, version: str, trouble: str | None) -> None:
        super().__init__(name="registry", daemon=True)
        self.registry = registry
        self.release = release
        self.version = version
        self.trouble = trouble
        """Why the alias is not this version's, as far as is known; None: it is."""
        self.ended = -math.inf

    def run(self) -> None:
        try:
            if self.registry.aliases().get(CHAMPION) != self.version:
                self.registry.move(CHAMPION, self.version, f"release {self.release}", release=self.release)
            self.trouble = None
        except Exception as error:  # told, and tried again
            self.trouble = str(error) or type(error).__name__
        self.ended = time.monotonic()

    def holds(self, version: str) -> bool:
        """Whether the alias was this version's a moment ago."""
        fresh = time.monotonic() - self.ended < _TRUSTED_SECONDS
        return self.version == version and self.trouble is None and fresh


@dataclass
class RegistryPart:
    registry: Registry
    release: str
    _naming: _Naming | None = None

    def make_champion(self, version: str) -> None:
        """Does not wait for a server. Raises: PartError until the alias is this version's."""
        last = self._naming
        if last is None or not (last.is_alive() or last.holds(version)):
            known = last.trouble if last is not None and last.version == version else _UNKNOWN
            self._naming = last = _Naming(self.registry, self.release, version, known)
            last.start()
            last.join(_FOLDER_SECONDS)
        trouble = last.trouble if last.version == version else _UNKNOWN
        if trouble is not None:
            raise PartError(trouble)

    def record(self, number: int, timestamp: str, event: str, reason: str, state: State) -> None:
        """Who is served what from now on. The record itself says which lines of the journal it has."""
        if event not in _TELLING:
            return
        mark = f"(line {number} of the journal, {timestamp})"
        try:
            if any(
                entry.release == self.release and mark in entry.reason
                for entry in self.registry.history.read()
            ):
                return
            wanted = state.wanted
            if event == HANDED_OVER:
                self.registry.serves(
                    wanted.stable, release=self.release, role="stable", share=None, reason=f"{reason} {mark}"
                )
                return
            said = f"{event}: {reason} {mark}"
            share = wanted.share if wanted.candidate is not None else None
            candidate = state.candidate.version
            if wanted.stable != candidate:
                self.registry.serves(
                    candidate, release=self.release, role="candidate", share=share, reason=said
                )
            stable_share = 1.0 - wanted.share
            self.registry.serves(
                wanted.stable, release=self.release, role="stable", share=stable_share, reason=said
            )
        except (ValueError, OSError) as error:
            raise PartError(str(error)) from None
