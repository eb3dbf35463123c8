"""The experiment file: one model per section, every field with a description and a default."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from assay.config.bases import BASES, DEFAULT_BASE, Base, own_base
from assay.config.metrics import METRICS, Direction

NAME_LENGTH = 63
NAME_PATTERN = rf"^[a-z0-9][a-z0-9_-]{{0,{NAME_LENGTH - 1}}}$"
"""Names of experiments and arms: they become file names and wildcards."""

LEAST_NOISE_PAIRS = 3
"""Fewer pairs tell no spread, and so no noise floor."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Scalar = bool | int | float | str | None


class Section(BaseModel):
    """A part of the experiment file: unknown keys are refused, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Model(Section):
    """What is trained."""

    source: str = Field(
        description="`builtin:NAME`, `torchvision:NAME`, `timm:NAME`, or `module:function` of your own, "
        "which may take `num_classes`, `in_channels` and `image_size`.",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.-]*$",
    )
    options: dict[str, Scalar | list[Scalar]] = Field(
        default={}, description="Keyword arguments for the model's constructor."
    )
    image_size: int | None = Field(
        default=None,
        ge=1,
        description="Side in pixels to which images are resized for this model; null: as stored.",
    )


class Augmentation(Section):
    """Random changes of training images, made on whole batches on the device."""

    crop_padding: int = Field(
        default=0, ge=0, description="Zero padding in pixels before a random crop back to size; 0: no crop."
    )
    resized_crop: tuple[float, float] | None = Field(
        default=None,
        description="Smallest and largest share of the area for a random resized crop, e.g. `[0.08, 1.0]`.",
    )
    horizontal_flip: float = Field(default=0.0, ge=0, le=1, description="Probability of a left-right flip.")
    random_erasing: float = Field(
        default=0.0, ge=0, le=1, description="Probability of blanking one random rectangle."
    )
    mixup: float = Field(default=0.0, ge=0, description="Mixup's Beta parameter; 0: none.")
    cutmix: float = Field(default=0.0, ge=0, description="CutMix's Beta parameter; 0: none.")

    @model_validator(mode="after")
    def _consistent(self) -> "Augmentation":
        if self.resized_crop is not None:
            low, high = self.resized_crop
            if not 0 < low <= high <= 1:
                raise ValueError("resized_crop: write two shares with 0 < low <= high <= 1, e.g. [0.08, 1.0]")
            if self.crop_padding:
                raise ValueError("crop_padding and resized_crop exclude each other: remove one of them")
        return self


class SGD(Section):
    """Stochastic gradient descent."""

    name: Literal["sgd"] = Field(description="Optimiser: `sgd` or `adamw`.")
    learning_rate: float = Field(default=0.1, gt=0, description="Peak learning rate.")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum.")
    nesterov: bool = Field(default=True, description="Nesterov's momentum.")
    weight_decay: float = Field(default=5e-4, ge=0, description="L2 coefficient.")
    decay_norms_and_biases: bool = Field(
        default=False, description="Apply weight decay to norms' parameters and biases too."
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum: write nesterov: false or momentum: 0.9")
        return self


class AdamW(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = Field(description="Optimiser: `sgd` or `adamw`.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate.")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=(0.9, 0.999), description="Decay rates of the moment estimates."
    )
    epsilon: float = Field(default=1e-8, gt=0, description="Term added to the denominator.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decoupled decay coefficient.")
    decay_norms_and_biases: bool = Field(
        default=False, description="Apply weight decay to norms' parameters and biases too."
    )


class Schedule(Section):
    """Learning rate over time, updated every optimiser step."""

    name: Literal["constant", "cosine", "step", "one_cycle"] = Field(
        default="cosine", description="`constant`, `cosine`, `step` or `one_cycle`."
    )
    warmup_epochs: float = Field(default=0.0, ge=0, description="Epochs of linear warm-up from zero.")
    final_fraction: float = Field(
        default=0.0, ge=0, le=1, description="Last learning rate as a share of the peak (cosine, one_cycle)."
    )
    step_epochs: int = Field(default=30, ge=1, description="Epochs between two reductions (step).")
    step_factor: float = Field(default=0.1, gt=0, lt=1, description="Factor of each reduction (step).")
    peak_fraction: Fraction = Field(
        default=0.3, description="Share of the training at which the peak is reached (one_cycle)."
    )


class Training(Section):
    """How a model is trained."""

    epochs: int = Field(default=20, ge=1, description="Passes over the training split.")
    batch_size: int = Field(default=128, ge=1, description="Samples per step, before accumulation.")
    accumulate: int = Field(default=1, ge=1, description="Steps whose gradients make one optimiser step.")
    optimizer: Annotated[SGD | AdamW, Field(discriminator="name")] = Field(
        default=SGD(name="sgd"), description="Optimiser and its settings."
    )
    schedule: Schedule = Field(default=Schedule(), description="Learning rate over time.")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="Mass spread over all classes.")
    clip_norm: float | None = Field(
        default=None, gt=0, description="Largest norm of the gradient; null: not clipped."
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay of the exponential moving average of weights; null: none.",
    )
    select: Literal["best", "last"] = Field(
        default="best",
        description="Which epoch's weights are kept: best validation accuracy (ties: lower loss), or the last.",
    )
    checkpoint_seconds: float = Field(
        default=30.0, ge=0, description="Least time between two checkpoints; 0: after every epoch and step."
    )

    @model_validator(mode="after")
    def _warmup_fits(self) -> "Training":
        if self.schedule.warmup_epochs >= self.epochs and self.schedule.warmup_epochs > 0:
            raise ValueError(
                f"schedule.warmup_epochs ({self.schedule.warmup_epochs:g}) must be below epochs ({self.epochs})"
            )
        return self


class Execution(Section):
    """How the arithmetic is done, in training, evaluation and profile alike."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="`auto` takes a GPU where PyTorch sees one."
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="fp32, or automatic mixed precision in bf16 or fp16."
    )
    tf32: bool = Field(default=False, description="Let fp32 matrix products use TF32 on GPUs.")
    channels_last: bool = Field(default=False, description="NHWC memory format for weights and images.")
    compile: bool = Field(default=False, description="`torch.compile` the model.")
    cuda_graphs: bool = Field(
        default=False,
        description="Record the model's kernels once and replay them, on one GPU, without `training.accumulate`.",
    )
    deterministic: bool = Field(
        default=True, description="Only deterministic algorithms: the same run gives the same bits."
    )
    threads: int = Field(
        default=1,
        ge=1,
        description="CPU threads of a process; the scheduler reserves that many for each of a run's devices.",
    )
    devices: int = Field(
        default=1,
        ge=1,
        description="Devices of a node that train one run together, each its share of every batch.",
    )
    nodes: int = Field(default=1, ge=1, description="Nodes that train one run together; several need Slurm.")

    @property
    def processes(self) -> int:
        """Of a training: one per device."""
        return self.devices * self.nodes


