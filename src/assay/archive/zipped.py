"""Zip files: written so that the same content gives the same bytes, and looked at before anything is taken out."""

import os
import re
import shutil
import stat
import struct
import tempfile
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

TIME = (1980, 1, 1, 0, 0, 0)
"""Of every file: what time says is in the records."""
MODE = stat.S_IFREG | 0o644
PACKED = (".parquet", ".png", ".pdf", ".gz", ".safetensors", ".sif", ".npy")
"""Would not get smaller: stored as they are."""
NESTED = (".zip", ".tar", ".tgz", ".txz", ".tbz", ".tbz2", ".7z", ".rar", ".whl", ".jar", ".egg")
MOST_FILES = 200_000
MOST_RATIO = 200
"""Bytes taken out for each byte of the archive. Logs reach about 20, the method at most 1,032."""
ALLOWANCE = 64 << 20
"""Bytes that may come out of any archive, however small."""
_COMMENT = len("sha256:") + 64
_LOCAL_HEADER = 30
_BLOCK = 1 << 20


class ArchiveError(ValueError):
    """An archive that is not taken out: damaged, or made to do harm."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and the file that it is about."""

    file: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


# --- writing --------------------------------------------------------------------------------------------


def write(path: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write `files` (name in the archive: content, or the file that has it) to `path`, whole or not at all.

    The comment of the zip file is the SHA-256 of what is before it, so that no bit of it changes unseen.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            with ZipFile(file, "w") as archive:
                archive.comment = bytes(_COMMENT)
                for place in sorted(files):
                    _add(archive, place, files[place])
            digest = _digest(file)
            file.seek(-_COMMENT, os.SEEK_END)
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _add(archive: ZipFile, place: str, content: bytes | Path) -> None:
    info = _header(place)
    if isinstance(content, bytes):
        archive.writestr(info, content)
        return
    info.file_size = content.stat().st_size
    with content.open("rb") as source, archive.open(info, "w") as target:
        shutil.copyfileobj(source, target, _BLOCK)


def _digest(file: IO[bytes]) -> bytes:
    """Comment of a zip file: the SHA-256 of all its bytes before the comment."""
    left = file.seek(0, os.SEEK_END) - _COMMENT
    file.seek(0)
    digest = sha256()
    while block := file.read(min(_BLOCK, left)):
        digest.update(block)
        left -= len(block)
    return b"sha256:" + digest.hexdigest().encode()


def _header(place: str) -> ZipInfo:
    info = ZipInfo(place, TIME)
    info.compress_type = ZIP_STORED if place.endswith(PACKED) else ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = MODE << 16
    return info


# --- before anything is taken out -----------------------------------------------------------------------


def opened(path: Path) -> ZipFile:
    """Raises: ArchiveError where it is no whole zip file."""
    try:
        return ZipFile(path)
    except FileNotFoundError:
        raise ArchiveError(f"{path}: no such file; name an archive, e.g. NAME.crate.zip") from None
    except (BadZipFile, struct.error, OSError, ValueError, NotImplementedError) as error:
        raise ArchiveError(
            f"{path}: is no whole zip file ({error}): it was cut off or damaged; get it again"
        ) from None


def dangers(archive: ZipFile) -> Iterator[Problem]:
    """Reasons not to take anything out of it."""
    infos = archive.infolist()
    if len(infos) > MOST_FILES:
        yield Problem("the archive", f"has {len(infos):,} files; more than {MOST_FILES:,} are not taken out")
        return
    names: dict[str, str] = {}
    folders = {str(folder) for info in infos for folder in PurePosixPath(info.filename).parents}
    for info in infos:
        name, shown = info.filename, printable(info.filename)
        if (why := _bad_name(info)) is not None:
            yield Problem(shown, why)
        if (same := names.setdefault(unicodedata.normalize("NFC", name), name)) is not name:
            yield Problem(shown, f"is there twice, as {printable(same)}")
        if name in folders:
            yield Problem(shown, "is a file and a folder at once")
        if info.flag_bits & 0x1:
            yield Problem(shown, "is encrypted")
        if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            yield Problem(shown, f"is packed by method {info.compress_type}; stored and deflate are read")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            yield Problem(shown, "is a link or a device, no plain file")
        if name.lower().endswith(NESTED):
            yield Problem(shown, "is an archive in the archive")
    yield from _bomb(archive, infos)


def _bad_name(info: ZipInfo) -> str | None:
    """Why a file of this name is not written anywhere."""
    name = info.filename
    parts = name.split("/")
    if info.orig_filename != name or any(unicodedata.category(letter) == "Cc" for letter in name):
        return "has a control character in its path"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "has an absolute path"
    if "\\" in name:
        return "has a backslash in its path"
    if ".." in parts:
        return "has '..' in its path: it would be written outside"
    if "" in parts or "." in parts or any(len(part.encode()) > 255 for part in parts):
        return "has a path that names no plain file"
    return None


def _bomb(archive: ZipFile, infos: list[ZipInfo]) -> Iterator[Problem]:
    """Whether it is larger than its bytes allow: too dense, or the same bytes for several files."""
    size = _size(archive)
    total = sum(info.file_size for info in infos)
    if total > ALLOWANCE + MOST_RATIO * size:
        largest = max(infos, key=lambda info: info.file_size)
        yield Problem(
            printable(largest.filename),
            f"is {largest.file_size:,} bytes of {total:,} in an archive of {size:,}: more than {MOST_RATIO} to one are "
            "not taken out",
        )
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            yield Problem(printable(info.filename), "lies over another file's bytes")
        end = info.header_offset + _LOCAL_HEADER + len(_encoded(info)) + info.compress_size
    if end > archive.start_dir:
        yield Problem("the archive", "its files reach beyond its end")


def undigested(archive: ZipFile) -> Iterator[Problem]:
    """Whether its bytes are those that `write` left: content, headers and what no program reads."""
    if not re.fullmatch(rb"sha256:[0-9a-f]{64}", archive.comment):
        yield Problem(
            "the archive", "has no digest at its end: another program packed it, or its end is damaged"
        )
    else:
        assert archive.fp is not None
        if _digest(archive.fp) != archive.comment:
            yield Problem("the archive", "its bytes are not those of the digest at its end: it is damaged")


def _encoded(info: ZipInfo) -> bytes:
    return info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437", "replace")


def _size(archive: ZipFile) -> int:
    assert archive.fp is not None
    return archive.fp.seek(0, os.SEEK_END)


def printable(name: str) -> str:
    """On one line of a terminal, whatever a stranger put into it."""
    text = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in name)
    return text if len(text) <= 200 else f"{text[:197]}…"


# --- taking out -----------------------------------------------------------------------------------------


def extract(archive: ZipFile, folder: Path) -> Iterator[Problem]:
    """Take out an archive without dangers into an empty folder. Yields files whose bytes are damaged; they are left out."""
    for info in archive.infolist():
        target = folder / info.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with archive.open(info) as source, target.open("xb") as file:
                left = info.file_size
                while block := source.read(min(_BLOCK, left + 1)):
                    left -= len(block)
                    if left < 0:
                        raise BadZipFile("more bytes than its header says")
                    file.write(block)
                if left:
                    raise BadZipFile("fewer bytes than its header says")
        except (BadZipFile, zlib.error, EOFError, struct.error, RuntimeError, ValueError) as error:
            target.unlink(missing_ok=True)
            yield Problem(printable(info.filename), f"is damaged: {error}")
