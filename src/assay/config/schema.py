"""The experiment file: one model per section, every field with a description and a default."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from assay.config.arm import Arm, Fraction, Name, Scalar, Section
from assay.config.bases import BASES, DEFAULT_BASE, Base, own_base
from assay.config.looks import Spending
from assay.config.metrics import METRICS, Direction
from assay.config.sweep import Sweep
from assay.config.tracking import problem_of_uri
from assay.isolation.gpu_places import MOST_RUNS

LEAST_NOISE_PAIRS = 3
"""Fewer pairs tell no spread, and so no noise floor."""


class Data(Section):
    """The data set. Choices look at validation only; test is read once, by evaluate."""

    source: str = Field(
        description="`digits`, `cifar10`, `cifar100`, `mnist`, `fashion-mnist`, `folder`, or `module:function`.",
        pattern=r"^(digits|cifar10|cifar100|mnist|fashion-mnist|folder|[A-Za-z_][\w.]*:[A-Za-z_]\w*)$",
    )
    path: str | None = Field(
        default=None, description="Folder that holds the source's files, relative to the working folder."
    )
    download: bool = Field(default=False, description="Fetch missing files. Nothing is downloaded otherwise.")
    image_size: int | None = Field(
        default=None,
        ge=1,
        description="Side in pixels of stored images; a `folder` needs it, others may not.",
    )
    validation: Fraction = Field(
        default=0.15,
        description="Share of the training images held out for choices; unused if the source has its own.",
    )
    test: Fraction = Field(
        default=0.25,
        description="Share held out for the final reading; unused if the source has its own test split.",
    )
    split_seed: int = Field(default=0, ge=0, description="Seed of the split: the same for all runs.")
    options: dict[str, Scalar | list[Scalar]] = Field(
        default={}, description="Keyword arguments for `module:function`."
    )


class MetricChoice(Section):
    """A metric on which arms are judged. The first one decides the verdict's headline."""

    name: str = Field(description="One of: " + ", ".join(f"`{name}`" for name in METRICS) + ".")
    direction: Direction | None = Field(
        default=None, description="Which way is better; null: the metric's own."
    )
    margin: float | None = Field(
        default=None,
        gt=0,
        description="Difference too small to matter, for equivalence; relative (0.05 = 5%) for costs; null: none.",
    )


class Gates(Section):
    """When a block of the profile does not count. Judged from its telemetry; what was not measured trips nothing."""

    repeats: int = Field(default=1, ge=0, le=10, description="How often an invalid block is repeated.")
    throttled: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.05,
        description="Share of a visit's samples in which heat or a fault may hold GPU clocks down.",
    )
    clock_drift: float = Field(
        default=0.05, ge=0, description="Relative difference of GPU clocks between visits of an arm."
    )
    start_band: float = Field(
        default=10, ge=0, description="Difference in °C of the GPU's temperature at the start of visits."
    )
    settle_seconds: float = Field(
        default=60, ge=0, description="Longest wait before a visit for the GPU to cool down into that band."
    )
    cpu_throttled: float = Field(
        default=0.5,
        ge=0,
        description="Seconds for which CPUs may be held back by the control group, per second of a visit.",
    )
    cpu_contention: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.75, description="Share of its time for which a visit may wait for a CPU."
    )


class LargestBatch(Section):
    """The search for the largest batch that fits, at which throughput is measured too. Nothing is tried that is foretold
    not to fit."""

    enabled: bool = Field(default=True, description="Whether to search.")
    memory: Fraction = Field(
        default=0.8,
        description="Share of the free memory (of a GPU, or of the job's bound on a CPU) that a batch may fill.",
    )
    seconds: float = Field(
        default=10, gt=0, description="Time for the calls of the search, foretold from smaller batches."
    )
    gain: Annotated[float, Field(ge=0)] | None = Field(
        default=0.05,
        description="On a CPU, relative gain in throughput below which two doublings end the search; null: memory and "
        "time alone do, as on a GPU.",
    )


