"""One mapping over another, as the file's sections for all arms and an arm's own are merged; and what stands where."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from assay.config.errors import Path as KeyPath

_NOTHING = object()
_KINDS = {("training", "optimizer"): "name", ("training", "schedule"): "name", ("model",): "source"}
"""Sections whose other keys belong to their kind: an arm that changes the kind starts them anew."""


def merge(base: Mapping[str, Any], own: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """`own` over `base`, key by key; a section that changes its kind replaces the other's keys."""
    kind = _KINDS.get(path)
    if kind is not None and kind in own and own[kind] != base.get(kind):
        kept = {"image_size"} if path == ("model",) else set()
        base = {key: value for key, value in base.items() if key in kept}
    merged = deepcopy(dict(base))
    for key, value in own.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[key] = merge(before, value, (*path, key))
        else:
            merged[key] = deepcopy(value)
    return merged


def ends(given: Mapping[str, Any], path: KeyPath = ()) -> Iterator[KeyPath]:
    """The paths at which a mapping of mappings holds values."""
    for key, value in given.items():
        if isinstance(value, Mapping) and value:
            yield from ends(value, (*path, key))
        else:
            yield (*path, key)


def holds(content: Any, path: KeyPath) -> bool:
    return value_at(content, path, _NOTHING) is not _NOTHING


def value_at(content: Any, path: KeyPath, otherwise: object = None) -> Any:
    """What stands at a path of the file."""
    for part in path:
        if (isinstance(content, Mapping) and part in content) or (
            isinstance(content, list) and isinstance(part, int) and part < len(content)
        ):
            content = content[part]  # type: ignore[index]
        else:
            return otherwise
    return content
