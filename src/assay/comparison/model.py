"""`comparison.json` and `contract.json`: typed, and enough to recompute every number from the records.

Numbers of a contrast are in the metric's reading: for metrics of scale `difference` the difference
arm - baseline in the metric's unit, for scale `ratio` the ratio arm / baseline. Both files are functions of
the experiment and its records alone: no time and no host of the comparison itself is in them.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from assay.config.looks import Spending
from assay.config.metrics import Direction, Pairing, Scale
from assay.records import Outcome, Typed

VerdictWord = Literal["better", "worse", "equivalent", "inconclusive"]
Found = Outcome | Literal["missing"]


BCA = "BCa bootstrap over pairs"
REPEATED = "repeated over looks, by the group-sequential sign-flip test"


class Interval(Typed):
    """An interval, or the reason why there is none."""

    method: str
    confidence: float
    low: float | None = None
    high: float | None = None
    reason: str | None = Field(default=None, description="Why there is no interval.")


class ArmSummary(Typed):
    """One arm on one metric, over its replicates."""

    values: dict[str, float | None] = Field(description="By seed or block; null: no value, see `runs`.")
    n: int = Field(description="Replicates with a value.")
    centre: float | None = Field(description="Mean for scale `difference`, geometric mean for `ratio`.")
    deviation: float | None = Field(description="Standard deviation between replicates, metric's unit.")
    interval: Interval | None = Field(default=None, description="Of `centre`; null for exact metrics.")


class Test(Typed):
    """A paired test of no difference."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    method: str
    p: float
    p_adjusted: float = Field(description="Over the family; the claim holds at every level from here up.")
    minimum_p: float = Field(description="Smallest p that this many pairs could have reached.")


class Equivalence(Typed):
    """Two one-sided tests against the declared margin."""

    method: str
    margin: float
    p: float
    p_adjusted: float
    shown: bool = Field(description="Whether p_adjusted <= alpha: the difference is smaller than the margin.")


class Look(Typed):
    """One look at one contrast, at the level that its arm is sure to have."""

    pairs: int
    spent: float = Field(description="Share of the error rate that may be used up to here.")
    p: float = Field(description="Of this look alone, not adjusted for the others.")
    boundary: float | None = Field(description="Largest such p that is significant; null: none can be.")
    crossed: bool


class EffectSize(Typed):
    method: str = "paired standardised mean difference (Cohen's d_z, Hedges-corrected)"
    value: float | None
    reason: str | None = Field(default=None, description="Why there is no value.")


class Probability(Typed):
    """How often the arm is better than the baseline at the same replicate, ties half."""

    method: str = "share of pairs, Clopper-Pearson"
    value: float
    low: float
    high: float


class Needed(Typed):
    """What it would take to conclude, were the difference as seen here."""

    towards: Literal["difference", "equivalence"]
    pairs: int = Field(description="Pairs in all.")
    further: int = Field(description="Pairs beyond those at hand.")
    power: float


class Floor(Typed):
    """What the same arm twice differs by, for as many pairs as are compared; relative where metrics are, as margins."""

    value: float | None = Field(description="Null: not known, and no difference is claimed.")
    arm: str
    pairs: int = Field(description="Pairs of the arm with itself behind it.")
    reason: str | None = Field(default=None, description="Why it is not known.")


class Discordance(Typed):
    """The examples on which the two models of one seed differ in being right, and McNemar's test of them."""

    arm_only: int = Field(description="Examples that the arm alone gets right.")
    baseline_only: int = Field(description="Examples that the baseline alone gets right.")
    p: float = Field(description="Exact, two-sided.")
    mid_p: float = Field(description="The same, half of the observed probability counted.")


class Pooled(Typed):
    """All seeds' models together, for other test examples."""

    method: str = "sign flips of whole examples over all seeds, two-sided, exact"
    p: float


class Variances(Typed):
    """Of the difference at one seed on one example, by what it comes from; squared unit of the metric."""

    seeds: float
    examples: float
    interaction: float = Field(description="Of the two: another seed is right on other examples.")


