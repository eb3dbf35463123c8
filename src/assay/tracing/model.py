"""What a trace shows, as its record holds it. Free of PyTorch, so that a report starts at once."""

from typing import Literal

from assay.records import Typed

Mode = Literal["inference", "training"]
MODES: tuple[Mode, ...] = ("inference", "training")


class Kernel(Typed):
    """All calls of one name in a step."""

    name: str
    calls: int
    self_us: float
    """Without what it called."""
    share: float
    """Of a step's duration; on several streams at once shares may add up to more than 1."""
    flops: int | None
    """Null where they are not known for each of the calls."""
    shapes: list[str]
    """Of the arguments, of what took longest first."""
    operator: str | None
    """On a GPU: the operator that launched it, most often."""


class Kernels(Typed):
    """One trace in numbers: of its steps the one of middle duration, so that one which was interrupted tells nothing.

    Longest kernel first.
    """

    kind: Literal["operators", "kernels"]
    """Operators on a CPU, kernels on a GPU."""
    steps: int
    """Recorded ones."""
    step_us: float
    """Duration under the profiler, to the end of the last kernel."""
    rest_us: float
    """Of that, the time outside all of them: Python on a CPU, an idle GPU."""
    kernels: list[Kernel]


class Traced(Typed):
    """One trace: its file, which lies beside the record, and what it shows."""

    file: str
    sha256: str
    bytes: int
    images: int
    """Of one step, over all accumulated batches."""
    kernels: Kernels
