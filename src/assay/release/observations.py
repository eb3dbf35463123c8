"""What the front and the application write about requests, and what judges read."""

from typing import Literal, NamedTuple, TypedDict

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


class Prediction(TypedDict):
    """One request as the version that answered it saw it: a line of its prediction log.

    Lists have one entry per sample of the request, in order; numbers have six decimals, and one that is not finite is null.
    """

    timestamp: float
    """Seconds since 1970 at its end."""
    request_id: str
    model_version: str
    status: int
    """HTTP status of the answer."""
    latency_ms: float
    """In the version: from the request's arrival to its answer."""
    queue_ms: float | None
    """Of these, waiting for other requests of the batch; None: not measured."""
    batch_size: int | None
    """Samples that went through the model together; None: none did."""
    user: str
    """As in `Access`."""
    assigned: str
    """The role to which the front's split gave the user; empty: no front said."""
    route: str
    shadow: bool
    """A copy, whose answer no user sees."""
    input_shape: list[int]
    """Samples first."""
    input_digest: str
    """SHA-256 of the samples as little-endian float32, its first 32 hexadecimal digits."""
    input_mean: list[float | None]
    input_std: list[float | None]
    input_min: list[float | None]
    input_max: list[float | None]
    output_class: list[int] | None
    """Index of the highest score; None: the model gave no answer."""
    output_value: list[float | None] | None
    """The highest score."""
    non_finite: int
    """Scores that are NaN or infinite."""


class Outcome(NamedTuple):
    """A business event: what came of a prediction."""

    timestamp: float
    user: str
    value: float
    """Between 0 and 1; higher is better."""
