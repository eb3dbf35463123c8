"""A validation error in the user's words: what is wrong at a key, and what to write instead."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from assay.config.arm import ARM_SECTIONS, NAME_PATTERN, AdamW, Arm
from assay.config.errors import Path as KeyPath
from assay.config.errors import nearest, short
from assay.config.schema import Experiment

NAME_ADVICE = "write lower-case letters, digits, `-` and `_`, a letter or digit first, e.g. `my-experiment`"
_MOST_LISTED = 16
_UNION_TAGS = {"sgd", "adamw"}
_KIND_ADVICE = "write `name: sgd` or `name: adamw`"
_EXAMPLES: dict[KeyPath, str] = {
    ("name",): "`name: my-experiment`",
    ("question",): "`question: Is B better than A?`",
    ("baseline",): "the name of an arm",
    ("factors",): "`factors: [model]`",
    ("seeds",): "`seeds: 6`",
    ("data",): "`data: {source: digits}`",
    ("data", "source"): "`digits`, `cifar10`, `folder`, or `module:function` of your own",
    ("data", "path"): "`path: data/cifar10`",
    ("data", "image_size"): "`image_size: 224`",
    ("metrics",): "`metrics: [accuracy, loss]`",
    ("metrics", "name"): "`name: accuracy`",
    ("metrics", "direction"): "`direction: higher`",
    ("metrics", "margin"): "`margin: 0.01`",
    ("profile", "min_seconds"): "`min_seconds: 0.25`",
    ("comparison", "target_accuracy"): "`target_accuracy: 0.9`",
    ("comparison", "looks"): "`looks: [6, 9, 12]`",
    ("noise", "arm"): "the name of an arm",
    ("noise", "seeds"): "`seeds: 3`",
    ("noise", "blocks"): "`blocks: 3`",
    ("bounds", "memory_mb"): "`memory_mb: 4096`",
    ("bounds", "processes"): "`processes: 512`",
    ("sweep", "trials"): "`trials: 16`",
    ("model",): "`model: {source: builtin:mlp}`",
    (
        "model",
        "source",
    ): "`builtin:mlp`, `torchvision:resnet18`, `timm:NAME`, or `module:function` of your own",
    ("model", "image_size"): "`image_size: 224`",
    ("augmentation", "resized_crop"): "`resized_crop: [0.08, 1.0]`",
    ("training", "optimizer", "name"): "`name: sgd` or `name: adamw`",
    ("training", "clip_norm"): "`clip_norm: 1.0`",
    ("training", "ema_decay"): "`ema_decay: 0.999`",
}


@dataclass(frozen=True)
class Kind:
    """A kind of file that people write: what advice about it has to know."""

    root: type[BaseModel]
    reference: str
    """Where all keys are listed."""
    examples: Mapping[KeyPath, str]
    parts: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    """Keys of the top that the sections of another model may stand at."""


EXPERIMENT = Kind(Experiment, "config/README.md", _EXAMPLES, dict.fromkeys(ARM_SECTIONS, Arm))


def without_tags(location: tuple[int | str, ...]) -> KeyPath:
    """The path without the names that a union puts into it."""
    return tuple(part for number, part in enumerate(location) if not _is_tag(location, number))


def _is_tag(location: tuple[int | str, ...], number: int) -> bool:
    """A key or an arm may have the same name."""
    return location[number] in _UNION_TAGS and number > 0 and location[number - 1] == "optimizer"


def unknown_key(
    detail: ErrorDetails, path: KeyPath, *, in_arm: bool = False, kind: Kind = EXPERIMENT
) -> tuple[str, str]:
    """What is wrong with a key that its section does not know, and what to write instead."""
    word = str(path[-1])
    kinds = [part for number, part in enumerate(detail["loc"]) if _is_tag(detail["loc"], number)]
    if kinds:
        model = next(found for found in _models(path[:-1]) if found.__name__.lower() == kinds[-1])
        other = next(found for found in _models(path[:-1]) if found is not model)
        if word in other.model_fields:
            name = "adamw" if other is AdamW else "sgd"
            return f"belongs to `name: {name}`, and this is {kinds[-1]}", "remove it, or change `name`"
        return "unknown key", instead_of(word, model.model_fields)
    models = [Arm] if in_arm and len(path) == 1 else _models(path[:-1], kind)
    return "unknown key", instead_of(word, [key for found in models for key in found.model_fields], kind)


def instead_of(word: str, known: Iterable[str], kind: Kind = EXPERIMENT) -> str:
    known = list(known)
    guess = nearest(word, known)
    if guess:
        return f"did you mean `{guess}`?"
    more = f", …: {kind.reference} lists all" if len(known) > _MOST_LISTED else ""
    return f"write one of: {', '.join(known[:_MOST_LISTED])}{more}"


def example(path: KeyPath, kind: Kind = EXPERIMENT) -> str:
    """What may stand at a key: an example, or its default."""
    keys = tuple(part for part in path if isinstance(part, str))
    if keys in kind.examples:
        return f"write e.g. {kind.examples[keys]}"
    found = _field(keys, kind)
    if found is None or found.is_required() or found.default is None:
        return f"{kind.reference} says what it takes"
    if isinstance(found.default, BaseModel):
        return f"write keys with values below `{keys[-1]}:`"
    return f"write e.g. `{keys[-1]}: {_written(found.default)}`"


def _written(value: Any) -> str:
    return short(list(value) if isinstance(value, tuple) else value).replace("'", "")


def reason(detail: ErrorDetails) -> str:
    value = detail["input"]
    if detail["type"] == "value_error":
        return str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "string_pattern_mismatch":
        form = "a name" if _is_name(detail) else "of the form that it must have"
        return f"{short(value)} is not {'a source' if detail['loc'][-1] == 'source' else form}"
    if detail["type"] == "too_short" and not value:
        return "is empty"
    message = detail["msg"].removeprefix("Input ").removeprefix("should")
    message = f"should{message}" if message != detail["msg"] else message[0].lower() + message[1:]
    message = message.partition(" or instance of ")[0]
    for technical, plain in (("a valid dictionary", "keys with values"), ("a valid list", "a list")):
        message = message.replace(technical, plain)
    return message if isinstance(value, dict | list) else f"{short(value)} {message}"


def advice(detail: ErrorDetails, path: KeyPath, kind: Kind = EXPERIMENT) -> str:
    error, value = detail["type"], detail["input"]
    if error in {"union_tag_invalid", "union_tag_not_found"}:
        return _KIND_ADVICE
    if error == "literal_error" and isinstance(value, str):
        expected = str(detail.get("ctx", {}).get("expected", ""))
        guess = nearest(value, expected.replace("'", "").replace(" or ", ", ").split(", "))
        return f"did you mean `{guess}`?" if guess else ""
    if error == "string_pattern_mismatch" and path[-1] != "source" and _is_name(detail):
        return NAME_ADVICE
    if error == "string_type" and isinstance(value, bool):
        return "YAML reads yes, no, on and off as true or false: put quotes around it"
    if error == "string_type" and isinstance(value, int | float):
        return f'put quotes around it: `{path[-1]}: "{value}"`'
    if error in {"model_type", "model_attributes_type", "dict_type"}:
        return "write keys with values below it"
    return "" if error == "value_error" else example(path, kind)


def _is_name(detail: ErrorDetails) -> bool:
    return detail.get("ctx", {}).get("pattern") == NAME_PATTERN


def is_number(path: KeyPath, kind: Kind = EXPERIMENT) -> bool:
    """Whether numbers, and not booleans, stand at a key or in the list there."""

    def types(annotation: Any) -> Iterator[Any]:
        yield annotation
        for part in getattr(annotation, "__args__", ()):
            yield from types(part)

    meant = _field(tuple(part for part in path if isinstance(part, str)), kind)
    found = set(types(meant.annotation)) if meant else set()
    return bool(found & {int, float}) and bool not in found


def settings_of_arms() -> list[str]:
    """Every setting and section of an arm by dotted path: what a factor may name."""
    found = list(ARM_SECTIONS)

    def descend(path: tuple[str, ...]) -> None:
        for key in dict.fromkeys(key for model in _models(path) for key in model.model_fields):
            found.append(".".join((*path, key)))
            descend((*path, key))

    for section in ARM_SECTIONS:
        descend((section,))
    return found


def _models(path: KeyPath, kind: Kind = EXPERIMENT) -> list[type[BaseModel]]:
    """The sections that may stand at a path of the file; of a union all kinds."""
    models = [kind.parts.get(str(path[0]), kind.root) if path else kind.root]
    for part in path:
        if isinstance(part, str):
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [found for field in fields for found in _models_in(field.annotation)]
    return models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _models_in(part)]


def _field(keys: tuple[str, ...], kind: Kind) -> FieldInfo | None:
    fields = [m.model_fields[keys[-1]] for m in _models(keys[:-1], kind) if keys[-1] in m.model_fields]
    return fields[0] if fields else None
