"""From an experiment file to a resolved experiment, or to everything that is wrong with it."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from assay.config.errors import ConfigError, Problem, nearest, short
from assay.config.errors import Path as KeyPath
from assay.config.metrics import METRICS
from assay.config.resolve import undeclared, unknown_factors
from assay.config.schema import ARM_SECTIONS, Arm, Experiment
from assay.config.yaml_file import Lines, read_yaml

__all__ = ["ConfigError", "from_mapping", "load"]

_KINDS = {("training", "optimizer"): "name", ("training", "schedule"): "name", ("model",): "source"}
"""Sections whose other keys belong to their kind: an arm that changes the kind starts them anew."""
_OTHER_KEYS = tuple(name for name in Experiment.model_fields if name != "arms")
_UNION_TAGS = {"sgd", "adamw"}


def load(path: Path, *, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read, validate and resolve an experiment file.

    overrides: values that replace those of the file, section by section, as from the command line.
    Raises: ConfigError with every problem found.
    """
    content, lines = read_yaml(path)
    if overrides:
        content = _merge(content, overrides, ())
    return from_mapping(content, file=str(path), lines=lines)


def from_mapping(content: Mapping[str, Any], *, file: str, lines: Lines | None = None) -> Experiment:
    """Validate and resolve an experiment in the form of the file. Raises: ConfigError."""
    return _Reader(file, content, lines or {}).read()


