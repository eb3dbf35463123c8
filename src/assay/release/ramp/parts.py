"""What the controller asks of the other parts. All of it may be asked again and again."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from assay.release.observations import Role
from assay.release.ramp.state import State, Version, Wanted

Decision = Literal["rollback", "go_on", "wait"]


class PartError(RuntimeError):
    """A part did not do what it was asked; it is asked again."""


@dataclass(frozen=True)
class Real:
    """What the front does, by its own word."""

    share: float
    shadow: float
    early: bool | None
    """Whether early users have the candidate; None: there are none."""
    current: bool = True
    """Whether it sends requests to where the versions and the identity service are."""
    waits: str = ""
    """What has to end before all is as wanted; empty: nothing."""
    lacks: str = ""
    """What it does without for now; empty: nothing."""


@dataclass(frozen=True)
class Running:
    """What serves a role."""

    version: str | None
    """None: nothing runs."""
    ready: bool
    detail: str = ""
    starting: bool = False
    refused: bool = False
    """It ended by itself and says that this version cannot be served."""
    coming: str | None = None
    """The version whose environment is being made, to take over; None: none is."""


@dataclass(frozen=True)
class Look:
    """What the logs say at the moment, of the step that the ramp is in."""

    decision: Decision
    reasons: tuple[str, ...] = ()
    users: int | None = None
    requests: int | None = None
    seconds_to_decide: float | None = None
    warnings: tuple[str, ...] = ()
    pause: str | None = None
    """Why a person should look before the next step."""
    evidence: dict[str, object] = field(default_factory=dict)


class Front(Protocol):
    """Splits users between the versions."""

    def real(self) -> Real | None:
        """What it does now; None: it does not answer."""

    def apply(self, wanted: Wanted, number: int) -> None:
        """Do as wanted, from now on. number: of the journal's line, which grows. Raises: PartError."""

    def halt(self) -> None:
        """Everyone has the stable version from now on, until `apply`; takes no room on a full disk."""

    def halted(self) -> bool: ...


class Services(Protocol):
    """The processes of the two roles."""

    def running(self, role: Role) -> Running: ...

    def serve(self, role: Role, version: Version) -> None:
        """Begin to serve a version, in place of another one only when it is ready. Does not wait. Raises: PartError."""

    def stop(self, role: Role) -> None:
        """End a role's processes when what they are answering is answered. Raises: PartError."""

    def retire(self) -> None:
        """End the version that the role `stable` had before, if it is still warm. Raises: PartError."""


class Registry(Protocol):
    """Which version is known by which name."""

    def make_champion(self, version: str) -> None:
        """Does not wait for a server. Raises: PartError until the alias is this version's."""

    def record(self, number: int, timestamp: str, event: str, reason: str, state: State) -> None:
        """Who has been served what since when, and why; a number that was recorded is not recorded twice."""


class Judge(Protocol):
    """Reads the logs."""

    def look(self, state: State) -> Look: ...


@dataclass(frozen=True)
class Parts:
    front: Front
    services: Services
    registry: Registry
    judge: Judge
