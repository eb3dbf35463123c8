"""What must be equal between the two sides of a gate, and whether it was."""

from collections.abc import Callable, Iterable

from assay.comparison import contract
from assay.comparison.collect import Evidence
from assay.comparison.model import Contract, Variable
from assay.config.arm import spec_of
from assay.config.resolve import names_setting
from assay.config.schema import Experiment
from assay.gate.sides import BASELINE, CANDIDATE, GateError, Pair, Side, renamed
from assay.records import canonical_json

CIRCUMSTANCES = (
    "packages",
    "python",
    "image",
    "code",
    "batches",
    "device",
    "device.driver",
    "device.cuda",
    "cpu",
    "threads",
    "profile",
    "judging",
)
"""What `--changed` may declare beside settings of arms. Never data and seeds: without them nothing is paired."""
_COMMIT = "the candidate's commit"


def factors_of(changed: Iterable[str], experiments: Iterable[Experiment]) -> list[str]:
    """The settings among the declared changes. Raises: GateError for a word that names nothing."""
    settings: set[str] = set()
    for experiment in experiments:
        for arm in experiment.arms.values():
            for path in contract.flatten(spec_of(arm)):
                parts = path.split(".")
                settings |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    factors = []
    for word in changed:
        if word in CIRCUMSTANCES:
            continue
        if not names_setting(word, settings):
            raise GateError(
                f"assay gate: --changed {word}: is no setting of an arm, such as `model` or `training.optimizer`, "
                f"and none of {', '.join(CIRCUMSTANCES)}"
            )
        factors.append(word)
    return factors


def check(pair: Pair, changed: Iterable[str]) -> Contract:
    """The comparison's own contract, with what only two separate experiments can differ in.

    The user's own source files may differ, as the commit is what the gate asks about; so may the GPU's UUID, as
    the sides were measured at different times, and its model may not.
    """
    if pair.one_session:
        return contract.check(pair.experiment, pair.collected.evidence)
    evidence = [*pair.collected.evidence]
    for session in pair.sessions:
        evidence += renamed(session.collected.evidence, BASELINE)
    found = contract.check(pair.experiment, evidence)
    declared = set(changed)
    if "code" in declared and _differs(found, "code"):
        declared.add("batches")
    variables = [_as_declared(line, declared) for line in found.variables]
    variables += [_as_declared(line, declared) for line in _of_files(pair, evidence)]
    valid = not any(line.status == "violated" for line in variables)
    return Contract(valid=valid, factors=pair.experiment.factors, variables=variables)


def _differs(found: Contract, name: str) -> bool:
    return any(line.name == name and line.status == "violated" for line in found.variables)


def _as_declared(line: Variable, declared: set[str]) -> Variable:
    if line.status != "violated":
        return line
    if line.name.startswith("user_sources."):
        return line.model_copy(update={"status": "declared", "declared_by": _COMMIT, "message": None})
    if line.name == "device.uuid":
        return line.model_copy(update={"status": "varies"})
    word = next((word for word in declared if line.name == word or line.name.startswith(f"{word}.")), None)
    if word is None or line.name.startswith("spec."):
        return line
    return line.model_copy(update={"status": "declared", "declared_by": f"--changed {word}", "message": None})


def _of_files(pair: Pair, evidence: list[Evidence]) -> Iterable[Variable]:
    """What the two experiment files say beside the arm."""
    sides = [(BASELINE, one) for one in (pair.baseline, *pair.sessions)] + [(CANDIDATE, pair.candidate)]
    yield _same(sides, "seeds", lambda found: found.seeds)
    yield _same(
        sides,
        "judging",
        lambda found: {
            "metrics": [choice.model_dump(mode="json") for choice in found.metrics],
            "confidence": found.comparison.confidence,
            "target_accuracy": found.comparison.target_accuracy,
            "looks": [found.comparison.looks, found.comparison.spending],
        },
        "metrics, margins, level or looks",
    )
    profiled = {
        name: {one.measured_by for one in evidence if one.arm == name and one.stage == "profile"}
        for name, _ in sides
    }
    values = {name: sorted(found) for name, found in profiled.items()}
    differ = len(set().union(*profiled.values())) > 1
    checked = sum(one.stage == "profile" for one in evidence)
    yield Variable(
        name="profile",
        status="violated" if differ else "equal" if checked else "unknown",
        checked=checked,
        evidence=values,
        message="the settings of the profile differ between baseline and candidate" if differ else None,
    )


def _same(
    sides: list[tuple[str, Side]], name: str, get: Callable[[Experiment], object], title: str | None = None
) -> Variable:
    values: dict[str, set[str]] = {}
    for who, side in sides:
        values.setdefault(who, set()).add(canonical_json(get(side.experiment)))
    differ = len(set().union(*values.values())) > 1
    shown = {who: sorted(found) for who, found in values.items()}
    listing = "; ".join(f"{who}: {' or '.join(found)}" for who, found in shown.items())
    return Variable(
        name=name,
        status="violated" if differ else "equal",
        checked=len(sides),
        evidence=shown,
        message=f"{title or name}: the experiment files differ: {listing}" if differ else None,
    )
