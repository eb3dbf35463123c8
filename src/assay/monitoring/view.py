"""A snapshot on a terminal: 80 columns are enough, and as many lines as there are."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from assay.monitoring.state import BROKEN, Block, Gpu, Host, Run, Snapshot
from assay.monitoring.wording import NOTHING, span

STYLES = {
    "running": "cyan",
    "trained": "blue",
    "completed": "green",
    "interrupted": "yellow",
    "stalled": "bold yellow",
    "invalid": "bold yellow",
    "diverged": "bold red",
    "out_of_memory": "bold red",
    "failed": "bold red",
    "killed": "bold red",
}
ORDER = ("waiting", "running", "trained", "completed", *BROKEN)
PHASES = {
    "not begun": "has not begun",
    "running": "is running",
    "finished": "is finished",
    "ended": "is not finished, and nothing works on it any more",
}
MOST_LINES = 120
"""Where nobody tells how many fit."""
_FIXED_LINES, _LEAST_LINES = 12, 3
"""Header, titles and spaces; and what each list gets however low the terminal is."""


def render(snapshot: Snapshot, height: int | None = None) -> Group:
    """height: lines that there are; None: as many as it takes."""
    going = [run for run in snapshot.runs if run.state in ("running", "stalled") and run.stage == "train"]
    broken: list[Run | Block] = [run for run in snapshot.runs if run.state in BROKEN]
    broken += [block for block in snapshot.blocks if block.state in BROKEN]
    broken.sort(key=lambda one: one.last_event or "", reverse=True)
    arms = list(dict.fromkeys(run.arm for run in snapshot.runs))
    gpus = [gpu for gpu in snapshot.gpus if gpu.live or gpu.lost]
    hosts = [host for host in snapshot.hosts if host.live]
    lists = (len(arms), len(gpus) or len(hosts), len(broken), len(going))
    room = _share((height or MOST_LINES) - _FIXED_LINES, lists)
    parts: list[RenderableType] = [_header(snapshot)]
    if arms:
        parts += ["", _cut(_counts(snapshot.runs, arms[: room[0]]), len(arms), room[0], "arms")]
    if going:
        parts += ["", _cut(_going(going[: room[3]]), len(going), room[3], "runs under way")]
    parts += [Text(line) for line in _profile(snapshot.blocks)]
    if gpus:
        parts += ["", _cut(_gpus(gpus[: room[1]]), len(gpus), room[1], "GPUs")]
    elif hosts:
        parts += ["", *map(_host, hosts[: room[1]])]
    if broken:
        parts += ["", _cut(_broken(broken[: room[2]]), len(broken), room[2], "that did not go well")]
    parts += [Text(f"warning: {_plain(text)}", style="yellow") for text in snapshot.warnings]
    if snapshot.headline and snapshot.phase == "finished":
        parts += ["", Text(_plain(snapshot.headline))]
    return Group(*parts)


def _share(lines: int, wanted: Sequence[int]) -> list[int]:
    """Lines of each list: what it wants, and where that is too much, the longest gives way first."""
    given = [min(count, _LEAST_LINES) for count in wanted]
    while sum(given) < lines and any(has < count for has, count in zip(given, wanted, strict=True)):
        short = [index for index, count in enumerate(wanted) if given[index] < count]
        given[min(short, key=given.__getitem__)] += 1
    return given


def _cut(table: Table, count: int, shown: int, what: str) -> RenderableType:
    return table if shown >= count else Group(table, Text(f"and {count - shown} more {what}", style="dim"))


def _header(snapshot: Snapshot) -> Group:
    states = [_state(run) for run in snapshot.runs]
    runs = f"{states.count('completed')} of {len(states)} runs completed"
    if not snapshot.planned:
        runs = f"{states.count('completed')} of {len(states)} runs that have begun completed"
    blocks = [block.state for block in snapshot.blocks]
    if blocks:
        runs += f", {sum(bool(block.arms) for block in snapshot.blocks)} of {len(blocks)} profile blocks done"
    taken = datetime.fromisoformat(snapshot.taken).astimezone()
    title = Text.assemble((snapshot.experiment, "bold"), f" {PHASES[snapshot.phase]}   ")
    title.append(f"{taken:%Y-%m-%d %H:%M:%S %Z}", style="dim")
    lines = [title, Text(f"{runs} ({snapshot.folder})"), Text(_left(snapshot))]
    return Group(*(line for line in lines if line.plain))


def _left(snapshot: Snapshot) -> str:
    """The time left of what is left to do."""
    if snapshot.phase in ("finished", "ended", "not begun"):
        return ""
    training, profile = snapshot.training_seconds_left, snapshot.profile_seconds_left
    told = []
    if training != 0:
        told.append("training " + ("not known" if training is None else f"about {span(training)}"))
    if profile != 0:
        told.append("profile " + ("not known" if profile is None else f"about {span(profile)}"))
    return f"time left: {', '.join(told)}" if told else "time left: comparison and report"


def _state(run: Run) -> str:
    """As it is counted: a run that is trained and not yet evaluated is neither waiting nor running."""
    return "trained" if run.stage == "evaluate" and run.state in ("waiting", "running") else run.state


def _table(*columns: tuple[str, int | None]) -> Table:
    """columns: title, and the most characters of those on the right; None: on the left, gives way first."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)
    for title, width in columns:
        if width is None:
            table.add_column(title, overflow="ellipsis", no_wrap=True, min_width=8)
        else:
            table.add_column(title, justify="right", no_wrap=True, max_width=width)
    return table


