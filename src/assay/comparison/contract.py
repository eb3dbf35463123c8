"""The contract as the records show it: what must be equal between arms, and whether it was.

Two kinds of variables. The *same everywhere*: settings within an arm, the prepared data, a user's source
file. And the *same within a pair*: batches, packages, device, code; where these differ between replicates
and not between the arms of any one replicate, pairing takes the difference out, and it is noted only.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from assay.comparison.collect import Evidence
from assay.comparison.model import Contract, Variable
from assay.config.arm import ARM_SECTIONS, spec_of
from assay.config.schema import Experiment
from assay.config.trials import swept_paths
from assay.records import canonical_json

ABSENT, SWEEP = "absent", "sweep"
BATCH_SETTINGS = ("training.batch_size", "training.epochs", "augmentation")
"""Settings that change which batches a run sees: where they differ as declared, so may the batches."""
_SHOWN = 4

Getter = Callable[[Evidence], str | None]


def check(experiment: Experiment, evidence: list[Evidence]) -> Contract:
    """Compare what the records say about every variable."""
    declared = declared_differences(experiment)
    variables = _settings(experiment, evidence, declared)
    variables.append(_everywhere("data.manifest", "the prepared data", evidence, lambda record: record.data))
    variables.append(_batches(evidence, declared))
    variables += circumstances(evidence, declared)
    variables += _user_sources(evidence)
    valid = not any(variable.status == "violated" for variable in variables)
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


def factor_of(path: str, factors: Iterable[str]) -> str | None:
    """The factor that declares differences at this path, or above it."""
    return next((factor for factor in factors if path == factor or path.startswith(f"{factor}.")), None)


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
        message = f"{path} differs and no factor declares it: {_listing(evidence)}"
        status = "violated"
    return variable(f"spec.{path}", status, checked, evidence, message, factor)


# --- circumstances --------------------------------------------------------------------------------------


def circumstances(evidence: list[Evidence], declared: Mapping[str, str]) -> list[Variable]:
    device = factor_of("execution.device", declared)
    threads = factor_of("execution.threads", declared)
    visits = [record for record in evidence if record.stage == "profile"]
    on_cpu = [record for record in evidence if record.device is None or record.device.type == "cpu"]
    lines: list[Variable] = [
        _within_pairs("packages", "the set of packages", evidence, lambda r: r.packages, show=_packages),
        _within_pairs("python", "Python", evidence, lambda record: record.environment.python),
        _within_pairs("image", "the container image", evidence, image_of),
        _within_pairs("code", "Assay's code", evidence, code_of_stage, per_stage=True),
        _within_pairs("code.version", "Assay's version", evidence, lambda r: r.code.version, harmless=True),
        _within_pairs("device.type", "the device", evidence, of_device("type"), factor=device),
        _within_pairs("device.name", "the device model", evidence, of_device("name"), factor=device),
        _within_pairs("device.driver", "the driver", evidence, of_device("driver"), factor=device),
        _within_pairs("device.cuda", "CUDA", evidence, of_device("cuda"), factor=device),
        _within_pairs("device.uuid", "the profiled device", visits, of_device("uuid"), factor=device),
        _within_pairs("cpu", "the CPU model", on_cpu, lambda record: record.environment.cpu, factor=device),
        _within_pairs("threads", "CPU threads", evidence, threads_of, factor=threads),
        _within_pairs("host", "the host", evidence, lambda record: record.environment.host, harmless=True),
        _within_pairs("platform", "the platform", evidence, lambda r: r.environment.platform, harmless=True),
        _within_pairs(
            "code.commit", "the commit", evidence, lambda record: record.code.commit, harmless=True
        ),
    ]
    return lines


def code_of_stage(record: Evidence) -> str:
    """Each stage records the hash of its own source files."""
    return record.code.sources_sha256


def _within_pairs(
    name: str,
    title: str,
    evidence: list[Evidence],
    get: Getter,
    *,
    factor: str | None = None,
    harmless: bool = False,
    per_stage: bool = False,
    show: Callable[[dict[str, list[str]]], dict[str, list[str]]] | None = None,
) -> Variable:
    pairs: dict[tuple[str, str, int], dict[str, set[str]]] = {}
    values: dict[str, set[str]] = {}
    by_stage: dict[str, set[str]] = {}
    checked = 0
    for record in evidence:
        value = get(record)
        if value is not None:
            checked += 1
            by_stage.setdefault(record.stage if per_stage else "", set()).add(value)
            key = (record.stage, record.kind, record.replicate)
            pairs.setdefault(key, {}).setdefault(value, set()).add(record.arm)
            values.setdefault(record.arm, set()).add(value)
    by_arm = {arm: sorted(found) for arm, found in values.items()}
    shown = show(by_arm) if show and len(set().union(*values.values(), ())) > 1 else by_arm
    differing = next((key for key, found in pairs.items() if len(found) > 1), None)
    message = None
    if differing is not None:
        stage, kind, number = differing
        message = f"{title} differs between arms ({stage}, {kind} {number}): {_listing(shown)}"
        status = "varies" if harmless else "declared" if factor else "violated"
        message = None if status == "declared" else message
    elif any(len(found) > 1 for found in by_stage.values()):
        status = "varies"
        message = None if harmless else f"{title} varies between replicates, alike for all arms"
    elif checked == len(evidence) > 0:
        status = "equal"
    else:
        status = "unknown"
    return variable(name, status, checked, shown, message, factor)


def _everywhere(name: str, title: str, evidence: list[Evidence], get: Getter) -> Variable:
    values: dict[str, set[str]] = {}
    checked = 0
    for record in evidence:
        if (value := get(record)) is not None:
            checked += 1
            values.setdefault(record.arm, set()).add(value)
    by_arm = {arm: sorted(found) for arm, found in values.items()}
    if len({value for found in values.values() for value in found}) > 1:
        return variable(
            name, "violated", checked, by_arm, f"{title} differs between records: {_listing(by_arm)}"
        )
    if checked == len(evidence) > 0:
        return variable(name, "equal", checked, by_arm)
    return variable(name, "unknown", checked, by_arm, f"{title}: not in every record")


def _batches(evidence: list[Evidence], declared: Mapping[str, str]) -> Variable:
    """Runs that ended early saw fewer batches: only completed trainings are compared."""
    trained = [record for record in evidence if record.stage == "train" and record.completed]
    factor = next((declared[path] for path in declared if factor_of(path, BATCH_SETTINGS)), None)
    line = _within_pairs(
        "batches", "the sequence of training batches", trained, lambda record: record.batches, factor=factor
    )
    if line.status == "varies":  # every seed has batches of its own
        line = line.model_copy(update={"status": "equal", "message": None})
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
        _everywhere(
            f"user_sources.{name}",
            f"the content of {name}",
            [record for record in evidence if name in record.code.user_sources],
            content(name),
        )
        for name in files
    ]


def of_device(field: str) -> Getter:
    def get(record: Evidence) -> str | None:
        value = getattr(record.device, field, None)
        return None if value is None else str(value)

    return get


def image_of(record: Evidence) -> str:
    image = record.environment.image
    return "none (the host's environment)" if image is None else canonical_json(image)


def threads_of(record: Evidence) -> str | None:
    threads = record.environment.threads
    return None if threads is None else str(threads)


def _packages(by_arm: dict[str, list[str]]) -> dict[str, list[str]]:
    """Only the packages whose versions differ."""
    parsed = {arm: [json.loads(text) for text in texts] for arm, texts in by_arm.items()}
    everything = [packages for found in parsed.values() for packages in found]
    names = sorted(
        name
        for name in set().union(*everything)
        if len({packages.get(name, ABSENT) for packages in everything}) > 1
    )
    return {
        arm: [", ".join(f"{name} {packages.get(name, ABSENT)}" for name in names) for packages in found]
        for arm, found in parsed.items()
    }


# --- helpers --------------------------------------------------------------------------------------------


def _count(items: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return counts


def _listing(evidence: Mapping[str, list[str]]) -> str:
    arms = [f"{arm}: {' or '.join(values[:_SHOWN])}" for arm, values in evidence.items()]
    more = f" and {len(arms) - _SHOWN} more arms" if len(arms) > _SHOWN else ""
    return "; ".join(arms[:_SHOWN]) + more


def variable(
    name: str,
    status: Any,
    checked: int,
    evidence: Mapping[str, list[str]],
    message: str | None = None,
    factor: str | None = None,
) -> Variable:
    return Variable(
        name=name,
        status=status,
        declared_by=factor if status == "declared" else None,
        checked=checked,
        evidence={
            arm: values[:_SHOWN] + ([f"and {len(values) - _SHOWN} more"] if len(values) > _SHOWN else [])
            for arm, values in evidence.items()
        },
        message=message,
    )
