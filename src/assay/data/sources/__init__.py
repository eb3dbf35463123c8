"""Where data sets come from."""

from collections.abc import Sequence
from pathlib import Path

from assay.config.schema import Data
from assay.data.sources.base import DataError, Source


def load(settings: Data, module_roots: Sequence[Path]) -> Source:
    """The source that the settings name. Raises: DataError."""
    if settings.options and ":" not in settings.source:
        raise DataError(f"data.options: {settings.source} takes none; they are for module:function")
    match settings.source:
        case "digits":
            from assay.data.sources.digits import load_digits

            return load_digits(settings)
        case "cifar10" | "cifar100":
            from assay.data.sources.official import load_cifar

            return load_cifar(settings)
        case "mnist" | "fashion-mnist":
            from assay.data.sources.official import load_idx

            return load_idx(settings)
        case "folder":
            from assay.data.sources.folder import load_folder

            return load_folder(settings)
        case _:
            from assay.data.sources.user import load_user

            return load_user(settings, module_roots)