class Reach(Typed):
    """How far off the mean difference may be, for whom."""

    standard_error: float
    degrees_of_freedom: float
    interval: Interval


class SharedExamples(Typed):
    """The difference on the same test examples: what of it is due to seeds and what to examples. Not adjusted over
    metrics or arms, and no part of the verdict."""

    reason: str | None = Field(default=None, description="Why there is nothing.")
    sentence: str = ""
    seeds: int = 0
    examples: int = 0
    variances: Variances | None = Field(default=None, description="Null for one seed.")
    new_seeds: Reach | None = Field(default=None, description="For other seeds on these examples.")
    new_examples: Reach | None = Field(default=None, description="For these seeds' models on other examples.")
    new_both: Reach | None = Field(default=None, description="For other seeds and other examples.")
    discordance: dict[str, Discordance] = Field(default={}, description="By seed; accuracy alone has it.")
    pooled: Pooled | None = None


class Posterior(Typed):
    """Bayesian estimation beside the verdict: what to believe of the centre of the differences."""

    method: str = "Student's t on a grid"
    priors: str = (
        "centre uniform; logarithm of the scale uniform from 1/1000 to 1000 standard deviations of the differences; "
        "degrees of freedom less one exponential with mean 29"
    )
    reason: str | None = Field(default=None, description="Why there is none.")
    median: float | None = Field(default=None, description="As `estimate`: a difference, or a ratio.")
    interval: Interval | None = Field(default=None, description="Credible, with equal tails.")
    better: float | None = Field(default=None, description="Probability that the arm is better.")
    better_beyond_margin: float | None = Field(default=None, description="By more than the margin.")
    within_margin: float | None = Field(default=None, description="In the region of practical equivalence.")
    worse_beyond_margin: float | None = None


class Sensitivity(Typed):
    """What the sign-flip test would say, were the missing values as the metric's bounds allow: an extreme case each."""

    missing: int = Field(description="Pairs that lack a value.")
    worst: VerdictWord = Field(description="As bad for the arm, and as good for the other, as can be.")
    worst_estimate: float
    best: VerdictWord
    best_estimate: float


class Contrast(Typed):
    """One arm against the baseline on one metric."""

    arm: str
    baseline: str
    verdict: VerdictWord
    sentence: str = Field(description="The verdict for a person.")
    reasons: list[str] = Field(default=[], description="What kept it from being conclusive.")
    pairs: int
    differences: dict[str, float] = Field(
        default={}, description="By replicate: arm - baseline, or the logarithm of arm / baseline."
    )
    estimate: float | None = Field(default=None, description="Mean difference, or ratio of geometric means.")
    interval: Interval | None = None
    significant: bool = Field(default=False, description="A difference was shown, large or small.")
    beyond_floor: bool | None = Field(
        default=None,
        description="Whether the estimate is beyond the noise floor; null: none is asked for or known.",
    )
    within_margin: bool | None = Field(
        default=None, description="Shown to be too small to matter; null: no margin."
    )
    test: Test | None = None
    looks: list[Look] | None = Field(default=None, description="Null: it is looked once.")
    equivalence: Equivalence | None = None
    effect_size: EffectSize | None = None
    probability_better: Probability | None = None
    sensitivity: Sensitivity | None = Field(
        default=None, description="Null: no pair is missing, or the metric has no bounds."
    )
    posterior: Posterior | None = Field(default=None, description="Null: the experiment asks for none.")
    shared_examples: SharedExamples | None = Field(
        default=None,
        description="Null: the metric is no mean over test examples, or no predictions are at hand.",
    )
    needed: Needed | None = None


class Rank(Typed):
    """Of one arm among all; 1 is best."""

    rank: int = Field(description="By its centre; equal ones share the best.")
    low: int = Field(description="Best rank that is not ruled out.")
    high: int = Field(description="Worst rank that is not ruled out.")
    best: float = Field(
        description="Share of bootstrap samples in which it is best; shared where several are."
    )


