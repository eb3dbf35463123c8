"""Copies of requests: handed over without waiting, lost where they must be, and counted."""

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from assay.release.layout import Layout
from assay.release.routing.copies import DIRECT, Copies, received, receiver, unpacked
from assay.release.routing.processes import ended, send, wait_for
from assay.release.routing.shadower import Shadower

HEADERS = {
    b"authorization": b"Bearer x",
    b"x-request-id": b"r",
    b"cookie": b"secret",
    b"content-type": b"a/b",
}


def counting(path: Path) -> tuple[Copies, Counter[str]]:
    counts: Counter[str] = Counter()
    return Copies(path, lambda outcome: counts.update([outcome])), counts


@pytest.mark.parametrize("size", [5, DIRECT - 500, DIRECT, DIRECT + 1, 20_000_000])
def test_a_copy_has_the_body_and_the_headers_that_count(size: int, tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    body = b"\x00" + b"b" * (size - 1)
    before = open_files()
    with receiver(folder / "queue") as socket:
        assert (folder / "queue").stat().st_mode & 0o077 == 0
        copies, counts = counting(folder / "queue")
        copies.offer(HEADERS, body)
        headers, copied = received(socket)
    assert copied == body
    assert headers == {
        "authorization": "Bearer x",
        "content-type": "a/b",
        "x-request-id": "r",
        "x-assay-lost": "0",
    }
    assert counts == {"handed": 1}
    assert open_files() <= before + 1, "that of the sender"


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("size", [1, DIRECT + 1])
def test_a_full_queue_loses_at_once(size: int, tmp_path: Path) -> None:
    with receiver(tmp_path / "queue") as socket:
        copies, counts = counting(tmp_path / "queue")
        before = open_files()
        for _ in range(2_000):
            copies.offer(HEADERS, bytes(size))
        assert counts["handed"] >= 1 and counts.total() == 2_000 and counts["lost"] > 500
        assert open_files() <= before + 1
        lost = counts["lost"]
        for _ in range(counts["handed"]):
            assert received(socket)[0]["x-assay-lost"] == "0"
        copies.offer(HEADERS, bytes(size))
        assert received(socket)[0]["x-assay-lost"] == str(lost), "the first that comes says how many did not"
        copies.offer(HEADERS, bytes(size))
        assert received(socket)[0]["x-assay-lost"] == "0"


def test_nobody_there_and_somebody_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.release.routing.copies.NOBODY_SECONDS", 0.0)
    copies, counts = counting(tmp_path / "queue")
    copies.offer(HEADERS, b"1")
    with receiver(tmp_path / "queue"):
        copies.offer(HEADERS, b"2")
    copies.offer(HEADERS, b"3")
    with receiver(tmp_path / "queue") as socket:
        copies.offer(HEADERS, b"4")
        assert received(socket)[1] == b"4"
        with pytest.raises(BlockingIOError):
            received(socket)
    assert counts == {"handed": 2, "lost": 2}


def test_nobody_is_not_looked_for_at_each_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.release.routing.copies.NOBODY_SECONDS", 3600.0)
    copies, counts = counting(tmp_path / "queue")
    copies.offer(HEADERS, b"1")
    with receiver(tmp_path / "queue"):
        copies.offer(HEADERS, b"2")
    assert counts == {"lost": 2}


@pytest.mark.parametrize(
    "datagram", [b"", b"abc", b"\xff\xff\xff\xffx", b"\x02\x00\x00\x00[]", b"\x01\x00\x00\x00{"]
)
def test_what_is_no_copy(datagram: bytes) -> None:
    with pytest.raises(ValueError):
        unpacked(datagram)


def test_a_shadow_that_ended_a_moment_ago_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the controller, which asked it to end."""
    with subprocess.Popen([sys.executable, "-c", ""]) as program:
        program.wait()
    shadower = Shadower(Layout(tmp_path))
    monkeypatch.setattr(shadower, "running", lambda: program.pid)
    shadower.stop()


def test_a_shadow_that_nobody_knows_of_ends_when_another_takes_its_place(tmp_path: Path) -> None:
    """As where the controller was killed between starting it and writing down which process it is."""
    shadower, pid = Shadower(Layout(tmp_path)), tmp_path / "run" / "shadow.pid"
    first = shadower.ensure()
    try:
        pid.unlink()
        second = shadower.ensure()
        assert second != first and wait_for(lambda: ended(first), 300.0)
        assert shadower.running() == second and Layout(tmp_path).shadow_queue.exists()
    finally:
        send(first, signal.SIGKILL)
        shadower.stop()
