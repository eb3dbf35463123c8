"""What the machine did while a run or the visits of a block went on: telemetry over time, with the training's loss on its clock."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.records import Telemetry
from assay.reporting import parts
from assay.reporting.logs import read_logs
from assay.reporting.parts import Drawn, Plot
from assay.reporting.read import ReportError, Results, Run, Visit
from assay.reporting.style import COLOURS, MUTED, SMALL, WIDTH
from assay.telemetry.reasons import INVALIDATING, names
from assay.telemetry.window import lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ARMS = 4
"""Arms of which a run and a block are drawn; the table has all."""
MAX_POINTS = 400
"""Points of a line: of more samples, the mean of each stretch, and its range as a band."""
READ_BYTES = 64 * 2**20
"""Of telemetry; of a longer file, which tells of hours, every so many samples are read, so that memory is bounded."""
PANEL_HEIGHT = 0.82
"""Inches."""
POWER_CAP = "software_power_cap"
_RATES = ("busy_s", "waited_s")
"""Seconds that count up: drawn as their share of the time between two samples."""

Numbers = NDArray[np.float64]
Series = tuple[tuple[str, str], ...]
"""Names of a sample's values, each with its label in the legend."""


@dataclass(frozen=True)
class Panel:
    """Series on one axis."""

    title: str
    series: Series


GPU_PANELS = (
    Panel("in use (%)", (("utilization_percent", ""),)),
    Panel("clock (MHz)", (("sm_mhz", "SM"), ("memory_mhz", "memory"))),
    Panel("power (W)", (("power_w", "drawn"), ("power_limit_w", "limit"))),
    Panel("heat (°C)", (("temperature_c", "core"), ("memory_temperature_c", "memory"))),
)
CPU_PANELS = (
    Panel("thread (%)", (("busy_s", "ran"), ("waited_s", "waited"))),
    Panel("load", (("load", ""),)),
    Panel("CPU (MHz)", (("cpu_mhz", ""),)),
    Panel("CPU (°C)", (("temperature_c", ""),)),
)


@dataclass
class Told:
    """All samples of one file: times in s since 1970, and values by name, null as NaN."""

    times: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    held: list[bool] = field(default_factory=list)
    """Whether heat or a fault held the clocks down, or the control group the CPU."""
    capped: list[bool] = field(default_factory=list)
    """Whether the power limit did."""
    lost: list[float] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    on_gpu: bool = False
    interval: float = 0.1
    stride: int = 1
    """Every so many samples were read."""


def plots(results: Results) -> list[Plot]:
    """Of each arm the run and the block with the most throttling, else the first that have telemetry."""
    found = []
    for arm in results.arms[:MAX_ARMS]:
        runs = [run for run in results.runs if run.arm == arm and run.telemetry is not None]
        if runs:
            run = max(runs, key=lambda run: _worst([run.telemetry]))
            name, title = f"telemetry-{arm}-seed-{run.seed}", f"Training {arm}, seed {run.seed}"
            found.append(Plot(name, title, partial(_of_run, run)))
    for arm in results.arms[:MAX_ARMS]:
        visits = [visit for visit in results.visits if visit.arm == arm and visit.telemetry]
        if visits:
            visit = max(visits, key=lambda visit: _worst(visit.telemetry))
            name, title = f"telemetry-{arm}-block-{visit.block}", f"Profile of {arm}, block {visit.block}"
            found.append(Plot(name, title, partial(_of_visit, visit)))
    return found


def throttled(telemetry: Telemetry) -> float:
    """Largest share of samples in which heat or a fault held a GPU's clocks down."""
    return max(
        (gpu.clock_reasons.get(reason, 0.0) for gpu in telemetry.gpus for reason in INVALIDATING), default=0.0
    )


def held_back(telemetry: Telemetry) -> float:
    """Seconds for which the control group held the job's CPUs back."""
    told = telemetry.cpu.get("throttled_s")
    return 0.0 if told is None else told.maximum


def _worst(told: Sequence[Telemetry | None]) -> tuple[bool, float, float]:
    known = [one for one in told if one is not None]
    lost = any(gpu.lost is not None for one in known for gpu in one.gpus)
    return lost, max(map(throttled, known), default=0.0), max(map(held_back, known), default=0.0)


def _of_run(run: Run, results: Results) -> Drawn | None:
    folder = results.run_path(run.arm, run.seed, "train")
    loss = _loss(folder / "log.jsonl")
    drawn = _draw(read(folder / "telemetry.jsonl"), loss)
    if drawn is None:
        return None
    count = sum(one.telemetry is not None and one.arm == run.arm for one in results.runs)
    return drawn[0], drawn[1] + parts.cap(count, 1, "runs of the arm, of which it throttled most")


