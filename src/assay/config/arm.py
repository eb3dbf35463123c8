"""An arm of the experiment file: a model, how it is trained, and how the arithmetic is done."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME_LENGTH = 63
NAME_PATTERN = rf"^[a-z0-9][a-z0-9_-]{{0,{NAME_LENGTH - 1}}}$"
"""Names of experiments and arms: they become file names and wildcards."""

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


ARM_SECTIONS = tuple(Arm.model_fields)
"""Sections that may stand at the top of the file (for all arms) and inside an arm (for it alone)."""


def spec_of(arm: Arm) -> dict[str, Any]:
    """The arm as plain builtins, every default written out."""
    return arm.model_dump(mode="json")
