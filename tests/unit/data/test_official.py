"""Official archives, on files of their format with few images."""

import gzip
import hashlib
import io
import pickle
import tarfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import pytest

from assay.config.schema import Data
from assay.data import prepare as preparing
from assay.data.prepare import prepare
from assay.data.sources.base import DataError, Source
from assay.data.sources.official import CIFAR, IDX, Idx, load_cifar, load_idx
from assay.data.store import open_store

_random = np.random.default_rng(0)


class OldPickler(pickle._Pickler):
    """Writes texts and bytes as Python 2 did, which made the CIFAR archives."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_old(self, value: str | bytes) -> None:
        content = value if isinstance(value, bytes) else value.encode()
        self.write(b"T" + len(content).to_bytes(4, "little") + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_old

    def save_global(self, value: object, name: str | None = None) -> None:
        self.write(
            b"c"
            + {
                "_reconstruct": b"numpy.core.multiarray\n_reconstruct\n",
                "ndarray": b"numpy\nndarray\n",
                "dtype": b"numpy\ndtype\n",
            }[name or value.__name__]
        )
        self.memoize(value)

    dispatch[type] = dispatch[type(np.dtype)] = dispatch[type(len)] = dispatch[type(save_old)] = save_global


def old_pickle(value: object) -> bytes:
    file = io.BytesIO()
    OldPickler(file, 2).dump(value)
    return file.getvalue()


def archive(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar(tmp_path: Path):
    """A small CIFAR-10 archive, its images, and the table that knows its checksum."""
    official = CIFAR["cifar10"]
    planes = _random.integers(0, 256, (60, 3072), dtype=np.uint8)
    labels = [number % 10 for number in range(60)]
    members = {
        name: old_pickle({"data": planes[10 * i : 10 * i + 10], "labels": labels[10 * i : 10 * i + 10]})
        for i, name in enumerate((*official.train, *official.test))
    }
    members["cifar-10-batches-py/batches.meta"] = old_pickle(
        {"label_names": [f"class {n}" for n in range(10)]}
    )
    path = tmp_path / "files" / "cifar-10-python.tar.gz"
    archive(path, members)
    table = {"cifar10": replace(official, archive=replace(official.archive, sha256=sha256(path)))}
    return path, planes.reshape(60, 3, 32, 32).transpose(0, 2, 3, 1), table


def test_cifar_is_read_from_its_archive(cifar) -> None:
    path, images, table = cifar
    source = load_cifar(Data(source="cifar10", path=str(path.parent)), table)
    np.testing.assert_array_equal(source.parts["train"].images, images[:50])
    np.testing.assert_array_equal(source.parts["test"].images, images[50:])
    assert source.parts["train"].labels.tolist() == [number % 10 for number in range(50)]
    assert source.classes[3] == "class 3"
    assert source.checksums() == {path.name: sha256(path)}


def test_cifar_at_another_size(cifar) -> None:
    path, _, table = cifar
    source = load_cifar(Data(source="cifar10", path=str(path.parent), image_size=8), table)
    assert source.parts["test"].images.shape == (10, 8, 8, 3)


def test_a_missing_archive_is_named_with_place_address_and_checksum(tmp_path: Path) -> None:
    for name, load in (
        ("cifar10", load_cifar),
        ("cifar100", load_cifar),
        ("mnist", load_idx),
        ("fashion-mnist", load_idx),
    ):
        with pytest.raises(DataError) as raised:
            load(Data(source=name, path=str(tmp_path)))
        text = str(raised.value)
        archives = [CIFAR[name].archive] if name in CIFAR else IDX[name].archives
        for one in archives:
            assert str(tmp_path / one.name) in text and one.url in text and one.sha256 in text
        assert "download: true" in text


def test_a_damaged_archive_is_named_with_both_checksums(cifar) -> None:
    path, _, table = cifar
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError) as raised:
        load_cifar(Data(source="cifar10", path=str(path.parent)), table)
    for part in (str(path), sha256(path), table["cifar10"].archive.sha256):
        assert part in str(raised.value)


def test_a_pickle_that_runs_code_is_refused(cifar, tmp_path: Path) -> None:
    path, _, table = cifar
    archive(
        path,
        {
            "cifar-10-batches-py/data_batch_1": b"cos\nsystem\n(S'touch "
            + str(tmp_path / "ran").encode()
            + b"'\ntR."
        },
    )
    table = {
        "cifar10": replace(table["cifar10"], archive=replace(table["cifar10"].archive, sha256=sha256(path)))
    }
    with pytest.raises(DataError, match=r"os\.system: refused"):
        load_cifar(Data(source="cifar10", path=str(path.parent)), table)
    assert not (tmp_path / "ran").exists()


def idx_files(folder: Path, images: np.ndarray, labels: np.ndarray, train: int) -> dict[str, Idx]:
    folder.mkdir(parents=True)
    arrays = (images[:train], labels[:train], images[train:], labels[train:])
    for name, array in zip(Idx.FILES, arrays, strict=True):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        (folder / name).write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))
    checksums = tuple(sha256(folder / name) for name in Idx.FILES)
    return {"mnist": replace(IDX["mnist"], sha256=checksums)}


@pytest.mark.parametrize("place", ["", "MNIST/raw", "raw"])
def test_mnist_is_read_from_its_files_also_where_torchvision_keeps_them(tmp_path: Path, place: str) -> None:
    images, labels = _random.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40) % 10
    table = idx_files(tmp_path / "mnist" / place, images, labels, 30)
    source = load_idx(Data(source="mnist", path=str(tmp_path / "mnist")), table)
    np.testing.assert_array_equal(source.parts["train"].images[..., 0], images[:30])
    np.testing.assert_array_equal(source.parts["test"].labels, labels[30:])


def mnist_source(tmp_path: Path, monkeypatch, images: np.ndarray) -> None:
    table = idx_files(tmp_path / "mnist", images, np.arange(len(images)) % 10, len(images) // 2)
    monkeypatch.setattr(preparing, "load", lambda settings, _: load_idx(settings, table))


def test_overlap_of_published_splits_is_a_warning_in_the_manifest(tmp_path: Path, monkeypatch) -> None:
    images = _random.integers(0, 256, (80, 28, 28), dtype=np.uint8)
    images[75] = images[5]
    mnist_source(tmp_path, monkeypatch, images)
    manifest = prepare(Data(source="mnist", path=str(tmp_path / "mnist")), tmp_path / "out", module_roots=[])
    assert len(manifest.warnings) == 1 and "1 images of test are also in " in manifest.warnings[0]
    assert manifest.splits["test"].count == 40
    open_store(tmp_path / "out").verify()


def test_the_validation_split_comes_from_the_official_training_images(tmp_path: Path, monkeypatch) -> None:
    images = _random.integers(0, 256, (120, 28, 28), dtype=np.uint8)
    mnist_source(tmp_path, monkeypatch, images)
    manifest = prepare(Data(source="mnist", path=str(tmp_path / "mnist")), tmp_path / "out", module_roots=[])
    store = open_store(tmp_path / "out")
    np.testing.assert_array_equal(store.split("test").images[..., 0], images[60:])
    assert {name: one.count for name, one in manifest.splits.items()} == {
        "train": 50,
        "validation": 10,
        "test": 60,
    }
    assert manifest.warnings == []


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path):
    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as running:
        Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield tmp_path / "served", f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def download(cifar, server, tmp_path: Path, **settings) -> Source:
    path, _, table = cifar
    _, address = server
    one = replace(table["cifar10"].archive, url=f"{address}/{path.name}")
    wanted = Data(source="cifar10", path=str(tmp_path / "fetched"), **settings)
    return load_cifar(wanted, {"cifar10": replace(table["cifar10"], archive=one)})


def test_files_are_downloaded_only_where_the_user_says_so(cifar, server, tmp_path: Path) -> None:
    cifar[0].rename(server[0] / cifar[0].name)
    with pytest.raises(DataError, match="files are missing"):
        download(cifar, server, tmp_path)
    assert not (tmp_path / "fetched").exists()
    assert len(download(cifar, server, tmp_path, download=True).parts["train"].labels) == 50
    assert [path.name for path in (tmp_path / "fetched").iterdir()] == [cifar[0].name]


def test_a_damaged_download_leaves_no_file(cifar, server, tmp_path: Path) -> None:
    (server[0] / cifar[0].name).write_bytes(b"an error page")
    with pytest.raises(DataError, match="SHA-256"):
        download(cifar, server, tmp_path, download=True)
    assert list((tmp_path / "fetched").iterdir()) == []


def test_a_download_that_fails_says_what_to_do(cifar, server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be downloaded \(.*404.*put it at .*SHA-256"):
        download(cifar, server, tmp_path, download=True)
