"""What the judge says, and what it says it by."""

from dataclasses import dataclass, field
from typing import Any, Literal

Action = Literal["rollback", "promote", "hold"]


@dataclass(frozen=True)
class Decision:
    """One answer. The judge never promotes what it could not show to be within the margins."""

    action: Action
    reason: str
    """One sentence for people."""
    seconds: float | None = None
    """Of a hold: until it can be decided at this traffic, if things go on as they are; null: cannot be said."""
    evidence: dict[str, Any] = field(default_factory=dict)
    """Numbers behind it, JSON values alone; what was not measured is null."""
