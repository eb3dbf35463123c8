from pathlib import Path

import numpy as np
import pytest

from assay.config.schema import Data
from assay.data.prepare import prepare
from assay.data.store import Manifest, StoreError, open_store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(Data(source="digits"), tmp_path / "data", module_roots=[])
    return tmp_path / "data"


def test_a_prepared_store_opens_and_verifies(folder: Path) -> None:
    store = open_store(folder)
    store.verify()
    train = store.split("train")
    assert isinstance(train.images, np.memmap) and train.images.dtype == np.uint8
    assert train.images.shape == (len(train), *store.manifest.image_shape)
    assert not train.images.flags.writeable


def test_a_changed_byte_is_found(folder: Path) -> None:
    path = folder / "test.images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store = open_store(folder)
    with pytest.raises(StoreError, match=r"test\.images\.npy.*SHA-256"):
        store.verify()


def test_a_missing_manifest_or_file_is_named(folder: Path) -> None:
    (folder / "train.labels.npy").unlink()
    with pytest.raises(StoreError, match=r"train\.labels\.npy: no such file"):
        open_store(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"manifest\.json: no such manifest"):
        open_store(folder)


def test_a_short_or_long_file_is_refused(folder: Path) -> None:
    path = folder / "train.images.npy"
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"x", whole[:40], b""):
        path.write_bytes(content)
        with pytest.raises(StoreError, match=r"train\.images\.npy"):
            open_store(folder)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 8, 8, 1), np.uint8), np.zeros((1146, 8, 8, 1), np.float32), np.array([{}])]
)
def test_another_shape_or_type_is_refused(folder: Path, array: np.ndarray) -> None:
    np.save(folder / "train.images.npy", array)
    with pytest.raises(StoreError, match=r"train\.images\.npy"):
        open_store(folder)


def test_a_damaged_manifest_is_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"count"', '"cuont"'))
    with pytest.raises(StoreError, match="count"):
        Manifest.read(path)
