"""A snapshot on a terminal: 80 columns are enough, and as many lines as there are."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from rich.console import Group, RenderableType
from rich.text import Text

from assay.monitoring.layout import shared, table
from assay.monitoring.state import BROKEN, Block, Gpu, Host, Run, Snapshot, Sweep, Trace, states_of
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
ORDER = ("waiting", "running", "trained", "completed", "pruned", *BROKEN)
PHASES = {
    "not begun": "has not begun",
    "running": "is running",
    "finished": "is finished",
    "ended": "is not finished, and nothing works on it any more",
}
MOST_LINES = 120
"""Where nobody tells how many fit."""


def render(snapshot: Snapshot, width: int, height: int | None = None) -> Group:
    """width, height: of the terminal in characters; no height: as many lines as it takes, within reason."""
    runs, blocks = list(snapshot.runs), list(snapshot.blocks)
    if snapshot.noise is not None:
        runs += snapshot.noise.runs
        blocks += [replace(block, place="noise") for block in snapshot.noise.blocks]
    trials = [trial for sweep in snapshot.sweeps for trial in sweep.trials]
    going = [run for run in (*runs, *trials) if run.state in ("running", "stalled") and run.stage == "train"]
    watched: list[Run | Block | Trace] = [*runs, *blocks, *snapshot.traces]
    watched += [trial for trial in trials if trial.state != "diverged"]  # that is a trial's result
    broken = [one for one in watched if one.state in BROKEN]
    broken.sort(key=lambda one: one.last_event or "", reverse=True)
    arms = list(dict.fromkeys(run.arm for run in snapshot.runs))
    gpus = [gpu for gpu in snapshot.gpus if gpu.live or gpu.lost]
    machines = [] if gpus else [_host(host) for host in snapshot.hosts if host.live]
    wanted = [len(arms), len(gpus), len(machines), len(broken), len(going)]
    fixed = (
        6
        + 3 * sum(map(bool, wanted))
        + len(_profile(blocks))
        + len(_beside(snapshot))
        + len(snapshot.warnings)
    )
    lists = shared((height or MOST_LINES) - fixed, wanted, least=1)
    parts: list[RenderableType] = [_header(snapshot)]
    parts += _section(_counts(snapshot.runs, arms[: lists[0]], width), len(arms), lists[0], "arms")
    parts += _section(_going(going[: lists[4]], width), len(going), lists[4], "runs under way")
    parts += [Text(line) for line in (*_profile(blocks), *_beside(snapshot))]
    parts += _section(_gpus(gpus[: lists[1]], width), len(gpus), lists[1], "GPUs")
    parts += _section(machines[: lists[2]], len(machines), lists[2], "machines")
    parts += _section(
        _broken(broken[: lists[3]], width), len(broken), lists[3], "runs that did not go well before"
    )
    parts += [Text(f"warning: {_plain(text)}", style="yellow") for text in snapshot.warnings]
    if snapshot.headline and snapshot.phase == "finished":
        parts += ["", Text(_plain(snapshot.headline))]
    if snapshot.phase == "finished" and snapshot.stages["archive"] != "completed":
        parts += ["", Text("the archive is not made yet")]
    return Group(*parts)


def _section(lines: list[Text], count: int, shown: int, what: str) -> list[RenderableType]:
    """A list, and how much of it there was no room for; nothing where it is empty."""
    if not count:
        return []
    more = [Text(f"and {count - shown} more {what}", style="dim")] if shown < count else []
    return ["", *lines, *more]


def _header(snapshot: Snapshot) -> Group:
    states = [_state(run) for run in snapshot.runs]
    runs = f"{states.count('completed')} of {len(states)} runs completed"
    if not snapshot.planned:
        runs = f"{states.count('completed')} of {len(states)} runs that have begun completed"
    blocks = [block.state for block in snapshot.blocks]
    if blocks:
        runs += f", {sum(bool(block.arms) for block in snapshot.blocks)} of {len(blocks)} profile blocks done"
    taken = datetime.fromisoformat(snapshot.taken).astimezone()
    title = Text.assemble((_plain(snapshot.experiment), "bold"), f" {_phase(snapshot)}   ")
    title.append(f"{taken:%Y-%m-%d %H:%M:%S %Z}", style="dim")
    lines = [title, Text(_plain(f"{runs} ({snapshot.folder})")), Text(_left(snapshot))]
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
    if not told and any(run.state in ("failed", "killed", "interrupted") for run in snapshot.runs):
        return ""  # whether anybody goes on with them is not known
    return f"time left: {', '.join(told)}" if told else "left: evaluation, comparison, report"


def _phase(snapshot: Snapshot) -> str:
    """In words; that a workflow runs on another machine cannot be seen while none of its jobs does."""
    states = states_of(snapshot.runs, snapshot.blocks, snapshot.traces, snapshot.noise, snapshot.sweeps)
    unseen = snapshot.session is None or not snapshot.session.alive
    if snapshot.phase == "running" and unseen and not states & {"running", "stalled"}:
        return "has begun; nothing is seen to run"
    return PHASES[snapshot.phase]


def _state(run: Run) -> str:
    """As it is counted: a run that is trained and not yet evaluated is neither waiting nor running."""
    return "trained" if run.stage == "evaluate" and run.state in ("waiting", "running") else run.state


def _counts(runs: Iterable[Run], arms: Sequence[str], width: int) -> list[Text]:
    found = {arm: Counter[str]() for arm in arms}
    every = Counter[str]()
    for run in runs:
        every[_state(run)] += 1
        if run.arm in found:
            found[run.arm][_state(run)] += 1
    states = [state for state in ORDER if every[state]]
    rows: list[list[str | Text]] = [
        [arm, *(_styled(str(counts[state]) if counts[state] else "", state) for state in states)]
        for arm, counts in found.items()
    ]
    return table(["arm", *(state.replace("_", " ") for state in states)], rows, texts=[0], width=width)


def _going(runs: Sequence[Run], width: int) -> list[Text]:
    """Without a column for what no run has: a machine without a GPU has no GPU's memory."""
    memory = any(run.gpu_memory_mb is not None for run in runs)
    titles = ["arm", "seed", "epoch", "done", "loss", "acc", "valid", "samples/s"]
    titles += [*(["GPU MiB"] if memory else []), "left"]
    rows: list[list[str | Text]] = []
    for run in runs:
        seed = Text(str(run.seed))
        if run.resumed:
            seed.append(f" ({run.attempt})", style="dim")
        cells = [
            f"{_whole(run.epoch)}/{_whole(run.epochs)}",
            NOTHING if not run.step or not run.steps else f"{run.step / run.steps:.0%}",
            _loss(run.loss),
            _fraction(run.accuracy),
            _fraction(run.validation_accuracy),
            _rate(run.throughput),
            *([_whole(run.gpu_memory_mb)] if memory else []),
            _styled("stalled", "stalled") if run.state == "stalled" else _duration(run.seconds_left),
        ]
        rows.append([run.who, seed, *cells])
    return table(titles, rows, texts=[0], width=width)


