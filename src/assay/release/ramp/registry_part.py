"""The registry as the controller sees it."""

import time
from dataclasses import dataclass

from assay.release.ramp.parts import PartError
from assay.release.ramp.state import State
from assay.release.registry.store import CHAMPION, Registry

_TRUSTED_SECONDS = 60.0
"""How long an answer about the alias counts: a server is not asked four times a second."""
HANDED_OVER = "handed_over"
"""Event: another release serves its users."""
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


@dataclass
class RegistryPart:
    registry: Registry
    release: str
    _champion: tuple[str | None, float] | None = None

    def champion(self) -> str | None:
        """Raises: PartError where it does not answer."""
        if self._champion is not None and time.monotonic() - self._champion[1] < _TRUSTED_SECONDS:
            return self._champion[0]
        try:
            found = self.registry.aliases().get(CHAMPION)
        except (ValueError, OSError) as error:
            raise PartError(str(error)) from None
        self._champion = (found, time.monotonic())
        return found

    def make_champion(self, version: str) -> None:
        self._champion = None
        try:
            self.registry.move(CHAMPION, version, f"release {self.release}", release=self.release)
        except (ValueError, OSError) as error:
            raise PartError(str(error)) from None

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