def _counts(runs: Iterable[Run], arms: Sequence[str]) -> Table:
    found = {arm: Counter[str]() for arm in arms}
    every = Counter[str]()
    for run in runs:
        every[_state(run)] += 1
        if run.arm in found:
            found[run.arm][_state(run)] += 1
    states = [state for state in ORDER if every[state]]
    table = _table(("arm", None), *((state.replace("_", " "), 13) for state in states))
    for arm, counts in found.items():
        table.add_row(arm, *(_styled(str(counts[state]) if counts[state] else "", state) for state in states))
    return table


def _going(runs: Sequence[Run]) -> Table:
    """Without a column for what no run has: a machine without a GPU has no GPU's memory."""
    memory = any(run.gpu_memory_mb is not None for run in runs)
    columns = [("run", None), ("epoch", 9), ("steps", 5), ("loss", 8), ("acc", 5), ("valid", 5)]
    columns += [("samples/s", 9), *([("GPU MiB", 7)] if memory else []), ("left", 12)]
    table = _table(*columns)
    for run in runs:
        name = Text(run.name)
        if run.resumed:
            name.append(f" ({run.attempt})", style="dim")
        cells = [
            Text(f"{_whole(run.epoch)}/{_whole(run.epochs)}"),
            Text(NOTHING if not run.step or not run.steps else f"{run.step / run.steps:.0%}"),
            _loss(run.loss),
            Text(_fraction(run.accuracy)),
            Text(_fraction(run.validation_accuracy)),
            Text(_rate(run.throughput)),
            *([Text(_whole(run.gpu_memory_mb))] if memory else []),
            _styled("stalled", "stalled") if run.state == "stalled" else Text(_duration(run.seconds_left)),
        ]
        table.add_row(name, *cells)
    return table


def _profile(blocks: Sequence[Block]) -> list[str]:
    going = [block for block in blocks if block.state in ("running", "stalled")]
    lines = []
    for block in going:
        visits = f"{_whole(block.visits_done)} of {_whole(block.visits)} visits done"
        again = f", attempt {block.attempt}" if (block.attempt or 1) > 1 else ""
        lines.append(f"profile block {block.block}: {visits}{again}, {_duration(block.seconds_left)} left")
    return ["", *lines] if lines else []


def _gpus(gpus: Sequence[Gpu]) -> Table:
    """Heat first: the temperature, and in words why the clocks are not higher."""
    columns = [("GPU", None), ("util", 5), ("memory MiB", 13), ("°C", 5), ("SM MHz", 6), ("W", 9)]
    table = _table(*columns, ("held down by", None))
    for gpu in gpus:
        values = gpu.values
        total = values.get("memory_total_mb")
        limit = values.get("power_limit_w")
        name = gpu.uuid[: len("GPU-") + 8] if gpu.uuid.startswith(("GPU-", "MIG-")) else gpu.uuid[:12]
        reasons = [reason for reason in gpu.clock_reasons or () if reason != "idle"]
        why = ", ".join(reasons).replace("_", " ")
        table.add_row(
            f"{name} {gpu.user}",
            _whole(values.get("utilization_percent"), "%"),
            _whole(values.get("memory_used_mb")) + ("" if total is None else f"/{total:.0f}"),
            _whole(values.get("temperature_c")),
            _whole(values.get("sm_mhz")),
            _whole(values.get("power_w")) + ("" if limit is None else f"/{limit:.0f}"),
            Text(f"lost at {gpu.lost}", style="bold red")
            if gpu.lost
            else Text(why, style="bold red" if gpu.throttled else ""),
        )
    return table


def _host(host: Host) -> Text:
    named = (("load", "load {:.1f}"), ("cpu_mhz", "{:.0f} MHz"), ("temperature_c", "{:.0f} °C"))
    told = [form.format(value) for name, form in named if (value := host.values.get(name)) is not None]
    return Text(f"{host.host}: {', '.join(told) or 'tells nothing'}")


def _broken(ones: Sequence[Run | Block]) -> Table:
    table = _table(("run or block", None), ("", 13), ("at", 8), ("why", None))
    for one in ones:
        name = one.name
        why = one.why or (f"see its log: attempt {one.attempt}" if one.attempt else "see its log")
        table.add_row(
            name, _styled(one.state.replace("_", " "), one.state), _clock(one.last_event), _plain(why)
        )
    return table


def _styled(text: str, state: str) -> Text:
    return Text(text, style=STYLES.get(state, ""))


def _clock(timestamp: str | None) -> str:
    if timestamp is None:
        return NOTHING
    try:
        return f"{datetime.fromisoformat(timestamp).astimezone():%H:%M:%S}"
    except ValueError:
        return NOTHING


def _plain(text: str) -> str:
    """One line without control characters: messages come from models and libraries."""
    return "".join(one if one.isprintable() else " " for one in text)


def _whole(value: float | None, unit: str = "") -> str:
    return NOTHING if value is None or not math.isfinite(value) else f"{value:.0f}{unit}"


def _fraction(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _loss(value: float | None) -> Text:
    if value is None:
        return Text(NOTHING)
    return Text(f"{value:.3g}", style="" if math.isfinite(value) else "bold red")


def _rate(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(seconds: float | None) -> str:
    return NOTHING if seconds is None else span(seconds)
