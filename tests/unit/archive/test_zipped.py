"""The zip file of an archive: the same bytes each time, and nothing taken out of one that would do harm."""

import random
import shutil
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.archive import zipped
from assay.archive.reading import contents, extracted
from assay.archive.zipped import ArchiveError

FILES: dict[str, bytes] = {
    "results/tiny/experiment.yaml": b"name: tiny\n" * 20,
    "results/tiny/runs/größer/seed-0/train/log.jsonl": b"{}\n" * 100,
    "results/tiny/report/figures/a.png": bytes(range(256)),
    "SHA256SUMS": b"",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.crate.zip"
    zipped.write(path, FILES)
    return path


def problems(path: Path) -> str:
    """All that is found wrong with it, however it is found."""
    try:
        with contents(path, tolerant=True) as found:
            return "\n".join(map(str, found.problems))
    except ArchiveError as error:
        return str(error)


def test_the_same_content_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    source = tmp_path / "source"
    source.write_bytes(FILES["results/tiny/experiment.yaml"])
    source.touch()
    zipped.write(again, dict(reversed(FILES.items())) | {"results/tiny/experiment.yaml": source})
    assert again.read_bytes() == archive.read_bytes()
    assert {info.date_time for info in zipfile.ZipFile(archive).infolist()} == {zipped.TIME}


def test_what_was_written_is_taken_out(archive: Path) -> None:
    assert problems(archive) == ""
    with extracted(archive) as results:
        assert results.name == "tiny"
        found = {path.relative_to(results.parents[1]).as_posix() for path in results.rglob("*.*")}
        assert (results / "experiment.yaml").read_bytes() == FILES["results/tiny/experiment.yaml"]
    assert found == {name for name in FILES if name.startswith("results/")}
    assert not results.exists(), "it is removed"


def test_every_flipped_bit_is_found(archive: Path, tmp_path: Path) -> None:
    """Wherever it lies: in a file, in its header, in the list of files, in the end."""
    content = archive.read_bytes()
    bad = tmp_path / "bad.zip"
    choice = random.Random(7)
    padding = content.index(b"PK\3\4", 4) - 1  # its last bits are read by no program
    assert content[padding] >> 2 == 0
    places = [padding, *choice.sample(range(len(content)), 80)]
    unseen = []
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 128 if place == padding else 1 << choice.randrange(8)
        bad.write_bytes(changed)
        if not problems(bad):
            unseen.append(place)
    assert unseen == []


def test_a_damaged_file_is_named(archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    changed = content.replace(bytes(range(100, 120)), bytes(20))
    assert changed != content
    bad = tmp_path / "bad.zip"
    bad.write_bytes(changed)
    assert problems(bad).startswith("results/tiny/report/figures/a.png: is damaged")
    with pytest.raises(ArchiveError, match=r"figures/a\.png: is damaged"), extracted(bad):
        pass


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.999])
def test_a_cut_off_file_is_found(archive: Path, tmp_path: Path, share: float) -> None:
    content = archive.read_bytes()
    bad = tmp_path / "bad.zip"
    bad.write_bytes(content[: int(share * len(content))])
    assert ("is no whole zip file" if share < 0.9 else "its end is damaged") in problems(bad)


@pytest.mark.parametrize("words", ["more", "PK\5\6"])
def test_bytes_beside_the_files_are_found(archive: Path, tmp_path: Path, words: str) -> None:
    for name, content in {
        "before": words.encode() + archive.read_bytes(),
        "after": archive.read_bytes() + words.encode(),
    }.items():
        bad = tmp_path / f"{name}.zip"
        bad.write_bytes(content)
        assert problems(bad), name


