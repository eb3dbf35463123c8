"""Arms compared before anything runs: which settings differ, and whether a factor declares it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from assay.config.schema import Arm, Experiment, spec_of
from assay.records import canonical_json, sha256_text

LEAST_SEEDS = 6
"""The fewest pairs with which an exact two-sided sign-flip test can reach p < 0.05: 2 / 2**6 = 0.031."""


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
    baseline = experiment.arms[experiment.baseline]
    reference = dict(_leaves(spec_of(baseline)))
    found = []
    for name, arm in experiment.arms.items():
        own = dict(_leaves(spec_of(arm)))
        for path in sorted(reference.keys() | own.keys()):
            before, after = reference.get(path), own.get(path)
            if before != after or type(before) is not type(after) or (path in reference) != (path in own):
                found.append(Difference(path, experiment.baseline, name, before, after))
    return found


def undeclared(experiment: Experiment) -> list[Difference]:
    """Differences that no factor declares."""
    return [
        difference
        for difference in differences(experiment)
        if not any(covers(factor, difference.path) for factor in experiment.factors)
    ]


def covers(factor: str, path: str) -> bool:
    """Whether a factor (a setting or a section) declares a difference at `path`."""
    return path == factor or path.startswith(f"{factor}.")


def unknown_factors(experiment: Experiment) -> list[tuple[int, str]]:
    """Factors, with their place in the list, that name no setting of any arm."""
    paths = {path for arm in experiment.arms.values() for path, _ in _leaves(spec_of(arm))}
    sections = {
        ".".join(path.split(".")[:depth]) for path in paths for depth in range(1, path.count(".") + 2)
    }
    sections.add("model.options")
    return [
        (number, factor)
        for number, factor in enumerate(experiment.factors)
        if factor not in sections and not factor.startswith("model.options.")
    ]


def warnings(experiment: Experiment) -> list[str]:
    """What is allowed and probably not meant."""
    found = []
    differing = [difference.path for difference in differences(experiment)]
    for factor in experiment.factors:
        if not any(covers(factor, path) for path in differing):
            found.append(f"factors: `{factor}` is declared, but no arm differs in it")
    if len(experiment.seeds) < LEAST_SEEDS:
        least = 2 / 2 ** len(experiment.seeds)
        found.append(
            f"seeds: with {len(experiment.seeds)} no two-sided sign-flip test can reach p < 0.05 (least p: {least:.3g}); "
            f"verdicts on paired runs will be inconclusive, write at least {LEAST_SEEDS}"
        )
    return found


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted path; a list counts as one value."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
