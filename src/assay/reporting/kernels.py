"""The tables of kernel traces: the longest kernels of each arm, and in which of them arms differ."""

from assay.reporting.numbers import MINUS, NOTHING, plain, quantity, significant
from assay.reporting.read import Results
from assay.reporting.table import Column, Raw, Table
from assay.tracing.model import MODES, Kernel, Mode, Traced

SHOWN = 8
"""Kernels of an arm and trace, and differences between two arms, on the page; the CSV has all."""
MAX_NAME = 72
"""Characters of a kernel's name on the page: those of templates run to thousands."""
WORDS: dict[Mode, str] = {"inference": "inference", "training": "training step"}
REST = {"operators": "(outside operators)", "kernels": "(GPU idle)"}
WHOLE = "(whole step)"


def kernels(results: Results) -> Table:
    """Self time, calls, share and FLOPs by kernel, longest first, for each arm and trace."""
    columns = [
        Column("Trace"),
        Column("Arm"),
        Column("Kernel", "code"),
        Column("Self time an image", "number"),
    ]
    columns += [Column(title, "number") for title in ("Share of the step", "Calls a step", "FLOPs an image")]
    columns += [Column("Launched by", "code"), Column("Longest for shapes", "code")]
    rows, data = [], []
    for mode in MODES:
        for one in results.traces:
            if (traced := one.modes.get(mode)) is not None:
                rows += [_row(mode, one.arm, traced, found) for found in _with_rest(traced)[:SHOWN]]
                data += [_data(mode, one.arm, traced, found) for found in _with_rest(traced)]
    return Table("kernels", "Kernels", columns, rows, data)


def _with_rest(traced: Traced) -> list[Kernel]:
    """All kernels and, where it belongs among them, the time outside; longest first."""
    found = traced.kernels
    share = found.rest_us / found.step_us
    rest = Kernel(
        name=REST[found.kind],
        calls=1,
        self_us=found.rest_us,
        share=share,
        flops=None,
        shapes=[],
        operator=None,
    )
    return sorted([*found.kernels, rest], key=lambda kernel: -kernel.self_us)


def _row(mode: Mode, arm: str, traced: Traced, kernel: Kernel) -> list[str]:
    flops = None if kernel.flops is None else kernel.flops / traced.images
    return [
        WORDS[mode],
        arm,
        _clipped(kernel.name),
        quantity(kernel.self_us / traced.images, "µs"),
        f"{plain(100 * kernel.share, 1)}%",
        NOTHING if kernel.name in REST.values() else f"{kernel.calls:,}",
        quantity(flops, "FLOP"),
        kernel.operator or "",
        _clipped(kernel.shapes[0]) if kernel.shapes else "",
    ]


def _data(mode: Mode, arm: str, traced: Traced, kernel: Kernel) -> dict[str, Raw]:
    return {
        "trace": mode,
        "arm": arm,
        "kind": traced.kernels.kind,
        "kernel": kernel.name,
        "self_us": kernel.self_us,
        "share": kernel.share,
        "calls": None if kernel.name in REST.values() else kernel.calls,
        "flops": kernel.flops,
        "images": traced.images,
        "operator": kernel.operator,
        "shapes": "; ".join(kernel.shapes),
    }


def differences(results: Results) -> Table:
    """By trace and arm: the kernels in which it spends more or less than the baseline, largest difference first.

    Arms on different kinds of device have no kernels in common, and none of these rows.
    """
    columns = [
        Column("Trace"),
        Column("Arm"),
        Column("Kernel", "code"),
        Column(results.comparison.baseline, "number"),
    ]
    columns += [Column("The arm", "number"), Column("Difference", "number")]
    traces = {one.arm: one.modes for one in results.traces}
    rows, data = [], []
    for mode in MODES:
        baseline = traces.get(results.comparison.baseline, {}).get(mode)
        for arm in results.arms[1:]:
            other = traces.get(arm, {}).get(mode)
            if baseline is None or other is None or baseline.kernels.kind != other.kernels.kind:
                continue
            lines = _compared(baseline, other)
            rows += [
                [WORDS[mode], arm, _clipped(name), *_texts(before, now)]
                for name, before, now in lines[: SHOWN + 1]
            ]
            data += [
                {"trace": mode, "arm": arm, "kernel": name, "baseline_us": before, "arm_us": now}
                | {"difference_us": _difference(before, now)}
                for name, before, now in lines
            ]
    return Table("kernel-differences", "Kernels in which arms differ", columns, rows, data)


Line = tuple[str, float | None, float | None]
"""A kernel's name, and its self time in µs an image in the baseline and in the arm; null where it has none."""


def _compared(baseline: Traced, arm: Traced) -> list[Line]:
    """The whole step first, then by the size of the difference."""
    before, now = _per_image(baseline), _per_image(arm)
    lines: list[Line] = [(name, before.get(name), now.get(name)) for name in before | now]
    return sorted(lines, key=lambda line: (line[0] != WHOLE, -abs(_difference(line[1], line[2])), line[0]))


def _per_image(traced: Traced) -> dict[str, float]:
    times = {kernel.name: kernel.self_us for kernel in _with_rest(traced)} | {WHOLE: traced.kernels.step_us}
    return {name: time / traced.images for name, time in times.items()}


def _difference(before: float | None, now: float | None) -> float:
    return (now or 0.0) - (before or 0.0)


def _texts(before: float | None, now: float | None) -> list[str]:
    change = _difference(before, now)
    sign = "+" if change > 0 else MINUS if change < 0 else ""
    return [*(quantity(value, "µs") for value in (before, now)), f"{sign}{significant(abs(change))} µs"]


def _clipped(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