def _of_visit(visit: Visit, results: Results) -> Drawn | None:
    path = results.folder / "profile" / f"block-{visit.block}" / visit.arm / "telemetry.jsonl"
    drawn = _draw(read(path), None)
    if drawn is None:
        return None
    count = sum(bool(one.telemetry) and one.arm == visit.arm for one in results.visits)
    caption = f"{drawn[1]} Upright: each measurement's begin."
    return drawn[0], caption + parts.cap(count, 1, "blocks, of which it throttled most")


# --- reading --------------------------------------------------------------------------------------------


def read(path: Path) -> Told:
    """Raises: ReportError naming a file with lines that are not telemetry."""
    told = Told()
    if path.exists():
        told.stride = -(-path.stat().st_size // READ_BYTES) or 1
    throttled_before: float | None = None
    samples = 0
    try:
        for line in lines(path):
            time = datetime.fromisoformat(line["timestamp"]).timestamp()
            match line["event"]:
                case "start":
                    told.interval = float(line["interval_s"])
                    throttled_before = None
                case "lost":
                    told.lost.append(time)
                case "before":
                    told.marks.append((time, str(line.get("measurement", ""))))
                case "sample":
                    if samples % told.stride == 0:
                        throttled_before = _take(told, time, line, throttled_before)
                    samples += 1
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReportError(
            f"{path}: not telemetry: {error}; remove the file, and the report goes without this figure"
        ) from None
    return told


def _take(told: Told, time: float, line: dict[str, Any], throttled_before: float | None) -> float | None:
    gpus: list[dict[str, Any]] = line["gpus"]
    told.on_gpu |= bool(gpus)
    found = {f"cpu {name}": value for name, value in line["cpu"].items()}
    for index, gpu in enumerate(gpus):
        found |= {f"{index} {name}": value for name, value in gpu.items()}
    for name, value in found.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            column = told.values.setdefault(name, [])
            column.extend([math.nan] * (len(told.times) - len(column)))
            column.append(float(value))
    reasons = {reason for gpu in gpus for reason in names(gpu.get("clock_reasons") or 0)}
    throttled_now: float | None = line["cpu"].get("throttled_s")
    grown = throttled_before is not None and throttled_now is not None and throttled_now > throttled_before
    told.held.append(bool(reasons & set(INVALIDATING)) or grown)
    told.capped.append(POWER_CAP in reasons)
    told.times.append(time)
    return throttled_now


def _loss(path: Path) -> tuple[Numbers, Numbers] | None:
    """Times in s since 1970, and losses; None where none was written."""
    import polars as pl

    if not path.exists():
        return None
    steps = read_logs([path], ["timestamp", "event", "loss"]).filter(
        (pl.col("event") == "step") & pl.col("loss").is_not_null() & pl.col("loss").is_finite()
    )
    if steps.is_empty():
        return None
    steps = steps.sort("timestamp")
    times = [datetime.fromisoformat(stamp).timestamp() for stamp in steps["timestamp"]]
    return np.array(times), steps["loss"].to_numpy()


# --- drawing --------------------------------------------------------------------------------------------


def _draw(told: Told, loss: tuple[Numbers, Numbers] | None) -> Drawn | None:
    """Null where fewer than two samples were taken. Only what was measured gets a panel."""
    if len(told.times) < 2:
        return None
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator

    panels = _panels(told)
    rows = len(panels) + (loss is not None)
    if rows == 0:
        return None
    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * rows + 0.45), layout="constrained")
    axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    start = min([told.times[0], *(loss[0][:1] if loss is not None else ())])
    for one in axes:
        one.set_facecolor("none")
        one.yaxis.set_major_locator(MaxNLocator(4))
        one.tick_params(labelsize=SMALL)
        _shade(one, told, start)
    if loss is not None:
        _line(axes[0], loss[0] - start, loss[1], COLOURS[1], gap=math.inf)
        axes[0].set_ylabel("loss", fontsize=SMALL)
        parts.log_axis(axes[0], "y", loss[1].tolist())
        if axes[0].get_yscale() == "log":
            axes[0].yaxis.set_major_locator(LogLocator(numticks=4))
    times = np.array(told.times) - start
    for one, (title, series) in zip(axes[rows - len(panels) :], panels, strict=True):
        for index, (label, values) in enumerate(series):
            _line(
                one,
                times,
                values,
                COLOURS[(2 * index) % len(COLOURS)],
                gap=5 * told.interval * told.stride,
                label=label,
            )
        one.set_ylabel(title, fontsize=SMALL)
        if len(series) > 1:
            one.legend(loc="center right", fontsize=SMALL)
    axes[-1].set_xlabel("seconds")
    return figure, _caption(told)


