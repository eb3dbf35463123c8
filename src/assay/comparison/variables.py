"""One line of the contract from what records say: equal, and if not, whether that is declared or biases."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from assay.comparison.collect import Evidence
from assay.comparison.model import Variable

ABSENT = "absent"
_SHOWN = 4

Getter = Callable[[Evidence], str | None]


def factor_of(path: str, factors: Iterable[str]) -> str | None:
    """The factor that declares differences at this path, or above it."""
    return next((factor for factor in factors if path == factor or path.startswith(f"{factor}.")), None)


def within_pairs(
    name: str,
    title: str,
    evidence: list[Evidence],
    get: Getter,
    *,
    factor: str | None = None,
    harmless: bool = False,
    per_stage: bool = False,
    own: bool = False,
    show: Callable[[dict[str, list[str]]], dict[str, list[str]]] | None = None,
) -> Variable:
    """Whether arms have the same value at each seed or block.

    harmless: a difference is noted. per_stage: stages differ as intended. own: so do seeds and blocks. show: what to tell
    of values that differ.
    """
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
        message = f"{title} differs between arms ({stage}, {kind} {number}): {listing(shown)}"
        status = "varies" if harmless else "declared" if factor else "violated"
        message = None if status == "declared" else message
    elif not own and any(len(found) > 1 for found in by_stage.values()):
        status = "varies"
        message = None if harmless else f"{title} varies between replicates, alike for all arms"
    elif checked == len(evidence) > 0:
        status = "equal"
    else:
        status = "unknown"
    return variable(name, status, checked, shown, message, factor)


def everywhere(name: str, title: str, evidence: list[Evidence], get: Getter) -> Variable:
    """Whether all records have the same value."""
    values: dict[str, set[str]] = {}
    checked = 0
    for record in evidence:
        if (value := get(record)) is not None:
            checked += 1
            values.setdefault(record.arm, set()).add(value)
    by_arm = {arm: sorted(found) for arm, found in values.items()}
    if len({value for found in values.values() for value in found}) > 1:
        return variable(
            name, "violated", checked, by_arm, f"{title} differs between records: {listing(by_arm)}"
        )
    if checked == len(evidence) > 0:
        return variable(name, "equal", checked, by_arm)
    message = f"{title}: not in every record" if evidence else None
    return variable(name, "unknown", checked, by_arm, message)


def listing(evidence: Mapping[str, list[str]]) -> str:
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
