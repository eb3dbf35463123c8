"""Image folders in ImageNet's layout, and decoding against torchvision."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assay.config.schema import Data
from assay.data import write
from assay.data.images import decode, fit
from assay.data.prepare import prepare
from assay.data.sources.base import DataError
from assay.data.store import open_store

_random = np.random.default_rng(0)


def picture(path: Path, size: tuple[int, int] = (20, 16), suffix: str = ".png", mode: str = "RGB") -> Path:
    path = path.with_suffix(suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = (3,) if mode == "RGB" else ()
    Image.fromarray(_random.integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)).save(path)
    return path


def folder(
    root: Path, splits: tuple[str, ...] = (), classes: tuple[str, ...] = ("cat", "dog"), count: int = 10
) -> Path:
    for split in splits or ("",):
        for name in classes:
            for number in range(count):
                picture(root / split / name / f"{number}", size=(15 + number, 30 - number))
    return root


def prepared(root: Path, target: Path, **settings):
    return prepare(Data(source="folder", path=str(root), image_size=12, **settings), target, module_roots=[])


def test_a_flat_folder_is_divided(tmp_path: Path) -> None:
    manifest = prepared(folder(tmp_path / "in"), tmp_path / "out")
    assert manifest.image_shape == (12, 12, 3) and manifest.classes == ["cat", "dog"]
    assert {name: summary.class_counts for name, summary in manifest.splits.items()} == {
        "test": [2, 2],
        "validation": [1, 1],
        "train": [7, 7],
    }
    open_store(tmp_path / "out").verify()
    assert not list((tmp_path / "out").glob("*pool*"))


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_own_splits_are_kept_and_pixels_are_those_of_each_file(tmp_path: Path, validation: str) -> None:
    root = folder(tmp_path / "in", ("train", validation, "test"), count=3)
    manifest = prepared(root, tmp_path / "out")
    store = open_store(tmp_path / "out")
    for split, name in (("train", "train"), ("validation", validation), ("test", "test")):
        files = [root / name / label / f"{number}.png" for label in ("cat", "dog") for number in range(3)]
        expected = np.stack([np.asarray(fit(Image.open(file), 12)) for file in files])
        np.testing.assert_array_equal(store.split(split).images, expected)
        assert store.split(split).labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert sorted(manifest.sources) == ["test files", "train files", "validation files"]


def test_lists_of_checksums_are_as_sha256sum_writes_them(tmp_path: Path) -> None:
    import subprocess

    root = folder(tmp_path / "in", count=5)
    manifest = prepared(root, tmp_path / "out")
    command = "find . -name '*.png' | sed 's:^./::' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    listed = subprocess.run(
        ["sh", "-c", command], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert manifest.sources["train files"] == listed.split()[0]


@pytest.mark.parametrize("size", [(40, 27), (27, 40), (12, 12), (13, 12), (8, 9)])
def test_resizing_equals_torchvisions(tmp_path: Path, size: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    path = picture(tmp_path / "image", size, ".jpg")
    expected = transforms.Compose([transforms.Resize(12), transforms.CenterCrop(12)])(Image.open(path))
    np.testing.assert_array_equal(decode(path.read_bytes(), path, 12), np.asarray(expected))


def test_grey_palette_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    grey = picture(tmp_path / "grey", mode="L")
    assert decode(grey.read_bytes(), grey, 8).shape == (8, 8, 3)
    for mode in ("P", "RGBA", "1", "CMYK"):
        path = tmp_path / f"{mode}.tif"
        Image.open(grey).convert(mode).save(path)
        assert decode(path.read_bytes(), path, 8).shape == (8, 8, 3)


def test_more_than_eight_bits_are_refused_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(_random.integers(0, 65536, (9, 9), dtype=np.uint16)).save(path)
    with pytest.raises(DataError, match=r"deep\.png: more than 8 bits"):
        decode(path.read_bytes(), path, 8)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no image"])
def test_a_damaged_image_is_named(tmp_path: Path, damage) -> None:
    root = folder(tmp_path / "in")
    path = root / "dog" / "4.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"dog/4\.png: damaged or no image"):
        prepared(root, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    path = picture(tmp_path / "cut", (64, 64), ".jpg")
    with pytest.raises(DataError, match=r"cut\.jpg"):
        decode(path.read_bytes()[:-400], path, 8)


def test_one_image_in_two_splits_is_refused_with_both_names(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", ("train", "val", "test"), count=3)
    (root / "test" / "dog" / "new.png").write_bytes((root / "train" / "cat" / "1.png").read_bytes())
    with pytest.raises(DataError, match=r"test/dog/new\.png is .*train/cat/1\.png; remove"):
        prepared(root, tmp_path / "out")


def test_the_same_pixels_in_another_file_format_are_found_too(tmp_path: Path) -> None:
    root = folder(tmp_path / "in", ("train", "val", "test"), count=3)
    Image.open(root / "train" / "cat" / "1.png").save(root / "val" / "dog" / "new.bmp")
    with pytest.raises(DataError, match=r"val/dog/new\.bmp is .*train/cat/1\.png"):
        prepared(root, tmp_path / "out")


def test_copies_in_a_flat_folder_stay_together(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    (root / "cat" / "copy.png").write_bytes((root / "cat" / "3.png").read_bytes())
    manifest = prepared(root, tmp_path / "out")
    assert any(
        "cat/copy.png is" in warning and "1 images are copies" in warning for warning in manifest.warnings
    )


def test_other_files_are_left_out_and_reported(tmp_path: Path) -> None:
    root = folder(tmp_path / "in")
    (root / "cat" / "notes.txt").write_text("x")
    (root / "cat" / ".hidden.png").write_text("x")
    manifest = prepared(root, tmp_path / "out")
    assert manifest.warnings == ["1 files are no images and were left out, e.g. cat/notes.txt"]


def test_layouts_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", ("train", "val", "validation"), count=2)
    with pytest.raises(DataError, match="both val/ and validation/"):
        prepared(root, tmp_path / "out")
    root = folder(tmp_path / "b", ("train", "dev"), count=2)
    with pytest.raises(DataError, match="dev: beside train/ only"):
        prepared(root, tmp_path / "out")
    root = folder(tmp_path / "c", ("train",), count=2)
    picture(root / "val" / "bird" / "1")
    with pytest.raises(DataError, match="val/bird: a class that train/ lacks"):
        prepared(root, tmp_path / "out")
    root = folder(tmp_path / "d", ("train",), count=4)
    picture(root / "test" / "1")
    with pytest.raises(DataError, match="'test' is empty"):
        prepared(root, tmp_path / "out")
    root = folder(tmp_path / "e")
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="'empty' has no training image"):
        prepared(root, tmp_path / "out")
    (tmp_path / "f").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        prepared(tmp_path / "f", tmp_path / "out")


def test_settings_that_a_folder_needs_are_named(tmp_path: Path) -> None:
    for settings, message in (
        (Data(source="folder"), "data.path"),
        (Data(source="folder", path=str(tmp_path)), "data.image_size"),
        (Data(source="folder", path=str(tmp_path / "none"), image_size=8), "no such folder"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(settings, tmp_path / "out", module_roots=[])


def test_images_are_read_in_chunks(tmp_path: Path, monkeypatch) -> None:
    """No more than a chunk is held at once, and chunks change nothing."""
    from assay.data.sources.folder import FolderPart

    root = folder(tmp_path / "in", ("train", "val", "test"), count=6)
    whole = prepared(root, tmp_path / "whole")
    sizes, read = [], FolderPart.read
    monkeypatch.setattr(
        FolderPart, "read", lambda part, indices: sizes.append(len(indices)) or read(part, indices)
    )
    monkeypatch.setattr(write, "CHUNK_BYTES", 5 * 12 * 12 * 3)
    assert prepared(root, tmp_path / "chunked") == whole
    assert max(sizes) == 5 and len(sizes) == 9
