"""A data set of the user's own: `module:function`.

The function gets `data.options` as keyword arguments, and `path` if `data.path` is set. It returns
`(images, labels)` or `(images, labels, classes)`, which is divided; or `{"train": (images, labels), …}` with
`validation` and `test` if it has them, and `classes` if it names them.
Images: uint8 [N, H, W] or [N, H, W, C]; labels: integers from 0.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from assay.config.schema import Data
from assay.data.images import resized
from assay.data.sources.base import ArrayPart, DataError, Source
from assay.data.store import SPLITS, SplitName
from assay.records import sha256_file

EXPECTED = "return (images, labels), (images, labels, classes) or {'train': (images, labels), …}"


def load_user(settings: Data, roots: Sequence[Path]) -> Source:
    """Raises: DataError naming the function and what is wrong with it or with what it returned."""
    name, _, function_name = settings.source.partition(":")
    with _importable(roots):
        module = _import(name, roots)
        function = getattr(module, function_name, None)
        if not callable(function):
            raise DataError(
                f"data.source {settings.source}: no function {function_name!r} in {module.__file__}"
            )
        returned = function(**_arguments(function, settings))
    pairs, classes = _unpack(returned, settings.source)
    parts = {
        split: _part(pair, f"{settings.source}: {split}", settings.image_size)
        for split, pair in pairs.items()
    }
    if classes is None:
        classes = [
            str(number)
            for number in range(int(max(part.labels.max(initial=0) for part in parts.values())) + 1)
        ]
    checksums = {Path(module.__file__).name: sha256_file(Path(module.__file__))} if module.__file__ else {}
    return Source(parts, classes, lambda: checksums)


@contextmanager
def _importable(roots: Sequence[Path]) -> Iterator[None]:
    """The user's modules come first while they are imported and called."""
    before = sys.path[:]
    sys.path[:0] = [str(root.resolve()) for root in roots]
    try:
        yield
    finally:
        sys.path[:] = before


def _import(name: str, roots: Sequence[Path]) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".", 1)[0]:
            raise
        places = ", ".join(str(root) for root in roots)
        raise DataError(
            f"data.source: no module {name!r} in {places}; write the path as package.module:function"
        ) from None
    loaded = Path(module.__file__).resolve() if module.__file__ else None
    if loaded is None or not any(loaded.is_relative_to(root.resolve()) for root in roots):
        raise DataError(f"data.source: another module {name!r} is loaded, from {loaded}; rename your file")
    return module


def _arguments(function: Callable[..., Any], settings: Data) -> dict[str, Any]:
    arguments: dict[str, Any] = dict(settings.options)
    if settings.path is not None:
        arguments["path"] = Path(settings.path)
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise DataError(
            f"data.options: {settings.source} cannot be called with {sorted(arguments)}: {error}; "
            f"its signature is {inspect.signature(function)}"
        ) from None
    return arguments


def _unpack(returned: Any, source: str) -> tuple[dict[SplitName, Any], list[str] | None]:
    if isinstance(returned, tuple) and len(returned) in (2, 3):
        pairs: dict[SplitName, Any] = {"train": returned[:2]}
        classes = returned[2] if len(returned) == 3 else None
    elif isinstance(returned, dict) and "train" in returned:
        unknown = sorted(set(returned) - set(SPLITS) - {"classes"})
        if unknown:
            raise DataError(
                f"data.source {source}: returned {unknown[0]!r}; the keys are {list(SPLITS)} and 'classes'"
            )
        pairs = {split: returned[split] for split in SPLITS if split in returned}
        classes = returned.get("classes")
    else:
        raise DataError(f"data.source {source}: returned {type(returned).__name__}; {EXPECTED}")
    return pairs, None if classes is None else [str(name) for name in classes]


def _part(pair: Any, title: str, size: int | None) -> ArrayPart:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise DataError(f"{title}: not a pair (images, labels); {EXPECTED}")
    images, labels = pair[0], np.asarray(pair[1])
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"{title}: images are {kind}; return a NumPy array of uint8, 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise DataError(f"{title}: images have shape {list(images.shape)}; return [N, H, W] or [N, H, W, C]")
    if images.shape[3] > 4 and images.shape[1] in (1, 3):
        raise DataError(
            f"{title}: images {list(images.shape)} have channels first; return images.transpose(0, 2, 3, 1)"
        )
    if labels.shape != (len(images),) or (len(labels) and labels.dtype.kind not in "iu"):
        raise DataError(
            f"{title}: labels are {labels.dtype} {list(labels.shape)}; "
            f"return one integer per image, [{len(images)}]"
        )
    return ArrayPart(resized(images, size), labels.astype(np.int64), title)