class _Reader:
    """One pass over one file: collects problems, so that all are reported at once."""

    def __init__(self, file: str, content: Mapping[str, Any], lines: Lines) -> None:
        self.file = file
        self.content = dict(content)
        self.lines = lines
        self.problems: dict[tuple[KeyPath, str], Problem] = {}

    def read(self) -> Experiment:
        self._check_top()
        arms = self._arms()
        rest = {name: deepcopy(self.content[name]) for name in _OTHER_KEYS if name in self.content}
        self._normalise(rest, list(arms))
        experiment = self._validate(rest, arms)
        self._raise()
        assert experiment is not None
        self._check_meaning(experiment)
        self._raise()
        return experiment

    def _raise(self) -> None:
        if self.problems:
            raise ConfigError(self.file, list(self.problems.values()))

    def _add(self, path: KeyPath, what: str, instead: str = "") -> None:
        at = path
        while at and at not in self.lines:
            at = at[:-1]
        self.problems.setdefault((path, what), Problem(path, what, instead, self.lines.get(at)))

    def _check_top(self) -> None:
        known = (*_OTHER_KEYS, "arms", *ARM_SECTIONS)
        for key in self.content:
            if key not in known:
                self._add((str(key),), "unknown key", _instead(str(key), known))
        for key in ARM_SECTIONS:
            value = self.content.get(key, {})
            if not isinstance(value, dict):
                self._add(
                    (key,), f"{short(value)} is not a section", f"write keys with values below `{key}:`"
                )
                self.content[key] = {}

    def _arms(self) -> dict[str, dict[str, Any]]:
        """Each arm's sections: those of the file, overridden by its own."""
        given = self.content.get("arms")
        if not isinstance(given, dict) or len(given) < 2:
            self._add(
                ("arms",),
                "missing" if given is None else "at least two arms are compared",
                "write two names with their settings, e.g. `arms: {a: {model: {source: builtin:mlp}}, b: …}`",
            )
        arms: dict[str, dict[str, Any]] = {}
        for name, own in (given if isinstance(given, dict) else {}).items():
            if own is None:
                own = {}
            if not isinstance(own, dict):
                self._add(("arms", str(name)), f"{short(own)} is not a section", "write its settings as keys")
                own = {}
            arms[str(name)] = _merge(self._shared(), own, ())
        return arms

    def _shared(self) -> dict[str, Any]:
        """The sections that hold for all arms."""
        return {name: self.content[name] for name in ARM_SECTIONS if name in self.content}

    def _normalise(self, rest: dict[str, Any], arms: list[str]) -> None:
        """The short forms that the file allows, written out."""
        seeds = rest.get("seeds")
        if isinstance(seeds, int) and not isinstance(seeds, bool):
            if seeds < 1:
                self._add(("seeds",), f"{seeds} seeds", "write at least 1; six are the least for a verdict")
            rest["seeds"] = list(range(max(1, seeds)))
        metrics = rest.get("metrics")
        if isinstance(metrics, list):
            rest["metrics"] = [{"name": item} if isinstance(item, str) else item for item in metrics]
        if rest.get("question") is None:
            rest.pop("question", None)
        if rest.get("baseline") is None:
            rest["baseline"] = arms[0] if arms else "none"
        factors = rest.get("factors")
        if isinstance(factors, str):
            rest["factors"] = [factors]

    def _validate(self, rest: dict[str, Any], arms: dict[str, dict[str, Any]]) -> Experiment | None:
        for name, sections in (arms or {"": {"model": {"source": "builtin:mlp"}} | self._shared()}).items():
            try:
                Arm.model_validate(sections)
            except ValidationError as error:
                for detail in error.errors():
                    self._translate(detail, ("arms", name))
        try:
            return Experiment.model_validate(rest | {"arms": arms})
        except ValidationError as error:
            for detail in error.errors():
                if detail["loc"][:1] != ("arms",) or detail["loc"][-1:] == ("[key]",):
                    self._translate(detail, ())
        return None

    def _translate(self, detail: ErrorDetails, base: KeyPath) -> None:
        """A validation error in the words and at the place of the file."""
        path = _without_tags(detail["loc"])
        if base and not _holds(self.content, (*base, *path)) and self._belongs_to_all(path):
            base = ()
        where = (*base, *path)
        if detail["type"] == "extra_forbidden":
            known = _known_keys(path[:-1]) if base or path[0] in ARM_SECTIONS else _section_keys(path[:-1])
            self._add(where, "unknown key", _instead(str(path[-1]), known))
        elif detail["type"] == "string_pattern_mismatch" and path[-1:] == ("[key]",):
            self._add(
                where[:-1], "not a name", "write lower-case letters, digits, `-` and `_`, a letter first"
            )
        elif detail["type"] == "missing":
            self._add(where, "missing", _example(path))
        else:
            self._add(where, _reason(detail), _advice(detail, path))

    def _belongs_to_all(self, path: KeyPath) -> bool:
        """Whether the mistake is in the sections for all arms, and so is reported once."""
        return (
            bool(path)
            and _holds(self.content, path[:1])
            and (len(path) == 1 or _holds(self.content, path[:-1]))
        )

    def _check_meaning(self, experiment: Experiment) -> None:
        if experiment.baseline not in experiment.arms:
            instead = _instead(experiment.baseline, experiment.arms)
            self._add(("baseline",), f"{experiment.baseline!r} is not an arm", instead)
            return
        repeated = (
            sorted({seed for seed in experiment.seeds if experiment.seeds.count(seed) > 1})
            if len(set(experiment.seeds)) < len(experiment.seeds)
            else []
        )
        if repeated:
            self._add(("seeds",), f"{repeated[0]} stands twice", "a seed counts once: write each once")
        self._check_metrics(experiment)
        for number, factor in unknown_factors(experiment):
            known = [
                *ARM_SECTIONS,
                *(f"{section}.{key}" for section in ARM_SECTIONS for key in _known_keys((section,))),
            ]
            self._add(("factors", number), f"{factor!r} names no setting of an arm", _instead(factor, known))
        for difference in undeclared(experiment):
            self._add(
                ("arms", difference.arm, *difference.path.split(".")),
                f"undeclared difference: {difference.baseline} has {short(difference.before)}, "
                f"{difference.arm} has {short(difference.after)}",
                f"make them equal, or declare it: `factors: [{', '.join([*experiment.factors, difference.path])}]`",
            )

    def _check_metrics(self, experiment: Experiment) -> None:
        seen: set[str] = set()
        for number, choice in enumerate(experiment.metrics):
            path: KeyPath = ("metrics", number)
            metric = METRICS.get(choice.name)
            if metric is None:
                self._add(path, f"unknown metric {choice.name!r}", _instead(choice.name, METRICS))
            elif metric.pairing != "seed" and not experiment.profile.enabled:
                self._add(
                    path,
                    f"{choice.name} comes from the profile, which is off",
                    "write `profile: {enabled: true}`",
                )
            if choice.name in seen:
                self._add(path, f"{choice.name} stands twice", "keep one")
            seen.add(choice.name)