def _profile(blocks: Sequence[Block]) -> list[str]:
    going = [block for block in blocks if block.state in ("running", "stalled")]
    lines = []
    for block in going:
        visits = f"{_whole(block.visits_done)} of {_whole(block.visits)} visits done"
        again = f", attempt {block.attempt}" if (block.attempt or 1) > 1 else ""
        lines.append(
            f"{'noise' if block.place else 'profile'} block {block.block}: {visits}{again}, {_duration(block.seconds_left)} left"
        )
    return ["", *lines] if lines else []


def _beside(snapshot: Snapshot) -> list[str]:
    """How far the stages are that are neither runs nor blocks of the experiment."""
    lines, noise = [_tuning(sweep) for sweep in snapshot.sweeps], snapshot.noise
    if snapshot.traces:
        lines.append(f"kernel traces: {_counted(snapshot.traces, 'arms')}")
    if noise is not None:
        parts = [_counted(noise.runs, "second runs")] if noise.runs else []
        parts += [_counted(noise.blocks, "blocks")] if noise.blocks else []
        found = "found" if noise.floor == "completed" else "not found yet"
        lines.append(f"noise floor of {noise.arm}: {'; '.join([*parts, found])}")
    return ["", *lines] if lines else []


def _tuning(sweep: Sweep) -> str:
    selected = "selected" if sweep.selected == "completed" else "not selected yet"
    return f"tuning of {sweep.arm}: {_counted(sweep.trials, 'trial runs')}; {selected}"


def _counted(ones: Sequence[Run | Block | Trace], what: str) -> str:
    """How many have ended with a result, whichever; how many of the others are in which state."""
    states = Counter(_state(one) if isinstance(one, Run) else one.state for one in ones)
    rest = [
        f"{states[state]} {state.replace('_', ' ')}"
        for state in ORDER[1:]
        if states[state] and state != "completed"
    ]
    return ", ".join([f"{states['completed']} of {len(ones)} {what} completed", *rest])


def _gpus(gpus: Sequence[Gpu], width: int) -> list[Text]:
    """With its heat, and in words why its clocks are not higher."""
    rows: list[list[str | Text]] = []
    for gpu in gpus:
        values = gpu.values
        reasons = [reason for reason in gpu.clock_reasons or () if reason != "idle"]
        why = Text(", ".join(reasons).replace("_", " "), style="bold red" if gpu.throttled else "")
        rows.append(
            [
                gpu.uuid[: len("GPU-") + 8] if gpu.uuid.startswith(("GPU-", "MIG-")) else gpu.uuid[:12],
                gpu.user,
                _whole(values.get("utilization_percent"), "%"),
                _of(_gib(values.get("memory_used_mb")), _gib(values.get("memory_total_mb"))),
                _whole(values.get("temperature_c")),
                _whole(values.get("sm_mhz")),
                _of(_whole(values.get("power_w")), _whole(values.get("power_limit_w"))),
                Text(f"lost at {_clock(gpu.lost)}", style="bold red") if gpu.lost else why,
            ]
        )
    titles = ["GPU", "for", "busy", "GiB", "°C", "MHz", "W", "held down by"]
    return table(titles, rows, texts=[0, 1, 7], width=width)


def _gib(mib: float | None) -> str:
    return NOTHING if mib is None else f"{mib / 1024:.0f}"


def _of(value: str, whole: str) -> str:
    return value if whole == NOTHING else f"{value}/{whole}"


def _host(host: Host) -> Text:
    named = (("load", "load {:.1f}"), ("cpu_mhz", "{:.0f} MHz"), ("temperature_c", "{:.0f} °C"))
    told = [form.format(value) for name, form in named if (value := host.values.get(name)) is not None]
    return Text(f"{host.host}: {', '.join(told) or 'tells nothing'}")


def _broken(ones: Sequence[Run | Block | Trace], width: int) -> list[Text]:
    rows: list[list[str | Text]] = []
    for one in ones:
        why = one.why or "see its log"
        rows.append(
            [
                one.name,
                _styled(one.state.replace("_", " "), one.state),
                _clock(one.last_event),
                _plain(why),
            ]
        )
    return table(["run or block", "is", "last line", "why"], rows, texts=[0, 3], width=width)


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
