"""A noise floor at work: whether it holds for the records at hand, and what it makes of a difference."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from assay.comparison import circumstances
from assay.comparison.collect import Collected, Evidence, Kind
from assay.comparison.floor import FILE, FOLDER, Measured, NoiseFloor, measure
from assay.comparison.model import Floor
from assay.comparison.question import Question
from assay.comparison.variables import Getter
from assay.config.metrics import METRICS
from assay.config.schema import Experiment
from assay.records import RecordError, canonical_json

_CIRCUMSTANCES: dict[str, Getter] = {
    "packages": lambda record: record.packages,
    "Python": lambda record: record.environment.python,
    "image": circumstances.image_of,
    "code of the stage": circumstances.code_of_stage,
    "the user's own code": lambda record: canonical_json(record.code.user_sources),
    "device": circumstances.of_device("name"),
    "driver": circumstances.of_device("driver"),
    "CUDA": circumstances.of_device("cuda"),
    "CPU": lambda record: record.environment.cpu,
    "CPU threads": circumstances.threads_of,
    "data": lambda record: record.data,
    "settings of the profile": lambda record: record.measured_by,
}
"""What decides how much a measurement scatters. Not the host: nodes of one kind are one machine to a cluster."""


class Guard:
    """The floor of each metric, for comparisons of any number of pairs."""

    def __init__(self, floor: NoiseFloor, refused: dict[Kind, str], notes: list[str]) -> None:
        self.floor = floor
        self.refused = refused
        """Why the floor is not this comparison's."""
        self.notes = notes

    def at(self, metric: str, pairs: int) -> Floor | None:
        """None where the experiment asks for no floor of that metric: it is a count, or `noise` leaves it out."""
        quantity = self.floor.quantity(metric)
        if quantity is None:
            return None
        reason = quantity.reason or self.refused.get(quantity.kind)
        value = None if reason or not pairs else quantity.at(pairs, self.floor.alpha)
        return Floor(value=value, arm=self.floor.arm, pairs=quantity.pairs, reason=reason)


def exceeds(floor: Floor | None, metric: str, mean: float) -> bool | None:
    """Whether a mean on the scale of the differences is beyond the floor; None: it is not asked, or not known."""
    if floor is None or floor.value is None:
        return None
    ratio = METRICS[metric].scale == "ratio"
    return abs(mean) > (math.log1p(floor.value) if ratio else floor.value)


def read_guard(experiment: Experiment, results: Path, collected: Collected) -> Guard:
    """The floor that `noise` left beside the experiment, checked against its records and held against these.

    Raises: RecordError where it is missing, damaged, or not what its records give.
    """
    path = results / FOLDER / FILE
    stated, measured = NoiseFloor.read(path), measure(experiment, results)
    if not _alike(stated.model_dump(), measured.floor.model_dump()):
        raise RecordError(f"{path}: is not what its records give; remove it and run the experiment again")
    return Guard(measured.floor, dict(_refused(measured, collected)), _notes(measured, collected))


def _alike(one: Any, other: Any) -> bool:
    """Up to rounding, in which processors may differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)


def _refused(measured: Measured, collected: Collected) -> Iterable[tuple[Kind, str]]:
    arm = measured.floor.arm
    kinds: tuple[Kind, Kind] = ("seed", "block")
    for kind in kinds:
        own = [record for record in measured.evidence if record.kind == kind and record.completed]
        used = [record for record in collected.evidence if record.kind == kind and record.completed]
        differing = _differing(own, [record for record in used if record.arm == arm]) if own else None
        if differing is not None:
            yield kind, f"it was measured elsewhere: {differing}"


def _differing(own: list[Evidence], used: list[Evidence]) -> str | None:
    """The first circumstance of a record that no record of the floor was made under."""
    for stage in dict.fromkeys(record.stage for record in used):
        for name, get in _CIRCUMSTANCES.items():
            known = {get(record) for record in own if record.stage == stage}
            for record in used:
                if record.stage == stage and (value := get(record)) not in known:
                    there = " or ".join(sorted(_shown(one) for one in known)) or "nothing"
                    return f"{name} of {record.path} is {_shown(value)}, of the floor {there}"
    return None


def _shown(value: str | None, most: int = 60) -> str:
    text = "not recorded" if value is None else value
    return text if len(text) <= most else f"{text[:most]}…"


def _notes(measured: Measured, collected: Collected) -> list[str]:
    own = {record.environment.host for record in measured.evidence}
    others = {record.environment.host for record in collected.evidence} - own
    if not own or not others:
        return []
    return [f"it was measured on {', '.join(sorted(own))}, and there are runs on {', '.join(sorted(others))}"]


def narrow_margins(question: Question, guard: Guard) -> list[str]:
    """Margins that are smaller than what the machine resolves."""
    notes = []
    for choice in question.metrics:
        quantity = guard.floor.quantity(choice.name)
        floor = None if quantity is None else quantity.floor
        if choice.margin is not None and floor is not None and floor > choice.margin:
            notes.append(
                f"metrics: the margin of {choice.name}, {choice.margin:g}, is below its noise floor, {floor:.2g}: "
                "what is told to be equivalent may be so by chance of the machine"
            )
    return notes