def _merge(base: Mapping[str, Any], own: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """`own` over `base`, key by key; a section that changes its kind replaces the other's keys."""
    kind = _KINDS.get(path)
    if kind is not None and kind in own and own[kind] != base.get(kind):
        kept = {"image_size"} if path == ("model",) else set()
        base = {key: value for key, value in base.items() if key in kept}
    merged = deepcopy(dict(base))
    for key, value in own.items():
        before = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        merged[key] = _merge(before, value, (*path, key)) if both else deepcopy(value)  # type: ignore[arg-type]
    return merged


def _without_tags(location: tuple[int | str, ...]) -> KeyPath:
    """The path without the names that a union puts into it."""
    return tuple(
        part
        for number, part in enumerate(location)
        if not (part in _UNION_TAGS and number and location[number - 1] == "optimizer")
    )


def _holds(content: Any, path: KeyPath) -> bool:
    for part in path:
        if isinstance(content, Mapping) and part in content:
            content = content[part]
        elif isinstance(content, list) and isinstance(part, int) and part < len(content):
            content = content[part]
        else:
            return False
    return True


def _known_keys(path: KeyPath) -> list[str]:
    """The keys of a section inside an arm; at an optimiser those of every kind."""
    return sorted(_keys(Arm, path))


def _section_keys(path: KeyPath) -> list[str]:
    return sorted(_keys(Experiment, path))


def _keys(model: Any, path: KeyPath) -> set[str]:
    from pydantic import BaseModel

    models = [model]
    for part in path:
        if isinstance(part, int):
            continue
        annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        models = [found for annotation in annotations for found in _models_in(annotation, BaseModel)]
    return {key for found in models for key in found.model_fields}


def _models_in(annotation: Any, base: type) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, base):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _models_in(part, base)]


def _instead(word: str, known: Any) -> str:
    known = list(known)
    guess = nearest(word, known)
    return f"did you mean `{guess}`?" if guess else f"write one of: {', '.join(known)}"


_EXAMPLES = {
    "source": "`source: builtin:mlp`",
    "name": "`name: my-experiment`",
    "factors": "`factors: [model]`",
    "seeds": "`seeds: 6`",
    "data": "`data: {source: digits}`",
    "model": "`model: {source: builtin:mlp}`",
}


def _example(path: KeyPath) -> str:
    last = str(path[-1])
    if path[-2:] == ("optimizer", "name"):
        return "write `name: sgd` or `name: adamw`"
    return (
        f"write e.g. {_EXAMPLES[last]}"
        if last in _EXAMPLES
        else "write it; config/README.md says what it takes"
    )


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] == "value_error":
        return str(detail["msg"]).removeprefix("Value error, ")
    message = detail["msg"][0].lower() + detail["msg"][1:]
    if isinstance(detail["input"], dict | list):
        return message
    return f"{short(detail['input'])}: {message}"


def _advice(detail: ErrorDetails, path: KeyPath) -> str:
    kind, value = detail["type"], detail["input"]
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return "write `name: sgd` or `name: adamw`"
    if kind == "literal_error" and isinstance(value, str):
        allowed = (
            str(detail.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ").split(", ")
        )
        guess = nearest(value, allowed)
        return f"did you mean `{guess}`?" if guess else ""
    if kind == "string_pattern_mismatch" and path[-1] == "source":
        return "write e.g. `builtin:mlp`, `torchvision:resnet18` or `mymodule:function`; for data e.g. `digits` or `folder`"
    if kind == "string_pattern_mismatch":
        return "write lower-case letters, digits, `-` and `_`, e.g. `my-experiment`"
    if kind == "string_type" and isinstance(value, bool):
        return "YAML reads yes, no, on and off as true or false: put quotes around it"
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return "write keys with values below it"
    return ""
