"""Logs that are rotated: moved aside where writers open them by name, copied and emptied where they do not."""

import os
from pathlib import Path

import pytest

from assay.release.routing.rotation import cut, shift


@pytest.mark.parametrize("rotate", [shift, cut])
def test_the_newest_old_ones_are_kept(rotate: object, tmp_path: Path) -> None:
    assert callable(rotate)
    log = tmp_path / "log"
    for text in ("aaaa", "bbbb", "cccc", "dddd"):
        log.write_text(text)
        assert not rotate(log, 5, 2) and log.read_text() == text
        assert rotate(log, 4, 2)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()} | {"log": ""}
    assert found == {"log": "", "log.1": "dddd", "log.2": "cccc"}
    log.unlink(missing_ok=True)
    assert not rotate(log, 0, 2)
    log.symlink_to("/dev/full")
    assert not rotate(log, 0, 2)


def test_a_writer_that_has_it_open_goes_on_in_the_same_file(tmp_path: Path) -> None:
    log = tmp_path / "log"
    writer = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(writer, b"first\n")
    assert cut(log, 1, 3)
    os.write(writer, b"second\n")
    os.close(writer)
    assert (log.read_text(), (tmp_path / "log.1").read_text()) == ("second\n", "first\n")


def test_without_room_for_a_copy_the_log_is_left_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("first\n")
    (tmp_path / "log.1").write_text("older\n")
    (tmp_path / ".log.copied").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        cut(log, 1, 3)
    assert (log.read_text(), (tmp_path / "log.1").read_text()) == ("first\n", "older\n")