class Profile(Section):
    """What each arm costs to run, measured apart from training."""

    enabled: bool = Field(default=True, description="Whether to profile at all.")
    blocks: int = Field(
        default=6, ge=1, le=100, description="Independent repetitions; arms are paired by block."
    )
    batch_sizes: list[Annotated[int, Field(ge=1)]] = Field(
        default=[1, 16, 64], min_length=1, description="Batch sizes for inference, ascending."
    )
    warmup_seconds: float = Field(default=0.2, ge=0, description="Time thrown away before each measurement.")
    seconds: float = Field(default=0.5, gt=0, description="Measuring time per batch size, at most.")
    min_seconds: float | None = Field(
        default=None, ge=0, description="Measuring time per batch size, at least; null: half of `seconds`."
    )
    width: Annotated[float, Field(gt=0)] | None = Field(
        default=0.05,
        description="Sampling stops once the 95% interval of the median is so wide, relative to the median; null: it "
        "takes all of `seconds`.",
    )
    min_samples: int = Field(default=30, ge=5, description="Samples taken even if that needs longer.")
    training_steps: int = Field(
        default=20, ge=0, description="Timed training steps per visit at least; 0: none."
    )
    largest_batch: LargestBatch = Field(
        default=LargestBatch(), description="Search for the largest batch that fits."
    )
    idle_seconds: float = Field(
        default=2, ge=0, description="Time for which the idle GPU is sampled before a block; 0: not at all."
    )
    gates: Gates = Field(default=Gates(), description="When a block does not count.")
    traces: bool = Field(
        default=True,
        description="Whether to trace each arm's kernels too, in a job of its own: no timing is taken there.",
    )

    @property
    def least_seconds(self) -> float:
        """Measuring time per batch size, at least."""
        if self.width is None:
            return self.seconds
        return self.seconds / 2 if self.min_seconds is None else self.min_seconds

    @model_validator(mode="after")
    def _ascending(self) -> "Profile":
        if self.min_seconds is not None and self.min_seconds > self.seconds:
            raise ValueError(
                f"min_seconds ({self.min_seconds:g}) is above seconds ({self.seconds:g}): write at most as many"
            )
        if sorted(set(self.batch_sizes)) != self.batch_sizes:
            raise ValueError(
                f"batch_sizes: write them ascending and once each: {sorted(set(self.batch_sizes))}"
            )
        return self


class Archive(Section):
    """What goes into the archive beside records, logs, predictions, report and code. Changing it trains and measures nothing anew."""

    weights: bool = Field(default=False, description="Whether the trained weights go in.")
    image: bool = Field(
        default=False, description="Whether the container image goes in; its lock always does."
    )
    license: str | None = Field(
        default=None,
        min_length=1,
        description="Under which licence others may use the results: an address or an SPDX name; null: not said.",
    )


class Bounds(Section):
    """What a job may take at most. A run that takes more ends, as its own result; no bound reruns anything."""

    memory_mb: int | None = Field(
        default=None,
        ge=1,
        description="MiB that a run or a visit may hold; null: its threads' share of the machine's memory, 2 GiB at "
        "least and 6 GiB beside a GPU; on a cluster 4 GiB and 2 GiB a thread. Mapped files do not count. Snakemake's "
        "`--set-resources train:mem_mb=N` goes first.",
    )
    processes: int | None = Field(
        default=None,
        ge=32,
        description="Processes and threads that a job may have at once; null: 32 for each core that it finds, 512 at least.",
    )
    runs_per_gpu: int = Field(
        default=1,
        ge=1,
        le=MOST_RUNS,
        description="How many trainings or evaluations may share a GPU of this machine, each with its share of the "
        "memory. Above 1 their times and energy are left out. Profile and traces have a GPU to themselves in any case.",
    )


class Telemetry(Section):
    """What is sampled of the machine beside every training and profile visit. Changing it reruns neither."""

    enabled: bool = Field(default=True, description="Whether to sample at all.")
    interval: float = Field(default=0.1, ge=0.01, le=60, description="Seconds between two samples.")


class Image(Section):
    """The container image that jobs run in, where containers are used: one of the two keys."""

    base: str | None = Field(
        default=None, description="A base by name: " + ", ".join(f"`{name}`" for name in BASES) + "."
    )
    reference: str | None = Field(
        default=None, description="A base of your own, by digest: `docker://NAME@sha256:…`."
    )

    @property
    def chosen(self) -> Base:
        """The base by digest. Raises: ValueError for a reference without one."""
        return own_base(self.reference) if self.reference is not None else BASES[self.base or DEFAULT_BASE]


