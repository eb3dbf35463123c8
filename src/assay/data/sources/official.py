"""CIFAR-10/100, MNIST and Fashion-MNIST, read from their official files."""

import gzip
import pickle
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from assay.config.schema import Data
from assay.data.images import resized
from assay.data.sources.archive import Archive, locate
from assay.data.sources.base import ArrayPart, DataError, Source
from assay.data.store import SplitName


@dataclass(frozen=True)
class Cifar:
    """A CIFAR archive in its Python version, and where its parts are."""

    archive: Archive
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: tuple[str, str]
    """Member and key of the classes' names."""
    labels: str


@dataclass(frozen=True)
class Idx:
    """The four files of MNIST and of what follows its format."""

    base: str
    folder: str
    sha256: tuple[str, str, str, str]
    classes: tuple[str, ...]

    FILES = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )

    @property
    def archives(self) -> list[Archive]:
        return [
            Archive(self.base + name, checksum, (f"{self.folder}/raw", "raw"))
            for name, checksum in zip(self.FILES, self.sha256, strict=True)
        ]


CIFAR: dict[str, Cifar] = {
    "cifar10": Cifar(
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
        train=tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
        test=("cifar-10-batches-py/test_batch",),
        names=("cifar-10-batches-py/batches.meta", "label_names"),
        labels="labels",
    ),
    "cifar100": Cifar(
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        ),
        train=("cifar-100-python/train",),
        test=("cifar-100-python/test",),
        names=("cifar-100-python/meta", "fine_label_names"),
        labels="fine_labels",
    ),
}
IDX: dict[str, Idx] = {
    "mnist": Idx(
        base="https://ossci-datasets.s3.amazonaws.com/mnist/",
        folder="MNIST",
        sha256=(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        classes=tuple("0123456789"),
    ),
    "fashion-mnist": Idx(
        base="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        folder="FashionMNIST",
        sha256=(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
}


def load_cifar(settings: Data, published: Mapping[str, Cifar] = CIFAR) -> Source:
    """Raises: DataError for a missing or damaged archive."""
    cifar = published[settings.source]
    path = locate([cifar.archive], settings)[cifar.archive.name]
    with tarfile.open(path) as archive:
        parts = {
            split: _cifar_part(archive, path, members, cifar.labels, split, settings.image_size)
            for split, members in _by_split(cifar).items()
        }
        member, key = cifar.names
        classes = [str(name) for name in _unpickle(archive, path, member)[key]]
    return Source(parts, classes, lambda: {path.name: cifar.archive.sha256}, published=True)


def _by_split(cifar: Cifar) -> dict[SplitName, tuple[str, ...]]:
    return {"train": cifar.train, "test": cifar.test}


def _cifar_part(
    archive: tarfile.TarFile, path: Path, members: tuple[str, ...], key: str, split: str, size: int | None
) -> ArrayPart:
    batches = [_unpickle(archive, path, member) for member in members]
    planes = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([np.asarray(batch[key], np.int64) for batch in batches])
    images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return ArrayPart(resized(images, size), labels, split)


def _unpickle(archive: tarfile.TarFile, path: Path, member: str) -> dict[str, Any]:
    """One member of the archive, whose checksum was compared; still nothing but arrays is constructed."""
    file = archive.extractfile(member)
    if file is None:
        raise DataError(f"{path}: no file {member} in it")
    content = _ArrayUnpickler(file, encoding="latin1").load()
    assert isinstance(content, dict)
    return content


class _ArrayUnpickler(pickle.Unpickler):
    """Builds dicts, lists, texts, numbers and NumPy arrays, and refuses everything else."""

    ALLOWED = frozenset({("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")})

    def __init__(self, file: Any, *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)

    def find_class(self, module: str, name: str) -> Any:
        short = module.rsplit(".", 1)[-1] if module.startswith("numpy.") else module
        if (short, name) not in self.ALLOWED:
            raise DataError(f"a pickle asks for {module}.{name}: refused")
        if name == "_reconstruct":
            module = (
                "numpy._core.multiarray"
                if np.lib.NumpyVersion(np.__version__) >= "2.0.0"
                else "numpy.core.multiarray"
            )
        return super().find_class(module, name)


def load_idx(settings: Data, published: Mapping[str, Idx] = IDX) -> Source:
    """Raises: DataError for missing or damaged files."""
    idx = published[settings.source]
    paths = locate(idx.archives, settings)
    arrays = []
    for name in Idx.FILES:
        with gzip.open(paths[name]) as file:
            arrays.append(_read_idx(file, paths[name]))
    parts: dict[SplitName, ArrayPart] = {
        "train": _idx_part(arrays[0], arrays[1], "train", settings.image_size),
        "test": _idx_part(arrays[2], arrays[3], "test", settings.image_size),
    }
    checksums = dict(zip(Idx.FILES, idx.sha256, strict=True))
    return Source(parts, list(idx.classes), lambda: checksums, published=True)


def _idx_part(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], split: str, size: int | None
) -> ArrayPart:
    return ArrayPart(resized(images[..., None], size), labels.astype(np.int64), split)


def _read_idx(file: BinaryIO | gzip.GzipFile, path: Path) -> NDArray[np.uint8]:
    """The IDX format: two zero bytes, type (8: uint8), number of dimensions, big-endian sizes, values."""
    content = file.read()
    if content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path}: not an IDX file of bytes")
    dimensions = content[3]
    shape = tuple(np.frombuffer(content, ">u4", dimensions, 4).tolist())
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
