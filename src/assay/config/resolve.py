"""Arms compared before anything runs: which settings differ, and whether a factor declares it."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assay.config.arm import Arm, spec_of
from assay.config.looks import idle
from assay.config.schema import Experiment
from assay.records import canonical_json, sha256_text

NOTHING = "nothing"
"""Stands for the value of a setting that an arm does not have."""

_KINDS = {
    "training.optimizer.name": "training.optimizer",
    "training.schedule.name": "training.schedule",
    "model.source": "model",
}


@dataclass(frozen=True)
class Difference:
    """One setting in which an arm differs from the baseline."""

    path: str
    baseline: str
    arm: str
    before: Any
    after: Any


def spec_sha256(arm: Arm) -> str:
    """Hash of an arm with every default written out."""
    return sha256_text(canonical_json(spec_of(arm)))


def differences(experiment: Experiment) -> list[Difference]:
    """Every setting in which an arm differs from the baseline, by leaf."""
    return differences_between(experiment.arms, experiment.baseline)


def differences_between(arms: Mapping[str, Arm], baseline: str) -> list[Difference]:
    """The same for arms that are not yet an experiment. Arms that equal the baseline equal each other."""
    reference = dict(_leaves(spec_of(arms[baseline])))
    found = []
    for name, arm in arms.items():
        own = dict(_leaves(spec_of(arm)))
        for path in sorted(reference.keys() | own.keys()):
            before, after = reference.get(path, NOTHING), own.get(path, NOTHING)
            if before != after or type(before) is not type(after):
                found.append(Difference(path, baseline, name, before, after))
    return found


def undeclared(arms: Mapping[str, Arm], baseline: str, factors: Sequence[str]) -> list[Difference]:
    """Differences that no factor declares; where the kind of a section differs, its kind alone is told."""
    found = [
        difference
        for difference in differences_between(arms, baseline)
        if not any(covers(factor, difference.path) for factor in factors)
    ]
    kinds = {(d.arm, _KINDS[d.path]): d for d in found if d.path in _KINDS}
    told = [replace(kind, path=section) for (_, section), kind in kinds.items()]
    rest = [
        difference
        for difference in found
        if not any(arm == difference.arm and covers(section, difference.path) for arm, section in kinds)
    ]
    return told + rest


def covers(factor: str, path: str) -> bool:
    """Whether a factor (a setting or a section) declares a difference at `path`."""
    return path == factor or path.startswith(f"{factor}.")


def names_setting(factor: str, settings: Iterable[str]) -> bool:
    """Whether a factor names one of the settings of arms, or an option of a model."""
    return factor in settings or (factor.startswith("model.options.") and not factor.endswith("."))


def warnings(experiment: Experiment) -> list[str]:
    """What is allowed and probably not meant."""
    found = []
    differing = [difference.path for difference in differences(experiment)]
    for factor in experiment.factors:
        if not any(covers(factor, path) for path in differing):
            found.append(f"factors: `{factor}` is declared, but no arm differs in it")
    return [*found, *_too_few_seeds(experiment), *_idle_looks(experiment)]


def _too_few_seeds(experiment: Experiment) -> list[str]:
    """The first of several comparisons that Holm's procedure may call significant needs p <= alpha / their number."""
    contrasts, level = _contrasts(experiment)
    fewest = math.ceil(math.log2(2 / level) - 1e-12)
    if len(experiment.seeds) >= fewest:
        return []
    least = f"(least p: {2 / 2 ** len(experiment.seeds):.3g})"
    among = "" if contrasts == 1 else f", which the least of {contrasts} comparisons needs"
    needed = f"p < {level:g}" if contrasts == 1 else f"p < {level:.3g}"
    return [
        f"seeds: with {len(experiment.seeds)} no two-sided sign-flip test can reach {needed} {least}{among}; "
        f"verdicts on paired runs will be inconclusive, write at least {fewest}"
    ]


def _contrasts(experiment: Experiment) -> tuple[int, float]:
    """How many comparisons there are, and the level that each is sure to have."""
    arms, comparison = len(experiment.arms), experiment.comparison
    count = math.comb(arms, 2) if comparison.contrasts == "all" else arms - 1
    return count, round(1 - comparison.confidence, 12) / count


def _idle_looks(experiment: Experiment) -> list[str]:
    comparison = experiment.comparison
    if comparison.looks is None:
        return []
    _, level = _contrasts(experiment)
    useless = [str(look) for look in idle(comparison.looks, comparison.spending, level)]
    if not useless:
        return []
    pocock = [look for look in comparison.looks if look not in idle(comparison.looks, "pocock", level)]
    instead = "look later"
    if comparison.spending != "pocock" and len(pocock) > len(comparison.looks) - len(useless):
        instead += ", or write `spending: pocock`"
    return [f"comparison.looks: after {', '.join(useless)} seeds no test can be significant; {instead}"]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted path; a list counts as one value."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
