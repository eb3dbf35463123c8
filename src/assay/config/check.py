"""`assay check`: an experiment in the words of its file, before anything runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.config.arm import Arm
from assay.config.errors import short
from assay.config.estimate import (
    Estimate,
    NoiseEstimate,
    SweepEstimate,
    estimate,
    estimate_noise,
    estimate_sweep,
)
from assay.config.load import load
from assay.config.looks import NAMES
from assay.config.resolve import differences, warnings
from assay.config.schema import Experiment
from assay.config.sweep import Sweep
from assay.config.trials import swept_paths

if TYPE_CHECKING:
    from rich.text import Text


def check(file: Path, *, results: Path, full: bool = False) -> str:
    """What the file asks, as plain text. Raises: ConfigError with every mistake."""
    experiment = load(file)
    if full:
        import yaml

        return yaml.safe_dump(
            experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True
        ).rstrip()
    blocks = [
        _head(experiment),
        _differing(experiment),
        _shared(experiment),
        "\n".join(_cost(experiment, results)),
        "\n".join(f"warning: {text}" for text in warnings(experiment)),
    ]
    return "\n\n".join(block for block in blocks if block)


def coloured(text: str) -> "Text":
    """The same for a terminal: labels dim, the name bold, warnings yellow."""
    from rich.text import Text

    shown = Text(text)
    shown.highlight_regex(r"\A[^:\n]+", "bold")
    shown.highlight_regex(rf"(?m)^(?:{'|'.join(_LABELS)})(?=  )", "dim")
    shown.highlight_regex(r"(?m)^differs in .*$", "bold")
    shown.highlight_regex(r"(?m)^warning: .*$", "yellow")
    return shown


_LABELS = (
    "arms",
    "factors",
    "data",
    "seeds",
    "looks",
    "metrics",
    "alike",
    "jobs",
    "devices",
    "time",
    "sweep",
    "noise",
)


def _head(experiment: Experiment) -> str:
    lines = [f"{experiment.name}: {experiment.question}" if experiment.question else experiment.name]
    arms = [f"{name} (baseline)" if name == experiment.baseline else name for name in experiment.arms]
    lines.append(f"arms      {', '.join(arms)}")
    lines.append(f"factors   {', '.join(experiment.factors)}")
    lines.append(f"data      {experiment.data.source}")
    lines.append(f"seeds     {len(experiment.seeds)}: {_listed(experiment.seeds)}")
    if experiment.comparison.looks is not None:
        told = f"after {', '.join(map(str, experiment.comparison.looks))} seeds"
        lines.append(f"looks     {told} ({NAMES[experiment.comparison.spending]} spending)")
    judged = [f"{m.name} (margin {m.margin:g})" if m.margin else m.name for m in experiment.metrics]
    lines.append(f"metrics   {', '.join(judged)}")
    return "\n".join(lines)


def _listed(numbers: list[int]) -> str:
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    shown = ", ".join(str(number) for number in numbers[:12])
    return shown + (", …" if len(numbers) > 12 else "")


def _differing(experiment: Experiment) -> str:
    """The settings in which arms differ, side by side; many arms below one another."""
    paths = list(dict.fromkeys(difference.path for difference in differences(experiment)))
    if not paths:
        return "The arms do not differ in anything."
    specs = {name: arm.model_dump(mode="json") for name, arm in experiment.arms.items()}
    rows = [["differs in", *experiment.arms]]
    rows += [[path, *(_setting(spec, path) for spec in specs.values())] for path in paths]
    return _aligned(
        rows if len(specs) <= len(paths) + 2 else [list(column) for column in zip(*rows, strict=True)]
    )


def _setting(spec: Any, path: str) -> str:
    for part in path.split("."):
        if not isinstance(spec, dict) or part not in spec:
            return "-"
        spec = spec[part]
    return spec if isinstance(spec, str) else short(spec)


def _shared(experiment: Experiment) -> str:
    arm = next(iter(experiment.arms.values()))
    differing = {difference.path for difference in differences(experiment)} | set(swept_paths(experiment))
    alike = [
        text
        for path, text in _in_words(arm).items()
        if not any(p == path or p.startswith(f"{path}.") for p in differing)
    ]
    return f"alike     {', '.join(alike)}; every default: assay check --full"


def _in_words(arm: Arm) -> dict[str, str]:
    """The settings that a reader looks for first, by path."""
    training, execution = arm.training, arm.execution
    changed = [key for key, value in arm.augmentation if value]
    return {
        "training.epochs": f"{training.epochs} epochs",
        "training.batch_size": f"batches of {training.batch_size}",
        "training.optimizer": f"{training.optimizer.name} at {training.optimizer.learning_rate:g}",
        "training.schedule": f"{training.schedule.name} schedule",
        "augmentation": f"augmentation by {' and '.join(changed)}" if changed else "no augmentation",
        "execution.precision": execution.precision,
        "execution.deterministic": "deterministic" if execution.deterministic else "not deterministic",
        "execution.device": f"device {execution.device}",
    }


def _devices(experiment: Experiment) -> str:
    """How many devices a job asks for."""
    shapes: dict[tuple[int, int], list[str]] = {}
    for name, arm in experiment.arms.items():
        shapes.setdefault((arm.execution.devices, arm.execution.nodes), []).append(name)
    if set(shapes) == {(1, 1)}:
        return "1 a job"
    told = []
    for (devices, nodes), names in shapes.items():
        total = f"{devices * nodes} a training" + (
            f" ({devices} on each of {nodes} nodes)" if nodes > 1 else ""
        )
        told.append(total if len(shapes) == 1 else f"{total} of {', '.join(names)}")
    return f"{'; '.join(told)}; 1 for every other job"


def _plan(plan: Estimate, devices: str) -> str:
    jobs = ", ".join(f"{count} {rule}" for rule, count in plan.jobs.items())
    lines = [f"jobs      {sum(plan.jobs.values())}: {jobs}", f"devices   {devices}"]
    work = f"{plan.trainings} trainings, {plan.epochs} epochs in all"
    if plan.training_seconds is None:
        lines.append(f"time      {work}; how long one takes is known once each arm has finished one")
    else:
        lines.append(
            f"time      {work}; about {_duration(plan.training_seconds)} of work, from finished runs"
        )
    if plan.profile_seconds:
        lines.append(f"          profile: about {_duration(plan.profile_seconds)}, the machine to itself")
    return "\n".join(lines)


def _cost(experiment: Experiment, results: Path) -> list[str]:
    lines = [_plan(estimate(experiment, results), _devices(experiment))]
    if experiment.sweep is not None:
        lines.append(_sweep_cost(experiment.sweep, estimate_sweep(experiment, results)))
    return [*lines, noise_cost(estimate_noise(experiment, results))] if experiment.noise.enabled else lines


def _sweep_cost(sweep: Sweep, plan: SweepEstimate) -> str:
    """What tuning takes before the comparison."""
    counts = dict.fromkeys(plan.trials.values())
    each = f"{next(iter(counts))} trials an arm"
    if len(counts) > 1 or not sweep.equal_budgets:
        each = f"trials of {', '.join(f'{arm} {count}' for arm, count in plan.trials.items())}"
    seeds = len(sweep.seeds)
    known = plan.training_seconds
    work = "" if known is None else f", about {_duration(known)} of work"
    paths = sorted({path for arm in plan.trials for path in sweep.space_of(arm)})
    return (
        f"sweep     {sweep.method}: {each} at {seeds} {'seed' if seeds == 1 else 'seeds'}, {plan.trainings} trainings "
        f"({plan.epochs} epochs in all{work})\n          tunes {', '.join(paths)} by {sweep.metric}{_stops(sweep)}"
    )


def _stops(sweep: Sweep) -> str:
    if sweep.prune is None:
        return ""
    after = ", ".join(map(str, sweep.prune.after))
    return f"; one trial in {sweep.prune.reduction_factor} goes on after epoch {after}"


def noise_cost(plan: NoiseEstimate) -> str:
    """What the noise floor takes beside the experiment."""
    parts = []
    if plan.trainings:
        known = plan.training_seconds
        work = "" if known is None else f", about {_duration(known)} of work"
        parts.append(
            f"{plan.arm} trained again at {plan.trainings} seeds ({plan.epochs} epochs in all{work})"
        )
    if plan.blocks:
        blocks = f"{plan.blocks} profile blocks of {plan.arm} against itself"
        parts.append(f"{blocks} (about {_duration(plan.profile_seconds)}, the machine to itself)")
    return f"noise     {'; '.join(parts)}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
