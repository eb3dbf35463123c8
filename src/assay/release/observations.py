"""What the front and the application write about requests, and what judges read."""

from typing import Literal, NamedTuple

Role = Literal["stable", "candidate"]
Route = Literal["split", "anonymous", "header", "early", "shadow"]
"""Why a request came to its version. Only `split` is random, so only it is compared."""


class Attempt(NamedTuple):
    """One version's try at one request."""

    role: Role
    status: int | None
    """HTTP status; None: no answer (refused, reset, timed out)."""
    seconds: float | None

    @property
    def failed(self) -> bool:
        return self.status is None or self.status >= 500


class Access(NamedTuple):
    """One request as the front saw it."""

    timestamp: float
    """Seconds since 1970 at its end."""
    request_id: str
    user: str
    """Salted digest of the verified identity, 32 hexadecimal digits; empty: anonymous."""
    assigned: Role
    route: Route
    attempts: tuple[Attempt, ...]
    """In order; the last one answered. A candidate's failure stays here though the user had a good answer."""
    status: int
    seconds: float
    share: float
    """Of the split when the request came."""
    generation: int
    """Of the front's configuration."""


class Outcome(NamedTuple):
    """A business event: what came of a prediction."""

    timestamp: float
    user: str
    value: float
    """Between 0 and 1; higher is better."""