def crafted(
    path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes], kind: int = zipfile.ZIP_STORED
) -> Path:
    """A zip that another program made, beside what belongs in it."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", kind) as archive:
        warnings.simplefilter("ignore")
        archive.writestr("results/tiny/experiment.yaml", "name: tiny\n")
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("../evil", "'..' in its path"),
        ("results/../../evil", "'..' in its path"),
        ("/etc/evil", "absolute path"),
        ("C:/evil", "absolute path"),
        ("results\\..\\evil", "backslash"),
        ("results//evil", "names no plain file"),
        ("results/./evil", "names no plain file"),
        ("results/evil/", "names no plain file"),
        ("results/ev\x1b[2Jil", "control character"),
        ("results/" + "e" * 300, "names no plain file"),
        ("results/evil.zip", "an archive in the archive"),
        ("results/tiny", "a file and a folder at once"),
        ("results/tiny/experiment.yaml", "is there twice"),
    ],
)
def test_a_crafted_path_is_refused(tmp_path: Path, name: str, what: str) -> None:
    bad = crafted(tmp_path / "bad.zip", (name, b"evil"))
    folder = tmp_path / "taken-out"
    folder.mkdir()
    with pytest.raises(ArchiveError) as refused, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(folder))
        with extracted(bad):
            pass
    assert what in str(refused.value) and "nothing was taken out" in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert list(folder.iterdir()) == [], "nothing was written"


def test_one_name_in_two_spellings_is_refused(tmp_path: Path) -> None:
    bad = crafted(tmp_path / "bad.zip", ("results/gr\u00f6\u00dfe", b""), ("results/gro\u0308\u00dfe", b""))
    assert "is there twice" in problems(bad)


def test_a_name_that_ends_early_is_refused(tmp_path: Path) -> None:
    bad = crafted(tmp_path / "bad.zip", ("results/evilX", b""))
    bad.write_bytes(bad.read_bytes().replace(b"evilX", b"ev\0lX"))
    assert "control character" in problems(bad)


def linked(archive: zipfile.ZipInfo) -> None:
    archive.external_attr = (stat.S_IFLNK | 0o777) << 16


def device(archive: zipfile.ZipInfo) -> None:
    archive.external_attr = (stat.S_IFBLK | 0o600) << 16


@pytest.mark.parametrize("make", [linked, device])
def test_links_and_devices_are_refused(tmp_path: Path, make: Callable[[zipfile.ZipInfo], None]) -> None:
    info = zipfile.ZipInfo("results/tiny/link")
    make(info)
    assert "results/tiny/link: is a link or a device" in problems(
        crafted(tmp_path / "bad.zip", (info, b"/etc/passwd"))
    )


def test_encrypted_and_oddly_packed_files_are_refused(tmp_path: Path) -> None:
    bad = crafted(tmp_path / "bad.zip", ("results/tiny/secret", b"x" * 50))
    content = bytearray(bad.read_bytes())
    for start in (content.rindex(b"PK\3\4") + 6, content.rindex(b"PK\1\2") + 8):
        content[start] |= 1
    bad.write_bytes(content)
    assert "results/tiny/secret: is encrypted" in problems(bad)
    odd = crafted(tmp_path / "odd.zip", ("results/tiny/odd", b"x" * 50), kind=zipfile.ZIP_BZIP2)
    assert "is packed by method 12" in problems(odd)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipped, "ALLOWANCE", 1 << 10)
    bomb = crafted(tmp_path / "bomb.zip", ("results/tiny/zeros", bytes(1 << 20)), kind=zipfile.ZIP_DEFLATED)
    assert "results/tiny/zeros: is 1,048,576 bytes of" in problems(bomb)
    monkeypatch.setattr(zipped, "MOST_FILES", 3)
    many = crafted(tmp_path / "many.zip", *((f"results/{number}", b"") for number in range(5)))
    assert "has 6 files; more than 3" in problems(many)


def test_files_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """How the densest bombs are made."""
    bad = crafted(tmp_path / "bad.zip", ("results/a", b"x" * 100), ("results/b", b"x" * 100))
    content = bytearray(bad.read_bytes())
    last, offset = content.rindex(b"PK\1\2"), content.index(b"results/a") - 30
    struct.pack_into("<L", content, last + 42, offset)
    bad.write_bytes(content)
    assert "lies over another file's bytes" in problems(bad)


def test_sizes_in_headers_are_not_believed(tmp_path: Path) -> None:
    bad = crafted(tmp_path / "bad.zip", ("results/tiny/liar", b"x" * 5000), kind=zipfile.ZIP_DEFLATED)
    content = bytearray(bad.read_bytes())
    start = content.rindex(b"PK\1\2")
    struct.pack_into("<L", content, start + 24, 100)
    bad.write_bytes(content)
    assert "results/tiny/liar" in problems(bad)


def test_what_is_no_archive_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no such file"), extracted(tmp_path / "none.zip"):
        pass
    (tmp_path / "text.zip").write_text("results")
    with pytest.raises(ArchiveError, match="no whole zip file"), extracted(tmp_path / "text.zip"):
        pass
    (tmp_path / "empty").mkdir()
    with (
        pytest.raises(ArchiveError, match="no archive and no folder of results"),
        extracted(tmp_path / "empty"),
    ):
        pass
    zipped.write(tmp_path / "other.zip", {"a.txt": b"a"})
    with pytest.raises(ArchiveError, match="no archive"), extracted(tmp_path / "other.zip"):
        pass
    zipped.write(tmp_path / "two.zip", {"results/a/experiment.yaml": b"", "results/b/experiment.yaml": b""})
    with pytest.raises(ArchiveError, match="results of 2 experiments: a, b"), extracted(tmp_path / "two.zip"):
        pass


def test_a_folder_stands_for_what_was_taken_out(archive: Path, tmp_path: Path) -> None:
    with contents(archive) as found:
        shutil.copytree(found.root, tmp_path / "copy")
    for folder in (tmp_path / "copy", tmp_path / "copy/results/tiny"):
        with extracted(folder) as results:
            assert (results / "experiment.yaml").is_file()
    assert (tmp_path / "copy").exists(), "what the user has stays"


def test_a_full_disk_is_told_before(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    with pytest.raises(ArchiveError, match="set TMPDIR"), extracted(archive):
        pass