class Ranking(Typed):
    """Ranks of all arms: from `low` to `high` for all arms at once, with this confidence."""

    method: str = "one-sided sign-flip tests of all pairs, Holm"
    confidence: float
    reason: str | None = Field(default=None, description="Why there is none.")
    arms: dict[str, Rank] = {}


class MetricResult(Typed):
    """One metric: all arms, every arm against the baseline, and the arms' ranks."""

    name: str
    title: str
    unit: str
    direction: Direction
    pairing: Pairing
    scale: Scale
    margin: float | None
    position: int = Field(description="Place in the experiment's list; 0 decides the headline.")
    arms: dict[str, ArmSummary]
    floor: Floor | None = Field(default=None, description="Null: none is asked for.")
    contrasts: list[Contrast] = Field(description="Every arm against the baseline.")
    between: list[Contrast] = Field(
        default=[], description="Later arms against earlier ones, where the experiment asks for all pairs."
    )
    ranking: Ranking | None = Field(default=None, description="Of more than two arms; null for counts.")


class Failure(Typed):
    """A run or visit that did not complete: a result like any other."""

    arm: str
    kind: Literal["seed", "block"]
    replicate: int
    outcome: Found
    message: str | None


class Outcomes(Typed):
    """How the runs of an arm and its visits in profile blocks ended."""

    runs: dict[Found, int]
    profiles: dict[Found, int]


class Variable(Typed):
    """One line of the contract: what must be equal, and whether it was."""

    name: str
    status: Literal["equal", "declared", "varies", "inapplicable", "unknown", "violated"] = Field(
        description="`declared`: differs as a factor says; `varies`: differs in a way that does not bias; "
        "`inapplicable`: there is nothing here that has it; `unknown`: not recorded everywhere; `violated`: differs undeclared."
    )
    declared_by: str | None = Field(default=None, description="The factor that declares the difference.")
    checked: int = Field(description="Records that carry it.")
    evidence: dict[str, list[str]] = Field(description="Its values by arm, a few at most.")
    message: str | None = None


class Contract(Typed):
    """`contract.json`."""

    schema_version: Literal[1] = 1
    valid: bool
    factors: list[str]
    variables: list[Variable]

    @property
    def violations(self) -> list[str]:
        return [line.message or line.name for line in self.variables if line.status == "violated"]

    @property
    def notes(self) -> list[str]:
        return [line.message for line in self.variables if line.message and line.status != "violated"]


class Sequential(Typed):
    """Where an experiment that is looked at several times stands."""

    looks: list[int] = Field(description="Seeds at each look, declared beforehand.")
    spending: Spending
    look: int = Field(description="Which look this is, from 1.")
    seeds: int
    alpha_spent: float = Field(description="Share of the error rate that may be used up to here.")
    decided: bool = Field(description="Nothing that further seeds could decide is open on the first metric.")
    stopped_early: bool = Field(description="Decided before the last look: no further seeds are run.")


class Comparison(Typed):
    """`comparison.json`."""

    schema_version: Literal[1] = 1
    experiment: str
    question: str
    baseline: str
    arms: list[str]
    confidence: float
    alpha: float
    resamples: int
    multiplicity: str = Field(description="How the error rate is held over several hypotheses.")
    contract: Literal["checked", "none"] = Field(
        default="checked",
        description="`none`: a table of numbers that Assay did not make; what else differs is not known.",
    )
    valid: bool = Field(description="Whether the contract held: otherwise nothing is claimed.")
    violations: list[str]
    warnings: list[str]
    sequential: Sequential | None = Field(default=None, description="Null: it is looked once.")
    headline: str
    outcomes: dict[str, Outcomes]
    failures: list[Failure]
    metrics: list[MetricResult]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises: RecordError naming the file and what is wrong with it."""
        return cls.parse(
            path, "no such comparison; run the experiment", "remove it and run the experiment again"
        )
