"""What can be wrong with a sweep, beyond types."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from assay.config.advice import advice, instead_of, reason, settings_of_arms, without_tags
from assay.config.arm import Arm
from assay.config.errors import Path, short
from assay.config.resolve import covers, names_setting
from assay.config.sweep import Domain, Range, Sweep
from assay.config.trials import Point, combinations, corners, settings_at, trial_count

Add = Callable[[Path, str, str], None]
"""Takes the path in the file, what is wrong, and what to write instead."""

MOST_CORNERS = 512
_NOT_TUNED = {
    "model": "write an option, e.g. `model.options.width`, or `model.image_size`",
    "model.source": "another network is another arm: write it below `arms:`",
    "training": "write a setting of it, e.g. `training.optimizer.learning_rate`",
    "training.epochs": "epochs are the budget of a trial, the same for all: set them once",
    "training.checkpoint_seconds": "it changes no result: set it once",
    "execution": "write a setting of it, e.g. `execution.precision`",
    **dict.fromkeys(
        ("execution.device", "execution.devices", "execution.nodes", "execution.threads"),
        "what a job reserves is known before it runs: set it once",
    ),
}


def check_sweep(
    sweep: Sweep,
    arms: Mapping[str, Arm],
    *,
    names: Sequence[str],
    factors: Sequence[str],
    seeds: Sequence[int],
    add: Add,
) -> None:
    """Tell everything that is wrong.

    arms: those that are right. names: of all arms. seeds: of the experiment.
    """
    base: Path = ("sweep",)
    for name in sweep.arms:
        if name not in names:
            add((*base, "arms", name), f"{name!r} is not an arm", instead_of(name, names))
    if shared := sorted(set(sweep.seeds) & set(seeds)):
        instead = f"write others, e.g. `seeds: [{max([*seeds, *sweep.seeds]) + 1}]`: what was tuned at a seed looks better there"
        add((*base, "seeds"), f"{_numbers(shared)}: seeds of the comparison", instead)
    for seed in sorted({seed for seed in sweep.seeds if sweep.seeds.count(seed) > 1}):
        add((*base, "seeds"), f"{seed} stands twice", "a seed counts once: write each once")
    if _paths_are_wrong(sweep, add):
        return
    if not any(sweep.space_of(name) for name in names):
        add((*base, "space"), "nothing to tune", _EXAMPLE)
        return
    _check_budgets(sweep, names, add)
    _check_prune(sweep, arms, add)
    _check_declared(sweep, names, factors, add)
    told: set[tuple[Path, str]] = set()
    for name, arm in arms.items():
        _check_values(sweep, name, arm, add, told)


_EXAMPLE = "write settings with values, e.g. `space: {training.optimizer.learning_rate: [0.01, 0.03, 0.1]}`"


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:8])) + (", …" if len(values) > 8 else "")


def _places(sweep: Sweep) -> Iterator[tuple[Path, str, Domain]]:
    """Where each domain stands in the file, its setting, and itself."""
    for path, domain in sweep.space.items():
        yield ("sweep", "space", path), path, domain
    for name, own in sweep.arms.items():
        for path, given in own.items():
            if given is not None:
                yield ("sweep", "arms", name, path), path, given


def _paths_are_wrong(sweep: Sweep, add: Add) -> bool:
    """Settings that are none or cannot be tuned, and domains without values."""
    wrong = False

    def tell(place: Path, what: str, instead: str) -> None:
        nonlocal wrong
        wrong = True
        add(place, what, instead)

    for place, path, domain in _places(sweep):
        if not names_setting(path, known := settings_of_arms()):
            ends = [one for one in known if one.endswith(f".{path.rpartition('.')[2]}")]
            instead = f"did you mean `{ends[0]}`?" if len(ends) == 1 else instead_of(path, known)
            tell(place, "names no setting of an arm", instead)
        elif path in _NOT_TUNED:
            tell(place, "is not tuned", _NOT_TUNED[path])
        elif isinstance(domain, Range):
            _check_range(sweep, place, domain, tell)
        elif not domain:
            tell(place, "has no values", "write some, e.g. `[0.01, 0.1]`, or remove it")
        elif repeated := [value for number, value in enumerate(domain) if value in domain[:number]]:
            tell(place, f"{short(repeated[0])} stands twice", "write each value once")
    return wrong


def _check_range(sweep: Sweep, place: Path, domain: Range, tell: Add) -> None:
    if len(domain.kinds) != 1:
        told = " and ".join(domain.kinds) or "no kind of range"
        tell(place, f"has {told}", "write one, e.g. `{log_uniform: [1e-4, 1e-1]}`")
        return
    low, high = domain.ends
    if sweep.method == "grid":
        tell(place, "a grid takes lists of values", "write e.g. `[0.01, 0.1]`, or `method: random`")
    elif low >= high:
        tell(place, f"{low:g} is not below {high:g}", "write the lower end first")
    elif domain.kinds[0].startswith("log") and low <= 0:
        tell(place, f"{low:g} has no logarithm", "write ends above 0")


def _check_budgets(sweep: Sweep, names: Sequence[str], add: Add) -> None:
    if sweep.method == "grid" and sweep.trials is not None:
        add(
            ("sweep", "trials"),
            "a grid runs all its combinations",
            "remove it, or write `method: random` for some",
        )
        return
    if sweep.method != "grid":
        if sweep.trials is None:
            add(("sweep", "trials"), "missing", f"a {sweep.method} search needs a number, e.g. `trials: 12`")
            return
        for name in names:
            most = combinations(sweep.space_of(name)) if sweep.space_of(name) else None
            if most is not None and most < sweep.trials and sweep.method == "random":
                what = f"{sweep.trials} trials of {name}, whose settings have {most} combinations"
                add(("sweep", "trials"), what, f"write at most {most}, or give {name} more values")
                return
    counts = {name: trial_count(sweep, name) for name in names}
    if sweep.equal_budgets and len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        instead = "give all arms as many, e.g. with `method: random` and `trials:`, or declare it: `equal_budgets: false`"
        add(("sweep",), f"unequal budgets: trials of {told}", instead)


def _check_prune(sweep: Sweep, arms: Mapping[str, Arm], add: Add) -> None:
    if sweep.prune is None:
        return
    if sweep.method == "bayesian":
        add(
            ("sweep", "prune"),
            "a Bayesian search learns from trials that are trained to the end",
            "remove it, or write `method: random`",
        )
    after, place = sweep.prune.after, ("sweep", "prune", "after")
    if after != sorted(set(after)):
        add(place, f"{_numbers(after)}: does not rise", f"write `after: {sorted(set(after))}`")
    for name, arm in arms.items():
        epochs = arm.training.epochs
        if sweep.space_of(name) and max(after) >= epochs:
            what = f"{max(after)}: {name} has {epochs} training epochs, and nothing is left to save"
            add(
                place,
                what,
                f"write fewer, e.g. `after: [{max(1, epochs // 4)}]`" if epochs > 1 else "remove `prune`",
            )
            return


def _check_declared(sweep: Sweep, names: Sequence[str], factors: Sequence[str], add: Add) -> None:
    """A setting that is tuned for some arms only makes them differ from the others."""
    spaces = {name: sweep.space_of(name) for name in names}
    for name, space in spaces.items():
        for path in space:
            others = [one for one in names if not any(covers(theirs, path) for theirs in spaces[one])]
            if others and not any(covers(factor, path) for factor in factors):
                add(
                    ("sweep", "arms", name, path)
                    if path in sweep.arms.get(name, {})
                    else ("sweep", "space", path),
                    f"is tuned for {name} and not for {', '.join(others)}, and no factor declares it",
                    f"tune it for all arms, or declare it: `factors: [{', '.join([*factors, path])}]`",
                )


def _check_values(sweep: Sweep, name: str, arm: Arm, add: Add, told: set[tuple[Path, str]]) -> None:
    """Each value once at least, in the settings that a trial would have. told: what was told of other arms."""
    space = sweep.space_of(name)

    def place(path: str) -> Path:
        found = next(
            (one for one in sorted(space, reverse=True) if covers(one, path) or covers(path, one)), ""
        )
        if found in sweep.arms.get(name, {}):
            return ("sweep", "arms", name, found)
        return ("sweep", "space", found) if found else ("sweep", "space")

    for point in corners(space, MOST_CORNERS) if space else ():
        try:
            settings = settings_at(arm, point)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                where = without_tags(detail["loc"])
                at = place(".".join(map(str, where)))
                what = reason(detail) if detail["type"] != "extra_forbidden" else "unknown key"
                if (at, what) not in told:
                    told.add((at, what))
                    add(at, f"{_key(where)}{what}{_of(point, name)}", advice(detail, where))
            continue
        if wrong := settings.unshared_batch:
            add(place("training.batch_size"), wrong[0], wrong[1])
        if refused := settings.refused_execution:
            add(place(f"execution.{refused[0]}"), refused[1], refused[2])


def _key(where: Sequence[Any]) -> str:
    return f"{where[-1]}: " if where else ""


def _of(point: Point, name: str) -> str:
    told = ", ".join(f"{path.rpartition('.')[2]} {short(value)}" for path, value in point.items())
    return f" (a trial of {name} with {told})"
