"""Who asks, kept by the workers of Assay's own front together: what one was told, the others know."""

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from assay.release.routing import identities, upstream
from assay.release.routing.identities import FILE, Identities, forget
from assay.release.routing.upstream import Versions

USER = "0123456789abcdef" * 2


class Service:
    """An identity service that counts: whoever says `Bearer` and a number of seconds is known for as long."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, _, seconds = self.headers["Authorization"].partition(" ")
                service.asked.append(seconds)
                self.send_response(200 if seconds else 401)
                self.send_header("X-Assay-User", USER)
                self.send_header("X-Accel-Expires", seconds)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing: the tests' output is theirs."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """It is waited for: that a front does not wait for it long is not what is tested here."""
    monkeypatch.setattr(identities, "SECONDS", 60.0)
    monkeypatch.setattr(upstream, "CONNECT_SECONDS", 60.0)
    service = Service()
    yield service
    service.stop()


def user(service: Service, path: Path, said: bytes, salt: str = "") -> str:
    """As one worker finds it that has not seen anyone before."""

    async def ask() -> str:
        return await Identities(Versions(), path).user(service.address, said, salt)

    return asyncio.run(ask())


def test_what_one_worker_was_told_another_knows_when_the_service_has_gone(
    service: Service, tmp_path: Path
) -> None:
    path = tmp_path / FILE
    assert user(service, path, b"Bearer 60") == USER
    assert user(service, path, b"Bearer 60") == USER
    assert service.asked == ["60"]
    service.stop()
    assert user(service, path, b"Bearer 60") == USER
    assert user(service, path, b"Bearer 61") == "", "nobody is there to say who that is"
    forget(tmp_path)
    assert list(tmp_path.iterdir()) == [] and user(service, path, b"Bearer 60") == ""


def test_an_answer_ends_when_its_service_says(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / FILE, [1000.0]
    monkeypatch.setattr(identities.time, "time", lambda: now[0])
    for moment, times in ((1000.0, 1), (1059.9, 1), (1060.0, 2)):
        now[0] = moment
        assert user(service, path, b"Bearer 60") == USER and len(service.asked) == times


def test_another_release_asks_for_itself(service: Service, tmp_path: Path) -> None:
    for salt in ("a", "b", "a", "b"):
        assert user(service, tmp_path / FILE, b"Bearer 60", salt) == USER
    assert len(service.asked) == 2


@pytest.mark.parametrize("said", ["", USER[1:], USER.upper(), USER + "0", "x; y"])
def test_what_is_no_digest_is_nobody(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """It goes into logs, and decides who has which version."""
    monkeypatch.setattr(sys.modules[__name__], "USER", said)
    assert user(service, tmp_path / FILE, b"Bearer 60") == ""


@pytest.mark.parametrize("said", [b"Bearer 0", b"Bearer x", b"Bearer"])
def test_what_may_not_be_kept_is_not(service: Service, tmp_path: Path, said: bytes) -> None:
    for _ in range(2):
        assert user(service, tmp_path / FILE, said) == ("" if said == b"Bearer" else USER)
    assert len(service.asked) == 2


def test_those_over_are_forgotten_and_beyond_the_most_those_that_end_first(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "MOST", 3)
    monkeypatch.setattr(identities.time, "time", lambda: 1000.0)
    for seconds in (50, 10, 40, 30, 20):
        user(service, tmp_path / FILE, b"Bearer %d" % seconds)
    with sqlite3.connect(tmp_path / FILE) as database:
        assert list(database.execute("SELECT until FROM kept ORDER BY until")) == [(1030,), (1040,), (1050,)]
    monkeypatch.setattr(identities.time, "time", lambda: 1040.0)
    user(service, tmp_path / FILE, b"Bearer 5")
    with sqlite3.connect(tmp_path / FILE) as database:
        assert list(database.execute("SELECT until FROM kept ORDER BY until")) == [(1045,), (1050,)]


def test_no_token_and_nothing_that_becomes_one_is_in_the_file(service: Service, tmp_path: Path) -> None:
    user(service, tmp_path / FILE, b"Bearer 6012345")
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert USER.encode() in kept and b"6012345" not in kept


@pytest.mark.parametrize("damage", ["not a database", "a folder", "nowhere", "held"])
def test_a_file_that_cannot_be_had_costs_a_question(service: Service, tmp_path: Path, damage: str) -> None:
    path, holder = tmp_path / FILE, None
    if damage == "not a database":
        path.write_bytes(b"x" * 8192)
    elif damage == "a folder":
        path.mkdir()
    elif damage == "nowhere":
        path = tmp_path / "none" / FILE
    else:
        user(service, path, b"Bearer 1")
        holder = sqlite3.connect(path)
        holder.execute("BEGIN EXCLUSIVE")
    before = len(service.asked)
    for _ in range(2):
        assert user(service, path, b"Bearer 60") == USER
    assert len(service.asked) == before + 2
    if holder is not None:
        holder.close()
