"""`gate.json`: typed, a function of the two sides and the options alone."""

from typing import Literal, Self

from pydantic import Field

from assay.comparison.model import Interval, Variable, VerdictWord
from assay.config.metrics import Direction, Scale
from assay.records import Typed

Outcome = Literal["pass", "worse", "inconclusive"]
Decision = Literal["pass", "worse", "inconclusive", "refused", "unfinished"]
Way = Literal["paired by seed", "paired by block", "between sessions", "exact", "not compared"]

PASSED, FAILED, REFUSED, WORSE, INCONCLUSIVE = 0, 1, 2, 3, 4


class Case(Typed):
    """One metric of the gate. Sizes are as in a comparison: a difference, or a ratio candidate / baseline."""

    name: str
    title: str
    unit: str
    direction: Direction
    scale: Scale
    way: Way = Field(description="How the two were compared.")
    outcome: Outcome
    sentence: str = Field(description="The outcome for a person.")
    verdict: VerdictWord | None = Field(
        default=None, description="Of the two-sided comparison; null: there is none."
    )
    margin: float | None = Field(description="How much worse is still let through; null: none is declared.")
    floor: float | None = Field(default=None, description="Noise floor; null: none is known.")
    replicates: int = Field(description="Pairs, or sessions of the baseline.")
    baseline: float | None = Field(
        default=None, description="Mean; for ratios geometric mean; unit as the metric's."
    )
    candidate: float | None = None
    estimate: float | None = None
    interval: Interval | None = None
    p_worse: float | None = Field(
        default=None, description="Of `no worse than the margin`; small: shown to be worse. Not adjusted."
    )
    p_worse_adjusted: float | None = Field(default=None, description="The same by Holm over all cases.")
    p_not_worse: float | None = Field(
        default=None,
        description="Of `worse than the margin`; small: shown not to be. It takes no adjustment.",
    )


class Gate(Typed):
    """What the gate found."""

    schema_version: Literal[1] = 1
    experiment: str
    baseline: str = Field(description="Where its results were read, and its arm.")
    candidate: str
    baseline_commits: list[str] = []
    candidate_commits: list[str] = []
    decision: Decision
    exit_code: int
    headline: str
    alpha: float | None = Field(description="Share of false alarms, and of misses, at most.")
    cases: list[Case] = []
    violations: list[str] = Field(default=[], description="Undeclared differences: the gate is refused.")
    declared: list[str] = Field(default=[], description="What differs as declared.")
    notes: list[str] = []
    contract: list[Variable] = []

    def ends_with(self, decision: Decision, exit_code: int, headline: str) -> Self:
        return self.model_copy(update={"decision": decision, "exit_code": exit_code, "headline": headline})
