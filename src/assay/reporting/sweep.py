"""Tuning in the report: what was selected, every trial, and the best score against the budget."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from assay.config.sweep import FOLDER
from assay.reporting import numbers, parts
from assay.reporting.numbers import NOTHING
from assay.reporting.read import Results
from assay.reporting.table import Column, Raw, Table
from assay.sweep.model import BudgetPoint, Trial, Trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_ARMS = 8


def sweep(results: Results) -> Table:
    """Of each arm: what was spent, the selected settings, and their score on the validation split."""
    paths = _paths(results.sweeps)
    columns = [Column("Arm"), Column("Trials", "number"), Column("Failed", "number")]
    stops = any(_stops(found) for found in results.sweeps)
    columns += [Column("Stopped", "number")] if stops else []
    columns += [Column("Seeds", "number"), Column("Epochs each", "number")]
    columns += [Column("Epochs spent", "number"), Column("Selected", "number")]
    columns += [
        *([] if stops else [Column("Expected of half", "number")]),
        Column("Best", "number"),
        *(Column(path, "number") for path in paths),
    ]
    lines = [_summary(found, paths) for found in results.sweeps]
    rows = [
        _summary_row(found, line, paths, stops=stops)
        for found, line in zip(results.sweeps, lines, strict=True)
    ]
    return Table("sweep", "Tuning", columns, rows, lines)


def _summary(found: Trials, paths: Sequence[str]) -> dict[str, Raw]:
    chosen = found.trials[found.selected]
    stopped = sum(trial.stopped_after is not None for trial in found.trials)
    line: dict[str, Raw] = {
        "arm": found.arm,
        "method": found.method,
        "metric": found.metric,
        "trials": len(found.trials),
        "failed": sum(trial.score is None for trial in found.trials) - stopped,
        "stopped": stopped,
        "seeds": len(found.seeds),
        "epochs": found.epochs,
        "epochs_spent": found.epochs_spent,
        "selected": chosen.number,
        "score": chosen.score,
    }
    return line | {path: _raw(chosen.point.get(path)) for path in paths}


def _summary_row(found: Trials, line: dict[str, Raw], paths: Sequence[str], *, stops: bool) -> list[str]:
    """stops: whether any sweep stops trials early."""
    chosen, count, spent = found.trials[found.selected], len(found.trials), found.epochs_spent
    return [
        found.arm,
        str(count),
        str(line["failed"]),
        *([str(line["stopped"])] if stops else []),
        str(len(found.seeds)),
        str(found.epochs),
        NOTHING if spent is None else f"{spent:,}",
        f"trial {chosen.number}",
        *([] if stops else [_score(found, found.curve[max(0, count // 2 - 1)].best)]),
        _score(found, chosen.score),
        *(_value(chosen, path) for path in paths),
    ]


def trials(results: Results) -> Table:
    """Every trial of every arm, best first."""
    paths = _paths(results.sweeps)
    columns = [
        Column("Arm"),
        Column("Trial", "number"),
        Column("Outcome", "badge"),
        Column("Score", "number"),
    ]
    columns += [*(Column(path, "number") for path in paths), Column("Note"), Column("Records", "code")]
    rows, data = [], []
    for found in results.sweeps:
        sign = -1 if found.metric == "validation_accuracy" else 1
        for trial in sorted(found.trials, key=partial(_place, sign)):
            ends = {run.outcome: run.message for run in trial.runs}
            failures = [one for one in ends if one not in ("completed", "pruned")]
            outcome = (failures or ["pruned" if "pruned" in ends else "completed"])[0]
            note = ends[outcome]
            selected = "selected" if trial.number == found.selected else ""
            path = f"{FOLDER}/{found.arm}/trial-{trial.number}/seed-*/train/record.json"
            rows.append(
                [
                    found.arm,
                    str(trial.number),
                    outcome.replace("_", " "),
                    _score(found, _last(trial)),
                    *(_value(trial, one) for one in paths),
                    note or selected,
                    path,
                ]
            )
            line: dict[str, Raw] = {"arm": found.arm, "trial": trial.number, "outcome": outcome}
            line |= {"score": _last(trial), "stopped_after": trial.stopped_after, "loss": trial.loss}
            line |= {"selected": bool(selected)}
            data.append(
                line | {one: _raw(trial.point.get(one)) for one in paths} | {"message": note, "records": path}
            )
    return Table("trials", "Trials of the tuning", columns, rows, data)


def _place(sign: int, trial: Trial) -> tuple[bool, int, float, int]:
    """By which trials are sorted. sign: -1 where a higher score is better."""
    return trial.score is None, -(trial.stopped_after or 0), sign * (_last(trial) or 0), trial.number


def _last(trial: Trial) -> float | None:
    """The score in the end, or where the trial was stopped."""
    return trial.score if trial.stopped_after is None else trial.rungs[-1]


def _stops(found: Trials) -> bool:
    """Whether the search stopped trials early."""
    return any(point.epochs is not None for point in found.curve)


def sweep_note(results: Results) -> str:
    """How it was tuned, for the page."""
    if not results.sweeps:
        return ""
    first = results.sweeps[0]
    kinds = {
        "grid": "every combination of a grid",
        "random": "random search",
        "bayesian": "Bayesian search (TPE)",
    }
    counts = sorted({len(found.trials) for found in results.sweeps})
    untuned = [arm for arm in results.arms if arm not in {found.arm for found in results.sweeps}]
    equal = len(counts) == 1 and not untuned
    budget = "The same budget for every arm" if equal else "Budgets differ between arms, as declared"
    untold = f" Not tuned: {', '.join(untuned)}." if untuned else ""
    half = "Of half: the best score that half as many trials are expected to find."
    return (
        f"{kinds[first.method][:1].upper()}{kinds[first.method][1:]}, by {_title(first)}. {budget}.{untold} Trials ran at "
        f"{'seed' if len(first.seeds) == 1 else 'seeds'} {numbers.span(first.seeds)}, which the comparison does not use; no trial saw the "
        f"test split. {_stopping(first) if _stops(first) else half}"
    )


def _stopping(found: Trials) -> str:
    counts = [str(point.trials) for point in found.curve]
    return (
        f"Bad trials were stopped early, by successive halving: of each arm {' → '.join(counts)} trials went on from one comparison "
        "to the next. A stopped trial is shown with its score there, and is never selected."
    )


def plots(results: Results) -> tuple[parts.Plot, ...]:
    """None where nothing was tuned."""
    title = "Tuning: score against budget"
    return (parts.Plot("tuning-budget", title, budget),) if results.sweeps else ()


def budget(results: Results) -> "tuple[Figure, str] | None":
    """The best validation score against the number of trials, by arm."""
    drawn = [found for found in results.sweeps if any(point.best is not None for point in found.curve)]
    if any(map(_stops, drawn)):
        return _by_epochs(results, drawn)
    if not drawn or max(len(found.curve) for found in drawn) < 2:
        return None
    styles = parts.styles(results)
    figure, axes = parts.figure()
    factor = 100 if drawn[0].metric == "validation_accuracy" else 1
    for found in drawn[:MAX_ARMS]:
        style = styles[found.arm]
        known = [point for point in found.curve if point.best is not None]
        where = [point.trials for point in known]
        axes.plot(
            where,
            _scaled(known, "best", factor),
            color=style.colour,
            linestyle=style.dash,
            marker=style.marker,
            markersize=4,
            drawstyle="steps-post" if found.method == "bayesian" else "default",
            label=parts.short(found.arm),
        )
        banded = [point for point in known if point.low is not None and point.high is not None]
        axes.fill_between(
            [point.trials for point in banded],
            _scaled(banded, "low", factor),
            _scaled(banded, "high", factor),
            color=style.colour,
            alpha=0.15,
            linewidth=0,
        )
    axes.xaxis.set_major_locator(parts.ticks(integer=True))
    axes.set_xlabel(f"trials of {numbers.counted(drawn[0].epochs * len(drawn[0].seeds), 'epoch')}")
    axes.set_ylabel(f"{_title(drawn[0])}{' (%)' if factor == 100 else ' (nats)'}")
    parts.legend(axes, min(len(drawn), MAX_ARMS))
    return figure, _caption(drawn[0]) + parts.cap(len(drawn), MAX_ARMS, "arms")


def _by_epochs(results: Results, drawn: list[Trials]) -> "tuple[Figure, str]":
    """The best score against the epochs that an arm's trials took together, and the trials that were stopped on the way."""
    styles = parts.styles(results)
    figure, axes = parts.figure()
    factor = 100 if drawn[0].metric == "validation_accuracy" else 1
    for found in drawn[:MAX_ARMS]:
        style = styles[found.arm]
        known = [point for point in found.curve if point.best is not None]
        axes.plot(
            [point.epochs or 0 for point in known],
            _scaled(known, "best", factor),
            color=style.colour,
            linestyle=style.dash,
            marker=style.marker,
            markersize=4,
            label=parts.short(found.arm),
        )
        stopped = [
            (found.curve[len(trial.rungs) - 1].epochs or 0, factor * score)
            for trial in found.trials
            if trial.stopped_after is not None and (score := trial.rungs[-1]) is not None
        ]
        if stopped:
            where, scores = zip(*stopped, strict=True)
            axes.scatter(where, scores, color=style.colour, marker="x", s=14)
    axes.set_xlabel("epochs of all trials of an arm")
    axes.set_ylabel(f"{_title(drawn[0])}{' (%)' if factor == 100 else ' (nats)'}")
    parts.legend(axes, min(len(drawn), MAX_ARMS))
    text = "The best score at each comparison and in the end, against the epochs spent until then. Crosses: trials stopped there."
    return figure, text + parts.cap(len(drawn), MAX_ARMS, "arms")


def _caption(found: Trials) -> str:
    if found.method == "bayesian":
        return "The best so far. Trials of a Bayesian search build on one another: they have no interval."
    text = "The best that so many trials are expected to find, the mean over all subsets of those that ran."
    if found.confidence is None:
        return text + " A grid is what it is: it has no interval."
    return f"{text} Bands: {100 * found.confidence:g}% bootstrap interval over trials, too narrow towards the right end."


def _scaled(points: Sequence[BudgetPoint], name: str, factor: int) -> list[float]:
    return [factor * getattr(point, name) for point in points]


def _title(found: Trials) -> str:
    return found.metric.replace("_", " ")


def _score(found: Trials, score: float | None) -> str:
    return numbers.quantity(score, "fraction" if found.metric == "validation_accuracy" else "nats")


def _paths(sweeps: Sequence[Trials]) -> list[str]:
    return sorted({path for found in sweeps for trial in found.trials for path in trial.point})


def _value(trial: Trial, path: str) -> str:
    return _text(trial.point[path]) if path in trial.point else NOTHING


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


def _raw(value: Any) -> Raw:
    return value if isinstance(value, Raw) else _text(value)