def _panels(told: Told) -> list[tuple[str, list[tuple[str, Numbers]]]]:
    """Title and measured series; those of a CPU only where no GPU computed."""
    found = []
    devices = (
        sorted({name.split(" ")[0] for name in told.values} - {"cpu"}, key=int) if told.on_gpu else ["cpu"]
    )
    for panel in GPU_PANELS if told.on_gpu else CPU_PANELS:
        series = [
            (" ".join(filter(None, (f"GPU {device}" if len(devices) > 1 else "", label))), column)
            for device in devices
            for name, label in panel.series
            if (column := _column(told, f"{device} {name}")) is not None
        ]
        if series:
            found.append((panel.title, series))
    return found


def _column(told: Told, name: str) -> Numbers | None:
    values = told.values.get(name)
    if values is None:
        return None
    found = np.array(values + [math.nan] * (len(told.times) - len(values)))
    if name.split(" ")[1] not in _RATES:
        return found
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 100 * np.diff(found, prepend=math.nan) / np.diff(np.array(told.times), prepend=math.nan)
    # Another process counts from the beginning, and the machine's clock may have been set back.
    return np.where(np.isfinite(share) & (share >= 0) & (share <= 110), share, math.nan)


def _line(axes: "Axes", times: Numbers, values: Numbers, colour: str, *, gap: float, label: str = "") -> None:
    """What is asked for seldom is carried from value to value; the line breaks where nothing was sampled."""
    known = np.isfinite(values)
    times, values = times[known], values[known]
    if len(times) == 0:
        return
    gap = max(gap, 3 * float(np.median(np.diff(times)))) if len(times) > 1 else gap
    width = max(1, math.ceil(len(times) / MAX_POINTS))
    starts = np.arange(0, len(times), width)
    sizes = np.diff([*starts, len(times)])
    xs, means = np.add.reduceat(times, starts) / sizes, np.add.reduceat(values, starts) / sizes
    apart = np.diff(xs) > gap + (width * np.median(np.diff(times)) if len(times) > 1 else 0)
    breaks = np.flatnonzero(apart) + 1
    broken_xs, broken = np.insert(xs, breaks, np.nan), np.insert(means, breaks, np.nan)
    axes.plot(
        broken_xs, broken, color=colour, linewidth=1.2, label=label, marker="." if len(xs) < 3 else None
    )
    if width > 1:
        low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        axes.fill_between(xs, low, high, color=colour, alpha=0.2, linewidth=0)


def _shade(axes: "Axes", told: Told, start: float) -> None:
    for flags, colour, alpha in ((told.held, COLOURS[1], 0.25), (told.capped, COLOURS[4], 0.15)):
        for begin, end in _spans(told, flags):
            axes.axvspan(begin - start, end - start, color=colour, alpha=alpha, linewidth=0)
    for time in told.lost:
        axes.axvline(time - start, color=COLOURS[1], linewidth=1.6)
    for time, _ in told.marks:
        axes.axvline(time - start, color=MUTED, linewidth=0.5)


def _spans(told: Told, flags: Sequence[bool]) -> Iterator[tuple[float, float]]:
    """From the first sample of each stretch to the one after its last."""
    begin: float | None = None
    for index, flag in enumerate(flags):
        time = told.times[index]
        if flag and begin is None:
            begin = time
        elif not flag and begin is not None:
            yield begin, time
            begin = None
    if begin is not None:
        yield begin, told.times[-1] + told.interval


def _caption(told: Told) -> str:
    held = sum(told.held) / len(told.held)
    what = (
        "heat or a fault held the GPU's clocks down" if told.on_gpu else "the control group held the CPU back"
    )
    text = f"Shaded orange: {what} ({100 * held:.3g}% of the samples)." if held else f"At no sample {what}."
    capped = sum(told.capped) / len(told.capped)
    if capped:
        text += f" Shaded yellow: the power limit did ({100 * capped:.3g}%)."
    if told.stride > 1:
        text += f" Drawn: one in {told.stride} samples."
    if told.lost:
        text += " Thick and upright: the GPU was lost."
    return text
