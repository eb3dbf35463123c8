"""The contract as the records show it: what must be equal between arms, and whether it was.

Two kinds of variables. The *same everywhere*: settings within an arm, the prepared data, a user's source
file. And the *same within a pair*: batches, packages, device, code; where these differ between replicates
and not between the arms of any one replicate, pairing takes the difference out, and it is noted only.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from assay.comparison.circumstances import circumstances
from assay.comparison.collect import Evidence
from assay.comparison.model import Contract, Variable
from assay.comparison.variables import ABSENT, Getter, everywhere, factor_of, listing, variable, within_pairs
from assay.config.arm import ARM_SECTIONS, spec_of
from assay.config.schema import Experiment
from assay.config.trials import swept_paths
from assay.records import canonical_json

SWEEP = "sweep"
BATCH_SETTINGS = ("training.batch_size", "training.epochs", "augmentation")
"""Settings that change which batches a run sees: where they differ as declared, so may the batches."""


def check(experiment: Experiment, evidence: list[Evidence]) -> Contract:
    """Compare what the records say about every variable."""
    declared = declared_differences(experiment)
    variables = _settings(experiment, evidence, declared)
    variables.append(everywhere("data.manifest", "the prepared data", evidence, lambda record: record.data))
    variables.append(_batches(evidence, declared))
    variables += circumstances(evidence, declared, profiled=experiment.profile.enabled)
    variables += _user_sources(evidence)
    valid = not any(line.status == "violated" for line in variables)
    return Contract(valid=valid, factors=experiment.factors, variables=variables)


# --- settings -------------------------------------------------------------------------------------------


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted path to canonical JSON text; an empty mapping has no paths."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = canonical_json(value)
    return flat


def declared_differences(experiment: Experiment) -> dict[str, str]:
    """Paths at which arms differ as declared, each with its factor, or with the sweep that tuned it."""
    tuned = swept_paths(experiment)
    specs = [flatten(spec_of(arm)) for arm in experiment.arms.values()]
    paths = sorted(set().union(*specs))
    return {
        path: factor
        for path in paths
        if len({spec.get(path, ABSENT) for spec in specs}) > 1
        and (factor := factor_of(path, experiment.factors) or (SWEEP if factor_of(path, tuned) else None))
        is not None
    }


def _settings(
    experiment: Experiment, evidence: list[Evidence], declared: Mapping[str, str]
) -> list[Variable]:
    expected = {name: flatten(spec_of(arm)) for name, arm in experiment.arms.items()}
    seen: dict[str, dict[str, set[str]]] = {}
    counts: dict[str, int] = {}
    for (arm, text), count in _count((record.arm, record.spec) for record in evidence).items():
        spec = {key: value for key, value in json.loads(text).items() if key in ARM_SECTIONS}
        for path, value in flatten(spec).items():
            seen.setdefault(path, {}).setdefault(arm, set()).add(value)
            counts[path] = counts.get(path, 0) + count
    variables = []
    for path in sorted(set(seen) | set().union(*expected.values())):
        wanted = {arm: spec.get(path, ABSENT) for arm, spec in expected.items()}
        found = seen.get(path, {})
        variables.append(_setting(path, wanted, found, declared.get(path), counts.get(path, 0)))
    return variables


def _setting(
    path: str, wanted: Mapping[str, str], found: Mapping[str, set[str]], factor: str | None, checked: int
) -> Variable:
    evidence = {arm: sorted(found.get(arm, ())) or [wanted[arm]] for arm in wanted}
    stray = [arm for arm, values in found.items() if values != {wanted.get(arm, ABSENT)}]
    message = None
    if stray:
        arm = stray[0]
        values = ", ".join(sorted(found[arm]))
        message = f"{path}: records of {arm} say {values}, the experiment says {wanted.get(arm, ABSENT)}"
        status = "violated"
    elif len(set(wanted.values())) == 1:
        status = "equal" if checked else "unknown"
    elif factor is not None:
        status = "declared"
    else:
        message = f"{path} differs and no factor declares it: {listing(evidence)}"
        status = "violated"
    return variable(f"spec.{path}", status, checked, evidence, message, factor)


# --- batches and files ------------------------------------------------------------------------------------


def _batches(evidence: list[Evidence], declared: Mapping[str, str]) -> Variable:
    """Runs that ended early saw fewer batches: only completed trainings are compared."""
    trained = [record for record in evidence if record.stage == "train" and record.completed]
    factor = next((declared[path] for path in declared if factor_of(path, BATCH_SETTINGS)), None)
    line = within_pairs(
        "batches",
        "the sequence of training batches",
        trained,
        lambda record: record.batches,
        factor=factor,
        own=True,
    )
    if line.status in {"equal", "unknown"} and line.checked < len(trained):
        message = (
            "the batches' hash is not in every record of training: equality was not checked for all seeds"
        )
        line = line.model_copy(update={"status": "unknown", "message": message})
    return line


def _user_sources(evidence: list[Evidence]) -> list[Variable]:
    """One line per file of the user's: its content must be the same wherever it was used."""
    files = sorted({name for record in evidence for name in record.code.user_sources})

    def content(name: str) -> Getter:
        return lambda record: record.code.user_sources.get(name)

    return [
        everywhere(
            f"user_sources.{name}",
            f"the content of {name}",
            [record for record in evidence if name in record.code.user_sources],
            content(name),
        )
        for name in files
    ]


def _count(items: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return counts
