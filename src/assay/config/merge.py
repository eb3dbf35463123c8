"""One mapping over another, as the file's sections for all arms and an arm's own are merged."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

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