class Arm(Section):
    """One variant under comparison, fully resolved."""

    model: Model = Field(description="What is trained.")
    augmentation: Augmentation = Field(
        default=Augmentation(), description="Random changes of training images."
    )
    training: Training = Field(default=Training(), description="How it is trained.")
    execution: Execution = Field(default=Execution(), description="How the arithmetic is done.")

    @property
    def refused_execution(self) -> tuple[str, str, str] | None:
        """A setting of `execution` that cannot be honoured: its key, what is wrong, and what to write."""
        execution = self.execution
        if execution.device == "cpu":
            for key, what in {"cuda_graphs": "CUDA graphs", "tf32": "TF32"}.items():
                if getattr(execution, key):
                    return key, f"{what} is for GPUs, and device is cpu", f"write `{key}: false`"
        if execution.cuda_graphs and execution.processes > 1:
            what = (
                f"{execution.processes} processes train one run, and a recorded step does not wait for others"
            )
            return "cuda_graphs", what, "write `cuda_graphs: false`, or `devices: 1` and `nodes: 1`"
        if execution.cuda_graphs and self.training.accumulate > 1:
            # Gradients are returned in buffers that the next step writes over (pytorch/pytorch#181723).
            what = f"a recorded step cannot add to the gradients of others ({self.training.accumulate} steps)"
            return "cuda_graphs", what, "write `cuda_graphs: false`, or `training: {accumulate: 1}`"
        return None

    @property
    def unshared_batch(self) -> tuple[str, str] | None:
        """What is wrong, and what to write, where the processes of a training cannot share a batch evenly."""
        size, processes = self.training.batch_size, self.execution.processes
        if size % processes == 0:
            return None
        below, above = size // processes * processes, -(-size // processes) * processes
        fitting = " or ".join(f"`batch_size: {number}`" for number in (below, above) if number)
        shape = f"{self.execution.devices} devices x {self.execution.nodes} nodes"
        return (
            f"{size} is not a multiple of {processes} ({shape}), which share every batch",
            f"write {fitting}",
        )


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
    target_accuracy: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="Validation accuracy, the same for all arms, up to which `train_seconds_to_target` and "
        "`train_energy_to_target` count; null: none. Changing it trains nothing anew.",
    )


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
    bounds: Bounds = Field(default=Bounds(), description="What a job may take at most.")
    image: Image = Field(
        default=Image(base=DEFAULT_BASE), description="The container image that jobs run in, if in one."
    )


ARM_SECTIONS = tuple(Arm.model_fields)
"""Sections that may stand at the top of the file (for all arms) and inside an arm (for it alone)."""


def spec_of(arm: Arm) -> dict[str, Any]:
    """The arm as plain builtins, every default written out."""
    return arm.model_dump(mode="json")
