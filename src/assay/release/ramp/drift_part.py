"""Drift as the controller sees it: read from the prediction logs of both versions, its memory on the disk."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.records import write_atomically
from assay.release.bundle.manifest import REFERENCE
from assay.release.bundle.reference import Reference
from assay.release.drift.monitor import Drift
from assay.release.drift.reader import PredictionReader
from assay.release.layout import Layout
from assay.release.observations import Role
from assay.release.ramp.memory import DamagedMemory, damaged, remembered
from assay.release.ramp.room import without_room
from assay.release.ramp.state import State
from assay.release.schema import Release

LOOK_SECONDS = 1.0
KEPT_SECONDS = 10.0
MOST_WARNINGS = 5
_ROLES: tuple[Role, Role] = ("stable", "candidate")


@dataclass
class DriftPart:
    """What was found so far, and what should follow."""

    release: Release
    layout: Layout
    _drift: Drift | None = None
    _looked: float = -1e9
    _kept: float = -1e9

    def __post_init__(self) -> None:
        self._readers = {role: PredictionReader(self.layout.predictions(role)) for role in _ROLES}
        self._damaged: tuple[str, ...] = ()
        """What was wrong with the memory that was found."""

    def look(self, state: State) -> tuple[str, str] | None:
        """`warn`, `pause` or `rollback`, and why; None: nothing drifts."""
        if self._drift is None:
            self._drift = self._restored(Path(state.candidate.folder))
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            for role, reader in self._readers.items():
                self._drift.feed(role, reader.read())
            self._looked = time.monotonic()
            if self._looked - self._kept >= KEPT_SECONDS:
                self._kept = self._looked
                self._keep(self._drift)
        return self._drift.asks()

    @property
    def warnings(self) -> tuple[str, ...]:
        """A memory that was damaged, and the latest findings, one of a kind."""
        found = [] if self._drift is None else self._drift.findings
        latest = {(one.kind, one.feature): f"drift: {one.text}" for one in found}
        return (*self._damaged, *tuple(latest.values())[-MOST_WARNINGS:])

    def _restored(self, bundle: Path) -> Drift:
        reference = Reference.model_validate_json((bundle / REFERENCE).read_bytes())
        try:
            content = remembered(self.layout.drift)
            if content is None:
                return Drift(self.release.drift, reference)
            return self._taken_up(content, reference)
        except DamagedMemory as error:
            self._damaged = (str(error),)
            return Drift(self.release.drift, reference)

    def _taken_up(self, content: dict[str, Any], reference: Reference) -> Drift:
        """Raises: DamagedMemory, also for that of another version of Assay."""
        try:
            drift = Drift.restored(self.release.drift, reference, content["drift"])
            positions = {role: dict(content["positions"][role]) for role in _ROLES}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise damaged(self.layout.drift, repr(error)) from None
        for role, reader in self._readers.items():
            reader.positions = positions[role]
        return drift

    def _keep(self, drift: Drift) -> None:
        positions = {role: reader.positions for role, reader in self._readers.items()}
        content = {"positions": positions, "drift": drift.state()}
        with without_room():
            write_atomically(self.layout.drift, json.dumps(content).encode() + b"\n")
