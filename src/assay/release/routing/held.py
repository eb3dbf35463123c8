"""What Assay's own front holds: a file that every worker looks at with each request, so that a change is one rename."""

import ipaddress
import json
import os
import weakref
from dataclasses import dataclass, field, fields
from pathlib import Path

from assay.release.routing.forwarded import Network
from assay.release.routing.plan import GO
from assay.release.routing.split import UNITS, Split, units

FILE = "front.json"


@dataclass(frozen=True)
class Held:
    """One generation, all that a worker must know."""

    generation: int
    share: float
    salt: str
    token: str
    stable: str
    candidate: str | None
    identity: str | None
    early: list[str]
    testers: list[str]
    any_tester: bool
    header: str
    body_bytes: int
    timeout_seconds: float
    per_address: int | None
    access: str
    secure: bool
    """Whether clients come by HTTPS."""
    trusted_proxies: list[str]
    trusted: tuple[Network, ...] = field(init=False, compare=False)
    split: Split = field(init=False, compare=False)
    stopped: Split = field(init=False, compare=False)

    def __post_init__(self) -> None:
        share = units(self.share) / UNITS
        early, testers = frozenset(self.early), frozenset(self.testers)
        has = self.candidate is not None
        trusted = tuple(ipaddress.ip_network(text) for text in self.trusted_proxies)
        object.__setattr__(self, "trusted", trusted)
        object.__setattr__(self, "split", Split(self.salt, share, early, testers, self.any_tester, has))
        object.__setattr__(self, "stopped", Split(self.salt, 0.0, early, testers, self.any_tester, False))

    def text(self) -> str:
        said = {made.name: getattr(self, made.name) for made in fields(self) if made.init}
        return json.dumps(said) + "\n"


class Active:
    """The generation in use, read anew when it changes."""

    def __init__(self, folder: Path) -> None:
        self._link = str(folder / "active")
        self._seen: tuple[int, int] | None = None
        self._held: Held | None = None
        self._go = ""

    def now(self) -> tuple[Held, bool]:
        """It, and whether it is halted."""
        while self._held is None or self._seen != self._at():
            seen = self._at()
            folder = Path(self._link).resolve()
            # Seen only once it is read: one that could not be read is read at the next look.
            self._held = _opened(folder / FILE)
            self._seen, self._go = seen, str(folder / GO)
        return self._held, not os.access(self._go, os.F_OK)

    def _at(self) -> tuple[int, int]:
        at = os.lstat(self._link)
        return at.st_ino, at.st_mtime_ns


def _opened(path: Path) -> Held:
    """Read from a file that stays open as long as anything is done by it: so others see that it is in use."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        held = Held(**json.loads(os.pread(descriptor, os.fstat(descriptor).st_size, 0)))
    except BaseException:
        os.close(descriptor)
        raise
    weakref.finalize(held, os.close, descriptor)
    return held
