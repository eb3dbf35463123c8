"""The state of an experiment at one moment, typed. What is not known is None, never 0."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal[
    "waiting",
    "running",
    "stalled",
    "completed",
    "diverged",
    "out_of_memory",
    "failed",
    "interrupted",
    "invalid",
    "pruned",
    "killed",
]
"""As records tell outcomes, and five more.

waiting: not begun, or to be begun again because its settings changed. stalled: it lives, but has written nothing for much
longer than its own rhythm. interrupted: asked to end; the next attempt goes on from its checkpoint. invalid: of a block whose
gates tripped. killed: gone without having said anything (`kill -9`, a dead node).
"""
BROKEN: tuple[State, ...] = (
    "diverged",
    "out_of_memory",
    "failed",
    "invalid",
    "killed",
    "interrupted",
    "stalled",
)
"""What somebody may want to look at."""
Phase = Literal["not begun", "running", "finished", "ended"]
"""ended: unfinished, and the workflow that worked on it is gone."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is told of whatever runs."""

    state: State = "waiting"
    why: str | None = None
    """Of a state that is no plain one, and of one that could not be told for sure."""
    host: str | None = None
    last_event: str | None = None
    """Time of the last line of its log, as its node told it."""


@dataclass(frozen=True, kw_only=True)
class TimedJob(Job):
    """A job whose attempts and pace are known."""

    attempt: int | None = None
    silent_s: float | None = None
    """Since its log grew last (a training), or its supervisor said that it lives; None: it waits, or has ended."""
    seconds_left: float | None = None
    """None where nothing measured tells it."""
    seconds: float | None = None
    """From beginning to end of one that completed in one attempt."""


@dataclass(frozen=True)
class Run(TimedJob):
    """One arm at one seed. Its time is the training's."""

    arm: str
    seed: int
    stage: Literal["train", "evaluate"] = "train"
    resumed: bool | None = None
    """Whether it went on from a checkpoint; None: it has not begun."""
    epoch: int | None = None
    """Epochs of the training that are done."""
    epochs: int | None = None
    step: int | None = None
    """Steps that are done, over all epochs."""
    steps: int | None = None
    loss: float | None = None
    """Of the last training step that was logged; may be nan or inf. Of an ended run: of its last epoch."""
    accuracy: float | None = None
    """Of the training so far in this epoch. Of an ended run: of its last epoch."""
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    """After the last epoch; of a completed run, of the epoch that was chosen."""
    test_accuracy: float | None = None
    throughput: float | None = None
    """Samples a second."""
    gpu_memory_mb: float | None = None
    trial: int | None = None
    """Of a sweep; None: a run of the comparison."""

    @property
    def who(self) -> str:
        return self.arm if self.trial is None else f"{self.arm} trial {self.trial}"

    @property
    def name(self) -> str:
        return f"{self.who} seed {self.seed}"


@dataclass(frozen=True)
class Block(TimedJob):
    """One block of the profile. Its attempts are those of all visits: an invalid block is repeated."""

    block: int
    visits_done: int | None = None
    visits: int | None = None
    """That an attempt makes."""
    arms: Mapping[str, State] = field(default_factory=dict)
    """Outcome by arm, once there are records."""
    tripped: tuple[str, ...] = ()
    """Gates that tripped in the last attempt."""
    rejected: tuple[str, ...] = ()
    """Gates that tripped in attempts before it."""
    place: Literal["", "noise"] = ""
    """noise: of the noise floor."""

    @property
    def name(self) -> str:
        return f"{self.place} block {self.block}".strip()


@dataclass(frozen=True)
class Trace(Job):
    """The kernel traces of one arm."""

    arm: str

    @property
    def name(self) -> str:
        return f"trace of {self.arm}"


@dataclass(frozen=True)
class Noise:
    """The noise floor: one arm a second time."""

    arm: str
    floor: State
    """completed: it is found; else waiting."""
    runs: tuple[Run, ...]
    """The second ones, under the name that the arm has then."""
    blocks: tuple[Block, ...]
    """Of the arm and itself."""


@dataclass(frozen=True)
class Sweep:
    """The search for the settings of one arm."""

    arm: str
    selected: State
    """completed: settings are selected from all trials; else waiting."""
    trials: tuple[Run, ...]
    """One per trial and seed; of one that waits to be compared with others, how far it is."""


@dataclass(frozen=True)
class Gpu:
    """The last sample of one GPU, whoever sampled it."""

    uuid: str
    name: str | None
    host: str | None
    user: str
    """The run or block whose sampler told it."""
    stage: Literal["train", "profile"]
    arm: str | None
    seed: int | None
    timestamp: str
    """As its node told it."""
    age_s: float | None
    """How long ago the sampler's file last grew, by this machine's clock."""
    live: bool
    """Whether the sampler still runs."""
    values: Mapping[str, float | None]
    """By the sampler's names (`utilization_percent`, `memory_used_mb`, `temperature_c`, `power_w`, …)."""
    clock_reasons: tuple[str, ...] | None
    """Why its clocks are not higher, by name."""
    throttled: bool | None
    """Whether heat or a fault is among them."""
    lost: str | None
    """When it stopped to answer."""
    samples: int = 0
    """So far, as far as the sampler's file was read: those in which the reasons for lower clocks were told."""
    throttled_samples: int = 0
    """Of them, those with heat or a fault among the reasons."""
    reason_samples: Mapping[str, int] = field(default_factory=dict)
    """Of them, those with each reason."""


@dataclass(frozen=True)
class Host:
    """The last sample of the CPU side of a machine."""

    host: str
    timestamp: str
    age_s: float | None
    live: bool
    values: Mapping[str, float | None]
    """`load`, `cpu_mhz`, `temperature_c`, …, as the sampler names them."""


@dataclass(frozen=True)
class Session:
    """The Snakemake process that works on the experiment, or did."""

    pid: int
    host: str
    alive: bool | None
    """None: it is, or was, on another machine."""


@dataclass(frozen=True)
class Snapshot:
    """An experiment at one moment."""

    experiment: str
    folder: str
    taken: str
    phase: Phase
    question: str
    planned: bool
    """Whether it is known which runs there will be; else `runs` are those that have begun."""
    session: Session | None
    stages: Mapping[str, State]
    """health, data, compare, report and archive: completed, or waiting."""
    runs: tuple[Run, ...]
    blocks: tuple[Block, ...]
    gpus: tuple[Gpu, ...]
    hosts: tuple[Host, ...]
    traces: tuple[Trace, ...]
    """None where the experiment asks for none."""
    noise: Noise | None
    """None where the experiment asks for none, and nobody has begun one."""
    sweeps: tuple[Sweep, ...]
    """One per arm that is tuned."""
    training_seconds_left: float | None
    """Second runs of the noise floor included, with as many runs at a time as now; None where an arm's time is not known, or nothing runs."""
    profile_seconds_left: float | None
    headline: str | None
    """Of the comparison, once finished."""
    warnings: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """As plain values; nan and infinities as text, which JSON has no numbers for."""
        return {"schema_version": 1, **_plain(dataclasses.asdict(self))}


def states_of(
    runs: Iterable[Run],
    blocks: Iterable[Block],
    traces: Iterable[Trace],
    noise: Noise | None,
    sweeps: Iterable[Sweep],
) -> set[State]:
    """The states in which anything that runs is."""
    second: tuple[Run | Block, ...] = () if noise is None else (*noise.runs, *noise.blocks)
    trials = (trial for sweep in sweeps for trial in sweep.trials)
    return {one.state for one in (*runs, *blocks, *traces, *second, *trials)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
