"""The hash by which code counts: names and contents, nothing else."""

import os
from pathlib import Path

import pytest

from assay import sources


def package(root: Path) -> Path:
    folder = root / "src" / "assay"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "store.py").write_text("a = 1\n")
    (folder / "records.py").write_text("b = 1\n")
    (folder / "notes.txt").write_text("not code\n")
    return folder


def test_the_hash_follows_names_and_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = package(tmp_path)
    monkeypatch.setattr(sources, "PACKAGE", folder)

    def hashes() -> list[str]:
        sources.sources_sha256.cache_clear()
        asked = [(), ("data",), ("records",), ("data", "records"), ("records.py", "data/store.py")]
        return [sources.sources_sha256(names) for names in asked]

    first = hashes()
    (folder / "notes.txt").write_text("changed\n")
    (folder / "data" / "__pycache__").mkdir()
    (folder / "data" / "__pycache__" / "store.pyc").write_text("")
    os.utime(folder / "records.py", (0, 0))
    assert hashes() == first and first[0] == first[3] == first[4] and first[1] != first[2]
    (folder / "data" / "store.py").write_text("a = 2\n")
    changed = hashes()
    assert [a == b for a, b in zip(first, changed, strict=True)] == [False, False, True, False, False]
    (folder / "data" / "store.py").rename(folder / "data" / "shop.py")
    sources.sources_sha256.cache_clear()
    assert sources.sources_sha256(("data",)) != changed[1]
    with pytest.raises(ValueError, match="no 'dta'"):
        sources.sources_sha256(("dta",))


@pytest.mark.parametrize("stage", sources.STAGES)
def test_every_stage_names_files_that_exist(stage: str) -> None:
    assert len(sources.stage_sha256(stage)) == 64


def test_training_does_not_hang_on_a_plot(tmp_path: Path) -> None:
    assert not any("reporting" in name for name in sources.STAGES["train"])
    assert sources.stage_sha256("train") != sources.stage_sha256("report")
