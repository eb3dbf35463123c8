"""Copies of requests: handed over without waiting, lost where they must be, and counted."""

import time
from pathlib import Path

import pytest

from assay.release.routing.copies import Copies, receiver, unpacked

HEADERS = {
    b"authorization": b"Bearer x",
    b"x-request-id": b"r",
    b"cookie": b"secret",
    b"content-type": b"a/b",
}


def test_a_copy_has_the_body_and_the_headers_that_count(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    with receiver(folder / "queue") as socket:
        assert (folder / "queue").stat().st_mode & 0o077 == 0
        copies = Copies(folder / "queue")
        copies.offer(HEADERS, b"\x00body")
        headers, body = unpacked(socket.recv(1 << 20))
    assert body == b"\x00body"
    assert headers == {"authorization": "Bearer x", "content-type": "a/b", "x-request-id": "r"}
    assert (copies.handed, copies.lost) == (1, 0)


def test_a_full_queue_and_a_large_body_are_lost_at_once(tmp_path: Path) -> None:
    with receiver(tmp_path / "queue") as socket:
        copies = Copies(tmp_path / "queue")
        copies.offer(HEADERS, bytes(50 * 1024 * 1024))
        assert (copies.handed, copies.lost) == (0, 1)
        began = time.monotonic()
        for _ in range(10_000):
            copies.offer(HEADERS, b"x")
        assert time.monotonic() - began < 10
        assert copies.handed >= 1 and copies.handed + copies.lost == 10_001 and copies.lost > 5_000
        socket.recv(1 << 20)
        copies.offer(HEADERS, b"y")
        assert copies.handed + copies.lost == 10_002 and copies.lost < 10_001


def test_nobody_there_and_somebody_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.release.routing.copies.NOBODY_SECONDS", 0.0)
    copies = Copies(tmp_path / "queue")
    copies.offer(HEADERS, b"1")
    with receiver(tmp_path / "queue"):
        copies.offer(HEADERS, b"2")
    copies.offer(HEADERS, b"3")
    with receiver(tmp_path / "queue") as socket:
        copies.offer(HEADERS, b"4")
        assert unpacked(socket.recv(1 << 20))[1] == b"4"
    assert (copies.handed, copies.lost) == (2, 2)


def test_nobody_is_not_looked_for_at_each_request(tmp_path: Path) -> None:
    copies = Copies(tmp_path / "queue")
    copies.offer(HEADERS, b"1")
    with receiver(tmp_path / "queue"):
        copies.offer(HEADERS, b"2")
    assert (copies.handed, copies.lost) == (0, 2)


@pytest.mark.parametrize(
    "datagram", [b"", b"abc", b"\xff\xff\xff\xffx", b"\x02\x00\x00\x00[]", b"\x01\x00\x00\x00{"]
)
def test_what_is_no_copy(datagram: bytes) -> None:
    with pytest.raises(ValueError):
        unpacked(datagram)
