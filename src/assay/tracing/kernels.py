"""From a chrome trace of PyTorch's profiler to a table: which kernels took how much of a step."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assay.tracing.flops import FORMULAS, count_flops
from assay.tracing.model import Kernel, Kernels

STEP = "ProfilerStep#"
"""What the names of steps begin with."""
_HOST = frozenset(("cpu_op", "user_annotation"))
_GRAPH = re.compile(r"\b(CompiledFxGraph) \w+")
_DEVICE = frozenset(("kernel", "gpu_memcpy", "gpu_memset"))
KEPT_SHAPES = 3

Event = Mapping[str, Any]


class TraceError(ValueError):
    """A trace that does not hold what was to be recorded."""


@dataclass
class _Sum:
    """Calls of one name so far."""

    calls: int = 0
    self_us: float = 0.0
    flops: int | None = 0
    shapes: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)

    def add(self, self_us: float, flops: int | None, shape: str) -> None:
        self.calls += 1
        self.self_us += self_us
        self.flops = None if flops is None or self.flops is None else self.flops + flops
        if shape:
            self.shapes[shape] += self_us  # type: ignore[assignment]


def summarise(events: Iterable[Event], *, on_gpu: bool) -> Kernels:
    """Raises: TraceError where no steps were recorded, or nothing within the middle one."""
    whole = [event for event in events if event.get("ph") == "X"]
    steps = sorted((event for event in whole if is_step(event)), key=lambda event: event["dur"])
    if not steps:
        raise TraceError("the profiler recorded no step")
    step = steps[(len(steps) - 1) // 2]
    if step["dur"] <= 0:
        raise TraceError("the profiler recorded steps without a duration")
    inside = [event for event in whole if step["ts"] <= event["ts"] < end(step) and not is_step(event)]
    host = [event for event in inside if event.get("cat") in _HOST]
    device = [event for event in inside if event.get("cat") in _DEVICE]
    if on_gpu and not device:
        raise TraceError(
            "the profiler recorded no kernel of the GPU: CUPTI is missing, or in use by another program"
        )
    if not on_gpu and not host:
        raise TraceError("the profiler recorded no operator")
    sums = _of_device(device, host) if on_gpu else _of_host(host)
    busy = device if on_gpu else [event for event in host if event["tid"] == step["tid"]]
    return Kernels(
        kind="kernels" if on_gpu else "operators",
        steps=len(steps),
        step_us=step["dur"],
        rest_us=max(0.0, step["dur"] - covered(busy)),
        kernels=[
            _kernel(name, one, step["dur"])
            for name, one in sorted(sums.items(), key=lambda item: (-item[1].self_us, item[0]))
        ],
    )


def is_step(event: Event) -> bool:
    return bool(event.get("cat") == "user_annotation" and event["name"].startswith(STEP))


def end(event: Event) -> float:
    """In µs of the trace's clock."""
    return float(event["ts"] + event["dur"])


def _kernel(name: str, found: _Sum, step_us: float) -> Kernel:
    return Kernel(
        name=name,
        calls=found.calls,
        self_us=found.self_us,
        share=found.self_us / step_us,
        flops=found.flops,
        shapes=[shape for shape, _ in found.shapes.most_common(KEPT_SHAPES)],
        operator=next((name for name, _ in found.operators.most_common(1)), None),
    )


def _of_host(events: Sequence[Event]) -> dict[str, _Sum]:
    sums: dict[str, _Sum] = defaultdict(_Sum)
    for event, self_us, called in nested(events):
        flops = (
            0 if not FORMULAS.keys().isdisjoint(called) else _flops(event)
        )  # they are those of what it called
        sums[_name(event)].add(self_us, flops, _shapes(event))
    return sums


def _name(event: Event) -> str:
    """Without the hash by which PyTorch names a compiled graph: arms' graphs have different ones."""
    return _GRAPH.sub(r"\1", event["name"])


def nested(events: Sequence[Event]) -> Iterator[tuple[Event, float, list[str]]]:
    """Each event with its duration less that of the events nested directly in it, on its thread, in µs; and their names."""
    by_thread: dict[Any, list[Event]] = defaultdict(list)
    for event in events:
        by_thread[event.get("pid"), event["tid"]].append(event)
    for own in by_thread.values():
        stack: list[tuple[Event, list[Event]]] = []
        for event in sorted(own, key=lambda event: (event["ts"], -event["dur"])):
            while stack and end(stack[-1][0]) <= event["ts"]:
                yield _closed(*stack.pop())
            if stack:
                stack[-1][1].append(event)
            stack.append((event, []))
        yield from (_closed(*one) for one in reversed(stack))


def _closed(event: Event, inner: Sequence[Event]) -> tuple[Event, float, list[str]]:
    rest = event["dur"] - sum(one["dur"] for one in inner)
    return event, max(0.0, rest), [one["name"] for one in inner]


def _of_device(kernels: Sequence[Event], host: Sequence[Event]) -> dict[str, _Sum]:
    """A kernel has the shapes of the operator that launched it, and its FLOPs where it is the only one of that."""
    launchers = {
        event["args"]["External id"]: event for event in host if "External id" in event.get("args", {})
    }
    ids = [event.get("args", {}).get("External id") for event in kernels]
    computing = Counter(
        number for number, event in zip(ids, kernels, strict=True) if event["cat"] == "kernel"
    )
    sums: dict[str, _Sum] = defaultdict(_Sum)
    for number, event in zip(ids, kernels, strict=True):
        launcher = launchers.get(number)
        alone = launcher is not None and computing[number] == 1 and event["cat"] == "kernel"
        shape = "" if launcher is None else _shapes(launcher)
        found = sums[event["name"]]
        found.add(event["dur"], _flops(launcher) if alone and launcher is not None else None, shape)
        if launcher is not None:
            found.operators[launcher["name"]] += 1
    return sums


def _flops(event: Event) -> int | None:
    arguments = event.get("args", {})
    return count_flops(event["name"], arguments.get("Input Dims", ()), arguments.get("Concrete Inputs", ()))


def _shapes(event: Event) -> str:
    """`64×1×8×8, 16×1×3×3` of the arguments that are tensors; lists of tensors are left out."""
    shapes = event.get("args", {}).get("Input Dims", ())
    told = [shape for shape in shapes if shape and all(isinstance(side, int) for side in shape)]
    return ", ".join("\N{MULTIPLICATION SIGN}".join(map(str, shape)) for shape in told)


def covered(events: Iterable[Event]) -> float:
    """µs in which at least one of the events went on."""
    total, until = 0.0, float("-inf")
    for event in sorted(events, key=lambda event: event["ts"]):
        total += max(0.0, end(event) - max(until, event["ts"]))
        until = max(until, end(event))
    return total
