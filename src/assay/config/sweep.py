"""`sweep:` of the experiment file: which settings are tuned for each arm before the comparison, and at what budget."""

from typing import Annotated, Any, Literal

from pydantic import Field

from assay.config.arm import Name, Scalar, Section

Value = Scalar | list[Scalar] | dict[str, Any]
FIRST_SEED = 1000
FOLDER, SELECTED, TRIALS = "sweep", "selected.json", "trials.json"
"""Below the results, and below the folder of each arm there."""


class Range(Section):
    """Values between two ends, both included; one of the keys."""

    uniform: tuple[float, float] | None = Field(default=None, description="Numbers, e.g. `[0, 0.5]`.")
    log_uniform: tuple[float, float] | None = Field(
        default=None, description="Numbers above 0, evenly on the log scale, e.g. `[1e-4, 1e-1]`."
    )
    integer: tuple[int, int] | None = Field(default=None, description="Whole numbers, e.g. `[2, 8]`.")
    log_integer: tuple[int, int] | None = Field(
        default=None, description="Whole numbers above 0, evenly on the log scale, e.g. `[16, 256]`."
    )

    @property
    def kinds(self) -> list[str]:
        """The keys that are given: one, where it is right."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]

    @property
    def ends(self) -> tuple[float, float]:
        low, high = getattr(self, self.kinds[0])
        return low, high


Domain = list[Value] | Range


class Prune(Section):
    """Bad trials are stopped early, by successive halving: all trials of an arm are compared after so many epochs, and the
    best go on. How many go on is known beforehand and the same for arms with as many trials, and so are their epochs."""

    after: list[Annotated[int, Field(ge=1)]] = Field(
        min_length=1,
        max_length=8,
        description="Epochs after which trials are compared: rising, and fewer than `training.epochs`, e.g. `[2, 6]`.",
    )
    reduction_factor: int = Field(
        default=3, ge=2, le=100, description="One in so many goes on from each comparison, rounded up."
    )


class Sweep(Section):
    """Settings that are tuned for each arm before the comparison: on the validation split alone, with the same budget for
    all, at seeds that the comparison does not use."""

    method: Literal["grid", "random", "bayesian"] = Field(
        default="random",
        description="`grid`: every combination; `random`: drawn independently; `bayesian`: TPE (Optuna), round by round.",
    )
    trials: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None,
        description="Settings tried for each arm; null: all combinations of a grid. Others need a number.",
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default=[FIRST_SEED],
        min_length=1,
        description=f"At which each trial is trained, the same for all arms and none of the experiment's; a number N means "
        f"{FIRST_SEED} to {FIRST_SEED}+N-1. A trial's score is the mean.",
    )
    metric: Literal["validation_accuracy", "validation_loss"] = Field(
        default="validation_accuracy",
        description="By which the best trial is selected, at the epoch that `training.select` keeps.",
    )
    space: dict[str, Domain] = Field(
        default={},
        description="Settings by dotted path, each with a list of values or a range, for all arms.",
    )
    arms: dict[Name, dict[str, Domain | None]] = Field(
        default={},
        description="The same for one arm alone, setting by setting; null: it keeps its own value.",
    )
    equal_budgets: bool = Field(
        default=True,
        description="Refuse arms that get different numbers of trials, or none; false declares it, and the report says so.",
    )
    seed: int = Field(default=0, ge=0, description="Of the search itself.")
    prune: Prune | None = Field(
        default=None,
        description="Stop bad trials early, of a grid or a random search; null: all are trained to the end.",
    )
    per_round: int = Field(
        default=4, ge=1, description="Trials that `bayesian` proposes at once; they run side by side."
    )

    def space_of(self, arm: str) -> dict[str, Domain]:
        """What is tuned for an arm, by path, in the order of paths: nothing depends on the order in the file."""
        own = self.space | self.arms.get(arm, {})
        return {path: own[path] for path in sorted(own) if own[path] is not None}  # type: ignore[misc]

    @property
    def maximise(self) -> bool:
        return self.metric == "validation_accuracy"
