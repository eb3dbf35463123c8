"""A model of the user's own: `module:function`."""

import importlib
import importlib.abc
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from assay.models.errors import ModelError, described, suggestion
from assay.models.inputs import Inputs
from assay.models.sources import find_module

Function = Callable[..., object]


def load_function(source: str, roots: Sequence[Path]) -> Function:
    """Import `module:function` from the first of `roots` that has the module.

    The module's own imports are looked up in `roots` before installed packages, but after Python's own
    library, now and when the model runs.

    Raises: ModelError naming module, file and, for a missing function, the nearest one.
    """
    name, _, function = source.partition(":")
    path = find_module(name, roots)[-1].path
    module = _import(name, path, roots)
    found = getattr(module, function, None)
    if found is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ModelError(f"{path}: no function '{function}'{suggestion(function, known)}")
    if not callable(found):
        raise ModelError(f"{path}: '{function}' is no function but {type(found).__name__}: {found!r:.60}")
    return found  # type: ignore[no-any-return]


def call(function: Function, source: str, options: Mapping[str, Any], inputs: Inputs) -> nn.Module:
    """Call the user's function with the options, and with what it asks for of the data.

    The data's properties are `num_classes`, `in_channels` and `image_size` (the side in pixels, or
    `(height, width)` of images that are not square); each is passed if a parameter has its name.

    Raises: ModelError naming the option, or the line of the user's file that raised.
    """
    arguments = _arguments(function, source, options, inputs)
    try:
        model = function(**arguments)
    except Exception as error:
        raise ModelError(f"{source}: {described(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{source} returned {type(model).__name__}; it must return a torch.nn.Module")
    return model


def _import(name: str, path: Path, roots: Sequence[Path]) -> ModuleType:
    finder = _LocalFinder(roots)
    if finder not in sys.meta_path:
        sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise ModelError(f"{path}: cannot be imported: {described(error)}") from error
    loaded = getattr(module, "__file__", None)
    if loaded is None or Path(loaded).resolve() != path.resolve():
        raise ModelError(f"{path}: another module '{name}' is loaded, from {loaded}; rename your file")
    return module


class _LocalFinder(importlib.abc.MetaPathFinder):
    """Finds modules below the given folders; a folder without `__init__.py` hides no installed package."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(str(root.resolve()) for root in roots)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LocalFinder) and other.roots == self.roots

    def __hash__(self) -> int:
        return hash(self.roots)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if path is not None or fullname in sys.stdlib_module_names:
            return None
        local = importlib.machinery.PathFinder.find_spec(fullname, list(self.roots), target)
        if local is not None and local.loader is None:
            installed = importlib.machinery.PathFinder.find_spec(fullname, None, target)
            return installed if installed is not None and installed.loader is not None else local
        return local


def _arguments(function: Function, source: str, options: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    height, width = inputs.size
    given = {
        "num_classes": inputs.classes,
        "in_channels": inputs.channels,
        "image_size": height if height == width else (height, width),
    }
    for option in options:
        if option in given:
            raise ModelError(f"model.options.{option}: remove it; {source} gets it from the data")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return dict(options)
    parameters = signature.parameters
    _check_options(source, options, signature)
    return dict(options) | {name: value for name, value in given.items() if name in parameters}


def _check_options(source: str, options: Mapping[str, Any], signature: inspect.Signature) -> None:
    parameters = signature.parameters.values()
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for option in options:
            if option not in named:
                free = [name for name in named if name not in Inputs.NAMES]
                takes = f"it takes {', '.join(free)}" if free else "it takes none"
                near = suggestion(option, free)
                raise ModelError(f"model.options.{option}: unknown to {source}; {takes}{near}")
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in options and name not in Inputs.NAMES:
            raise ModelError(
                f"model.options.{name}: {source} needs it; write model.options: {{{name}: …}}. "
                f"What it may take of the data is called {', '.join(Inputs.NAMES)}"
            )