class Comparison(Section):
    """How sure a verdict must be."""

    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="Level of intervals; 1 - level for tests."
    )
    resamples: int = Field(default=10_000, ge=1000, description="Bootstrap resamples.")
    contrasts: Literal["baseline", "all"] = Field(
        default="baseline",
        description="Which arms are compared: each with the baseline, or `all` pairs, which takes more seeds to decide.",
    )
    bayesian: bool = Field(
        default=False,
        description="Whether to estimate differences the Bayesian way too: probabilities that an arm is better, and by more "
        "than the margin. They stand beside the verdict and decide nothing.",
    )
    target_accuracy: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Validation accuracy, the same for all arms, up to which `train_seconds_to_target` and "
        "`train_energy_to_target` count; null: none. Changing it trains nothing anew.",
    )
    looks: Annotated[list[Annotated[int, Field(ge=3)]], Field(min_length=2)] | None = Field(
        default=None,
        description="Numbers of seeds after which `assay run` compares, and stops where the first metric is decided; the last is "
        "the number of `seeds`. The error rate holds over all looks. Null: one look, at all seeds.",
    )
    spending: Spending = Field(
        default="obrien-fleming",
        description="How much of the error rate early looks may use: `obrien-fleming` little, `pocock` more.",
    )

    @model_validator(mode="after")
    def _looks_ascend(self) -> "Comparison":
        if self.looks is not None and sorted(set(self.looks)) != self.looks:
            raise ValueError(f"looks: write them ascending and once each: {sorted(set(self.looks))}")
        return self


class Noise(Section):
    """One arm a second time, as an arm of another name: what difference means nothing here. `assay noise FILE` tells it too."""

    enabled: bool = Field(
        default=False,
        description="Whether the experiment measures it. Then a difference within it is neither `better` nor `worse`.",
    )
    arm: Name | None = Field(default=None, description="Which arm; null: the baseline.")
    seeds: int | None = Field(
        default=None,
        ge=0,
        description="At how many of the seeds it is trained again, 3 at least; null: all; 0: none, and no floor for "
        "what is learnt.",
    )
    blocks: int | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Profile blocks of the two, 3 at least; null: `profile.blocks`; 0: none, and no floor for costs.",
    )


class Tracking(Section):
    """Where runs, metrics, files and the verdict are sent at the end. A server that is down hurts no run; changing it reruns no training."""

    mlflow: str | None = Field(
        default=None,
        description="An MLflow server, `https://HOST:PORT`, or a local folder, `./mlruns`; null: none. Credentials stand in MLflow's "
        "own environment variables.",
    )

    @model_validator(mode="after")
    def _reachable(self) -> "Tracking":
        if self.mlflow is not None and (problem := problem_of_uri(self.mlflow)):
            raise ValueError(f"mlflow: {problem}")
        return self


class Experiment(Section):
    """One question, fully resolved: every default written out."""

    name: Name = Field(description="Names the results folder.")
    question: str = Field(default="", description="What you want to know, in one sentence.")
    baseline: Name = Field(description="The arm that the others are compared with; the first one by default.")
    factors: list[str] = Field(
        min_length=1,
        description="Settings in which arms are declared to differ, e.g. `model` or `training.optimizer`.",
    )
    arms: dict[Name, Arm] = Field(min_length=2, description="The variants under comparison.")
    data: Data = Field(description="The data set.")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        min_length=1, description="Replicates; a number N means 0 to N-1. Arms are paired by seed."
    )
    metrics: list[MetricChoice] = Field(
        default=[MetricChoice(name="accuracy")],
        min_length=1,
        description="What is judged, most important first.",
    )
    profile: Profile = Field(default=Profile(), description="What each arm costs to run.")
    telemetry: Telemetry = Field(default=Telemetry(), description="What is sampled beside every run.")
    comparison: Comparison = Field(default=Comparison(), description="How sure a verdict must be.")
    noise: Noise = Field(default=Noise(), description="What difference means nothing here.")
    sweep: Sweep | None = Field(
        default=None, description="Settings that are tuned for each arm first; null: none."
    )
    bounds: Bounds = Field(default=Bounds(), description="What a job may take at most.")
    archive: Archive = Field(default=Archive(), description="What goes into the archive.")
    image: Image = Field(
        default=Image(base=DEFAULT_BASE), description="The container image that jobs run in, if in one."
    )
    tracking: Tracking = Field(default=Tracking(), description="Where results are sent at the end.")
