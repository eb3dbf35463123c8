"""The front as the controller sees it."""

import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any

from assay.records import write_atomically
from assay.release.ramp.identity import Identity
from assay.release.ramp.parts import PartError, Real
from assay.release.ramp.processes import Supervised
from assay.release.ramp.state import Wanted
from assay.release.ramp.takeover import Earlier
from assay.release.routing.front import Front, front_of
from assay.release.routing.plan import FrontError, Plan
from assay.release.routing.rotation import cut
from assay.release.routing.shadower import Shadower
from assay.release.schema import Release

ROTATE_SECONDS = 60.0
"""Between two looks whether logs are to be rotated."""


@dataclass
class FrontPart:
    """Any of the fronts, with the addresses of what it sends to."""

    release: Release
    front: Front
    services: Supervised
    identity: Identity
    shadower: Shadower
    earlier: Earlier | None = None
    """The release whose front it takes over."""
    _rotated: float = -1e9

    def real(self) -> Real | None:
        """Asked on a new connection."""
        self._rotate()
        lacks = self._identified()
        standing = self.front.confirm()
        if standing is None:
            return None
        plan = self._plan(standing.generation)
        addresses = (self.services.address("stable"), self.services.address("candidate"))
        known = (plan.get("stable"), plan.get("candidate"))
        # One that is gone for a moment comes back where it was; one that nobody is sent to may be anywhere.
        current = all(None in (now, then) or now == then for now, then in zip(addresses, known, strict=True))
        current = current and self.identity.address in (None, plan.get("identity"))
        early = bool(plan.get("early")) if self.release.routing.early_users else None
        waits = "" if self.earlier is None else self.earlier.finish(self.front)
        return Real(standing.share, self._shadow(), early, current, waits, lacks)

    def apply(self, wanted: Wanted, number: int) -> None:
        """Start it, or change what it does."""
        self._identified()
        self._apply_shadow(wanted)
        self._take_over()
        active = self.front.active()
        before = {} if active is None else self._plan(active)
        stable = self.services.address("stable") or before.get("stable")
        candidate = self.services.address("candidate") or before.get("candidate")
        if stable is None:
            raise PartError("there is no stable version to send anyone to")
        plan = {
            "share": wanted.share,
            "stable": stable,
            "candidate": candidate if wanted.candidate is not None else None,
            "identity": self.identity.address,
            "early": tuple(self.release.routing.early_users) if wanted.early else (),
        }
        same = active is not None and all(
            _plain(before.get(key)) == _plain(value) for key, value in plan.items()
        )
        generation = active if same and active is not None else (active or 0) + 1
        try:
            self.front.start(Plan(generation=generation, **plan))  # type: ignore[arg-type]
        except (FrontError, ValueError, OSError) as error:
            raise PartError(str(error)) from None

    def _take_over(self) -> None:
        if self.earlier is None or self.earlier.taken:
            return
        if self.services.address("stable") is None:
            raise PartError("there is no stable version to send anyone to")
        self.earlier.take()
        self.front = front_of(self.release, self.services.layout)

    def _identified(self) -> str:
        """What is wrong with the identity service; nothing has to wait for it, a roll-back least."""
        try:
            self.identity.ensure()
        except PartError as error:
            return str(error)
        return ""

    def halt(self) -> None:
        self.front.halt()

    def halted(self) -> bool:
        return self.front.halted()

    def _rotate(self) -> None:
        """Logs grow for as long as the front and what is behind it live."""
        if time.monotonic() - self._rotated < ROTATE_SECONDS:
            return
        self._rotated = time.monotonic()
        serving = self.release.serving
        size, keep = int(serving.log_megabytes * 1e6), serving.log_files
        with contextlib.suppress(OSError, FrontError):
            self.front.rotate(size, keep)
        run = self.services.layout.shadow.parent
        for log in (run / "shadow.log", *run.glob("*/output.log"), *run.glob("*/groups/*/output.log")):
            with contextlib.suppress(OSError):
                cut(log, size, keep)

    def _plan(self, generation: int) -> dict[str, Any]:
        if not self.front.owns(generation):
            return {}
        path = self.front.folder / "generations" / str(generation) / "plan.json"
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(path.read_bytes())
            return content if isinstance(content, dict) else {}
        return {}

    def _shadow(self) -> float:
        """Share of requests copied: none while nobody sends them."""
        if self.shadower.running() is None:
            return 0.0
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            return float(json.loads(self.services.layout.shadow.read_bytes())["share"])
        return 0.0

    def _apply_shadow(self, wanted: Wanted) -> None:
        address = self.services.address("candidate")
        share = wanted.shadow if address is not None else 0.0
        content = {"share": share, "address": address}
        write_atomically(self.services.layout.shadow, json.dumps(content).encode() + b"\n")
        if share == 0:
            self.shadower.stop()
            return
        try:
            self.shadower.ensure()
        except (FrontError, OSError) as error:
            raise PartError(f"shadow: {error}") from None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
