"""The trials of a sweep: which settings each of them has. Known before anything runs, but for Bayesian search."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from hashlib import sha256
from itertools import pairwise, product
from typing import Any

from assay.config.arm import Arm, spec_of
from assay.config.merge import merge
from assay.config.resolve import covers
from assay.config.schema import Experiment
from assay.config.sweep import Domain, Sweep

Point = dict[str, Any]
"""Values of the settings that are tuned, by path."""

_COSTLESS = (
    *("training.epochs", "training.schedule", "training.label_smoothing", "training.select"),
    *("training.checkpoint_seconds", "training.optimizer.learning_rate"),
    *("execution.devices", "execution.nodes"),
)
"""Settings that change no cost."""
_MOST_DRAWS = 1000


def swept_arms(experiment: Experiment) -> list[str]:
    """Arms that are tuned; none without a sweep."""
    sweep = experiment.sweep
    return [] if sweep is None else [arm for arm in experiment.arms if sweep.space_of(arm)]


def swept_paths(experiment: Experiment) -> list[str]:
    """Settings that are tuned for any arm: the sweep declares that arms may differ in them."""
    sweep = experiment.sweep
    return [] if sweep is None else sorted({path for arm in experiment.arms for path in sweep.space_of(arm)})


def trial_count(sweep: Sweep, arm: str) -> int:
    """Trials of an arm: none where nothing is tuned for it."""
    space = sweep.space_of(arm)
    if not space:
        return 0
    if sweep.method != "grid":
        assert sweep.trials is not None, "refused when the file was read"
        return sweep.trials
    return math.prod(len(domain) if isinstance(domain, list) else 0 for domain in space.values())


def trials_by_rung(sweep: Sweep, arm: str) -> list[int]:
    """How many trials of an arm are trained up to each comparison of `prune`, and last to the end."""
    counts = [trial_count(sweep, arm)]
    if sweep.prune is not None:
        for _ in sweep.prune.after:
            counts.append(math.ceil(counts[-1] / sweep.prune.reduction_factor))
    return counts


def sweep_epochs(sweep: Sweep, arm: str, epochs: int) -> int:
    """Epochs that tuning an arm takes, over all trials and seeds, if none fails. epochs: of a whole training."""
    ends = [0, *(sweep.prune.after if sweep.prune else ()), epochs]
    parts = [end - start for start, end in pairwise(ends)]
    each: int = sum(count * part for count, part in zip(trials_by_rung(sweep, arm), parts, strict=True))
    return each * len(sweep.seeds)


def combinations(space: Mapping[str, Domain]) -> int | None:
    """How many different points a space has; None: without end."""
    sizes = [_size(domain) for domain in space.values()]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def points(sweep: Sweep, arm: str) -> list[Point]:
    """Of a grid or random search, by number of the trial.

    Random points depend on the sweep's seed, the setting's path and the trial's number alone: arms with the same space
    try the same values, and more trials leave the first ones as they are.
    """
    space, count = sweep.space_of(arm), trial_count(sweep, arm)
    if sweep.method == "grid":
        lists = [domain if isinstance(domain, list) else [] for domain in space.values()]
        return [dict(zip(space, values, strict=True)) for values in product(*lists)]
    found: list[Point] = []
    for trial in range(count):
        for draw in range(_MOST_DRAWS):
            point = {
                path: value_at(domain, _uniform(sweep.seed, path, trial, draw))
                for path, domain in space.items()
            }
            if point not in found:
                break
        found.append(point)
    return found


def value_at(domain: Domain, share: float) -> Any:
    """The value that lies at a share in [0, 1) of a domain; numbers of a range have six digits."""
    if isinstance(domain, list):
        return domain[int(share * len(domain))]
    kind, (low, high) = domain.kinds[0], domain.ends
    last = high + 1 if "integer" in kind else high
    if kind.startswith("log"):
        value = math.exp(math.log(low) + share * (math.log(last) - math.log(low)))
    else:
        value = low + share * (last - low)
    if "integer" in kind:
        return min(int(high), max(int(low), math.floor(value)))
    return min(high, max(low, float(f"{value:.6g}")))


def settings_at(arm: Arm, point: Mapping[str, Any]) -> Arm:
    """The arm with the values of a point: of a section before those within it, its kind first.

    Raises: pydantic.ValidationError.
    """
    changes: dict[str, Any] = {}
    for path in sorted(point, key=lambda path: (path.count("."), not path.endswith(".name"))):
        nested: Any = point[path]
        for key in reversed(path.split(".")):
            nested = {key: nested}
        changes = merge(changes, nested)
    return Arm.model_validate(merge(spec_of(arm), changes))


def as_swept(arm: Arm, space: Mapping[str, Domain]) -> Arm:
    """The arm with the first values of its space: what the file gives for a tuned setting is of no account.

    Where a setting decides which others there are, the file's values count: the arm as it is.
    """
    for path, domain in space.items():
        values = domain if isinstance(domain, list) else []
        if path.endswith(".name") or any(isinstance(value, dict) for value in values):
            return arm
    return settings_at(arm, corners(space, 1)[0])


def changes_cost(paths: Sequence[str]) -> bool:
    """Whether any of these settings can change what an arm costs to run."""
    return not all(any(covers(one, path) for one in _COSTLESS) for path in paths)


def costly(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of an arm without those that change no cost, so that these rerun no profile and no trace."""
    kept = deepcopy(dict(settings))
    for path in _COSTLESS:
        *sections, key = path.split(".")
        section = kept
        for name in sections:
            section = section.get(name, {})
        section.pop(key, None)
    return kept


def corners(space: Mapping[str, Domain], most: int) -> list[Point]:
    """Points from all values of lists and both ends of ranges; each value once at least where there are more than `most`."""
    values = {
        path: domain if isinstance(domain, list) else list(domain.ends) for path, domain in space.items()
    }
    if math.prod(map(len, values.values())) <= most:
        return [dict(zip(values, found, strict=True)) for found in product(*values.values())]
    first = {path: found[0] for path, found in values.items()}
    return [first | {path: value} for path, found in values.items() for value in found]


def _size(domain: Domain) -> int | None:
    if isinstance(domain, list):
        return len(domain)
    low, high = domain.ends
    return int(high - low) + 1 if "integer" in domain.kinds[0] else None


def _uniform(seed: int, path: str, trial: int, draw: int) -> float:
    """A number in [0, 1) that every machine finds alike."""
    text = f"{seed} {path} {trial}" + (f" {draw}" if draw else "")
    return int.from_bytes(sha256(text.encode()).digest()[:6], "big") / 2**48
