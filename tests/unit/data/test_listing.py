"""A folder of images that changed is told apart from one that did not."""

from pathlib import Path

import pytest

from assay.data import listing
from assay.data.listing import listing_sha256


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("cat/1.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"image")
    return tmp_path


def test_names_and_sizes_count_and_times_do_not(images: Path) -> None:
    first = listing_sha256(images)
    (images / "cat/1.png").touch()
    assert listing_sha256(images) == first
    (images / "cat/1.png").write_bytes(b"another")
    second = listing_sha256(images)
    (images / "dog/2.png").write_bytes(b"image")
    third = listing_sha256(images)
    (images / "cat/1.png").rename(images / "dog/3.png")
    assert len({first, second, third, listing_sha256(images)}) == 4


def test_of_very_many_files_names_alone_count(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_SIZED", 1)
    first = listing_sha256(images)
    (images / "cat/1.png").write_bytes(b"another")
    assert listing_sha256(images) == first
    (images / "cat/1.png").unlink()
    assert listing_sha256(images) != first


def test_no_folder_is_no_listing(tmp_path: Path) -> None:
    assert listing_sha256(None) == listing_sha256(tmp_path / "nowhere") == ""
