"""What a sweep leaves for each arm: proposals, trials, and what was selected."""

from typing import Any, Literal, Self

from pydantic import Field

from assay.records import Outcome, Typed

_AGAIN = "remove it and run the experiment again"


class Proposal(Typed):
    """One trial that a Bayesian search proposes."""

    number: int
    point: dict[str, Any] = Field(description="Values of the tuned settings, by path.")
    settings: dict[str, Any] = Field(description="The whole arm with them.")


class Proposed(Typed):
    """`proposed/round-N.json`."""

    schema_version: Literal[1] = 1
    experiment: str
    arm: str
    trials: list[Proposal]


class Rung(Typed):
    """`rungs/rung-N.json`: which trials go on. Scores are in the trials' records, so that it changes with what it says."""

    schema_version: Literal[1] = 1
    experiment: str
    arm: str
    rung: int = Field(description="From 0.")
    after: int = Field(description="Epochs that the trials were compared after.")
    goes_on: list[int] = Field(description="Numbers of trials.")


class TrialRun(Typed):
    """One training of a trial."""

    seed: int
    outcome: Outcome
    message: str | None = None
    score: float | None = Field(
        description="The sweep's metric at the kept epoch; null unless it completed or was stopped."
    )
    loss: float | None = Field(description="Validation loss there.")
    epochs: int | None = Field(description="Epochs that it trained; null: not told.")


class Trial(Typed):
    """Settings that were tried, and what they came to."""

    number: int
    point: dict[str, Any]
    runs: list[TrialRun]
    score: float | None = Field(description="Mean over seeds; null, the worst, unless all runs completed.")
    loss: float | None
    rungs: list[float | None] = Field(
        default=[], description="The score at each comparison that it reached; null: it had failed."
    )
    stopped_after: int | None = Field(
        default=None, description="Epochs after which the sweep stopped it; null: it did not."
    )


class BudgetPoint(Typed):
    """What a search of so many trials finds."""

    trials: int
    best: float | None = Field(
        description="Expected best score; null where all of so many trials can have failed."
    )
    epochs: int | None = Field(
        default=None, description="Of a search that stops trials: all epochs spent until then."
    )
    low: float | None = None
    high: float | None = None


class Trials(Typed):
    """`trials.json`: all trials of an arm."""

    schema_version: Literal[1] = 1
    experiment: str
    arm: str
    method: Literal["grid", "random", "bayesian"]
    metric: str
    seeds: list[int]
    epochs: int = Field(description="Of each training: the budget is trials x seeds x epochs.")
    selected: int = Field(description="Number of the trial.")
    trials: list[Trial]
    curve: list[BudgetPoint] = Field(description="Best score against the number of trials.")
    confidence: float | None = Field(description="Level of the curve's intervals; null: it has none.")

    @property
    def epochs_spent(self) -> int | None:
        """Over all trials and seeds, those that were stopped or failed included; None where a record does not say."""
        spent = [run.epochs for trial in self.trials for run in trial.runs]
        return None if None in spent else sum(epochs for epochs in spent if epochs is not None)

    @classmethod
    def read(cls, path: Any) -> Self:
        """Raises: RecordError naming the file and what is wrong with it."""
        return cls.parse(path, "no such file; run the experiment", _AGAIN)


class Selected(Typed):
    """`selected.json`: the settings that the comparison uses for an arm."""

    schema_version: Literal[1] = 1
    experiment: str
    arm: str
    trial: int
    score: float | None = Field(description="Null: no trial completed.")
    point: dict[str, Any]
    settings: dict[str, Any]

    @classmethod
    def read(cls, path: Any) -> Self:
        """Raises: RecordError naming the file and what is wrong with it."""
        return cls.parse(path, "no such file; run the experiment", _AGAIN)
