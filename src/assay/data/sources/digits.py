"""The handwritten digits that scikit-learn bundles: 1,797 images of 8 x 8, 10 classes.

Read straight from scikit-learn's file, so that scikit-learn itself (and SciPy) need not be imported.
"""

import gzip
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from assay.config.schema import Data
from assay.data.images import resized
from assay.data.sources.base import ArrayPart, DataError, Source

SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
"""Of the uncompressed table, the same in every release of scikit-learn."""


def load_digits(settings: Data) -> Source:
    """Intensities 0 to 16 become 0 to 255.

    Raises: DataError where scikit-learn is not installed or its file is damaged.
    """
    path = _file()
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: missing; reinstall scikit-learn") from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: damaged ({error}); reinstall scikit-learn") from None
    found = sha256(content).hexdigest()
    if found != SHA256:
        raise DataError(
            f"{path}: damaged: SHA-256 of its content is {found}, expected {SHA256}; reinstall scikit-learn"
        )
    table = np.loadtxt(content.decode().splitlines(), delimiter=",", dtype=np.int64)
    images = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    part = ArrayPart(resized(images, settings.image_size), table[:, 64].copy(), "digits")
    return Source({"train": part}, list("0123456789"), lambda: {"digits.csv": SHA256})


def _file() -> Path:
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "data.source digits: scikit-learn holds it and is not installed; install scikit-learn"
        )
    return Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
