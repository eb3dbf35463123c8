"""What the controller wants, why, and how far it has come."""

from typing import Literal

from pydantic import Field

from assay.records import Typed
from assay.release.observations import Role
from assay.release.schema import Release

Phase = Literal["preflight", "shadow", "step", "bake", "retire", "promoted", "rolling_back", "rolled_back"]
OVER: tuple[Phase, ...] = ("promoted", "rolled_back")
"""Nothing more is done of itself."""


class Version(Typed):
    """One of the two that a release is about."""

    version: str = Field(description="Digest of the bundle's content.")
    folder: str = Field(description="The bundle.")


class Wanted(Typed):
    """What front, services and registry are to be: enough to bring it about from anywhere."""

    stable: str = Field(description="Version that the role `stable` serves.")
    candidate: str | None = Field(default=None, description="Version of the role `candidate`; null: stopped.")
    share: float = Field(default=0.0, ge=0, le=1, description="Of identified users who have the candidate.")
    shadow: float = Field(
        default=0.0, ge=0, le=1, description="Of requests that are copied to the candidate."
    )
    early: bool = Field(default=False, description="Whether early users have the candidate.")
    champion: str | None = Field(default=None, description="What the alias is to name; null: as it is.")

    def of(self, role: Role) -> str | None:
        return self.stable if role == "stable" else self.candidate


class State(Typed):
    """All of the controller's memory that a decision changes. Whole in every line of the journal."""

    schema_version: Literal[1] = 1
    release: str
    stable: Version = Field(description="What users had when the release began.")
    candidate: Version
    phase: Phase
    step: int | None = Field(default=None, description="Index of the step, from 0; null outside of steps.")
    entered: int = Field(description="Number of the journal's line with which the phase, or the step, began.")
    wanted: Wanted
    paused: bool = False
    held: str | None = Field(default=None, description="Why a person has to decide; null: nobody has to.")
    excused: str | None = Field(
        default=None, description="The last hold that a person answered; it does not hold again."
    )
    extended: int = Field(default=0, description="How often a person gave this step its time again.")
    reason: str = Field(description="Why the phase was entered.")
    taken: list[str] = Field(default=[], description="Orders that took effect, the latest last.")
    predecessor: str | None = Field(
        default=None,
        description="Release whose front it takes over, in the same folder; null: it has its own.",
    )
    successor: str | None = Field(
        default=None, description="Release that has taken its front over; null: its front is its own."
    )

    @property
    def over(self) -> bool:
        return self.phase in OVER


class Progress(Typed):
    """What grows between two lines of the journal. Losing the last second of it does no harm."""

    line: int = Field(description="Number of the journal's line that it belongs to.")
    elapsed: float = Field(default=0.0, description="Seconds in the step in which all was as wanted.")
    users: int | None = Field(default=None, description="Candidate's users in this step; null: not known.")
    requests: int | None = Field(default=None, description="Candidate's answers in it, or copies.")
    decision: str | None = None
    reasons: list[str] = []
    seconds_to_decide: float | None = Field(default=None, description="At this traffic; null: not known.")
    trouble: list[str] = Field(default=[], description="What is not as wanted, and why.")
    warnings: list[str] = []
    share: float | None = Field(default=None, description="What the front really does; null: no answer.")


def title(state: State, release: Release) -> str:
    """The phase in words: `step 2 of 4 (10%)`."""
    if state.phase != "step" or state.step is None:
        return state.phase.replace("_", " ")
    return f"step {state.step + 1} of {len(release.ramp.steps)} ({percent(state.wanted.share)} of users)"


def percent(share: float) -> str:
    """`10%`, `0.25%`."""
    return f"{share * 100:.4g}%"
