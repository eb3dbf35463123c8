"""Limits per user, the salt, and what a version asks of a request altogether."""

import math
import multiprocessing
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from gunicorn.app.wsgiapp import WSGIApplication
from tokens_made import AUDIENCE, public_jwk, token, write_keys

from assay.release.layout import Layout
from assay.release.ports import free_port
from assay.release.routing.gunicorn import PythonFront
from assay.release.schema import Limits, Release, Routing, Serving
from assay.release.security import sources
from assay.release.security.admission import Admission
from assay.release.security.limits import UserLimit
from assay.release.security.refusal import Refusal
from assay.release.security.salt import make_salt, read_salt, user_digest
from assay.release.security.service import identity_process


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        monkeypatch.setattr(time, "time", lambda: self.now)


def allowed(limit: UserLimit, times: int, user: str = "u") -> int:
    count = 0
    for _ in range(times):
        try:
            limit.count(user)
            count += 1
        except Refusal:
            pass
    return count


def test_a_user_has_as_many_as_was_said_and_is_told_when_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    limit = UserLimit("5/minute", tmp_path / "limits", "stable")
    assert allowed(limit, 20) == 5
    assert allowed(limit, 20, "another") == 5
    assert allowed(limit, 20, "") == 20
    with pytest.raises(Refusal) as refused:
        limit.count("u")
    assert refused.value.status == 429
    again = int(dict(refused.value.headers)[b"retry-after"])
    assert 1 <= again <= 60
    clock.now += 61
    assert 0 <= allowed(limit, 20) <= 1
    clock.now += 120
    assert allowed(limit, 20) == 5


def test_no_minute_has_more_than_was_said_by_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst on each side of a window's border: a fixed window would let twice as many through."""
    clock = Clock(monkeypatch)
    limit = UserLimit("100/minute", tmp_path / "limits", "stable")
    clock.now = 60 * math.ceil(clock.now / 60) + 59.0
    assert allowed(limit, 200) == 100
    clock.now += 2
    assert allowed(limit, 200) <= 2


def test_versions_count_apart_and_workers_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    one, two = (UserLimit("5/hour", tmp_path / "limits", "stable") for _ in range(2))
    candidate = UserLimit("5/hour", tmp_path / "limits", "candidate")
    assert allowed(one, 3) + allowed(two, 20) == 5
    assert allowed(candidate, 20) == 5


def _hit(path: Path, begin: Any, results: Any) -> None:
    limit = UserLimit("500/hour", path, "stable")
    begin.wait()
    results.put(allowed(limit, 400))


def test_workers_that_count_at_the_same_time_let_through_no_more(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begin, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_hit, args=(tmp_path / "limits", begin, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    counted = sum(results.get(timeout=300) for _ in workers)
    for worker in workers:
        worker.join()
    hour = 3600
    crossed = time.time() % hour < 60  # a window may just have ended
    assert counted == 500 or (crossed and counted <= 1000)


def test_the_salt_is_drawn_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "r" / "salt"
    salt = make_salt(path)
    assert make_salt(path) == read_salt(path) == salt
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_text().strip()) == 32
    assert [one.name for one in path.parent.iterdir()] == ["salt"]
    path.chmod(0o644)
    with pytest.raises(ValueError, match="others may read it"):
        read_salt(path)
    path.chmod(0o600)
    path.write_text("too short\n")
    with pytest.raises(ValueError, match="32 hexadecimal"):
        make_salt(path)


def test_digests_are_those_of_rfc_2104() -> None:
    """By another implementation: `printf alice | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef`."""
    from cryptography.hazmat.primitives import hashes, hmac

    mac = hmac.HMAC(b"0123456789abcdef0123456789abcdef", hashes.SHA256())
    mac.update(b"alice")
    assert user_digest(b"0123456789abcdef0123456789abcdef", "alice") == mac.finalize().hex()[:32]


def test_what_is_asked_for_is_asked_of_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    jwks = write_keys(tmp_path / "jwks", public_jwk(key, "1"))
    make_salt(tmp_path / "salt")
    callers = tmp_path / "callers"
    callers.write_text("client " + "c" * 32 + "\n")
    callers.chmod(0o600)
    serving = Serving.model_validate(
        {
            "jwt": {"jwks": str(jwks), "algorithms": ["EdDSA"], "audience": AUDIENCE},
            "signatures": {"secrets": str(callers)},
            "limits": {"per_user": "2/hour"},
        }
    )
    admission = Admission(serving, "stable", tmp_path / "salt", tmp_path / "shared")
    bearer = [b"Bearer " + token(key)]
    users = {admission.identify(bearer) for _ in range(2)}
    assert users == {user_digest(read_salt(tmp_path / "salt"), "alice")}
    with pytest.raises(Refusal, match="2/hour"):
        admission.identify(bearer)
    with pytest.raises(Refusal):
        admission.identify([])
    with pytest.raises(Refusal):
        admission.check(b"POST", b"/predict", {}, b"", b"r")
    standing = admission.standings()
    assert standing["jwks"] == (True, pytest.approx(jwks.stat().st_mtime))
    assert standing["signatures"] == (True, pytest.approx(callers.stat().st_mtime))
    callers.write_text("half")
    monkeypatch.setattr(sources, "LOOK", 0.0)
    with pytest.raises(Refusal):
        admission.check(b"POST", b"/predict", {}, b"", b"r")
    assert not admission.standings()["signatures"].usable and admission.standings()["jwks"].usable
    admission.close()
    nothing = Admission(Serving(), "stable", None, None)
    assert nothing.identify([b"Bearer whatever"]) == ""
    nothing.check(b"POST", b"/predict", {}, b"", b"r")
    nothing.close()


@pytest.mark.parametrize(
    ("serving", "said"),
    [
        ({"jwt": {"jwks": "x", "algorithms": ["EdDSA"], "audience": "a"}}, "serving.jwt: no salt"),
        ({"signatures": {"secrets": "x"}}, "folder"),
        ({"limits": {"per_user": "1/hour"}}, "folder"),
    ],
)
def test_what_is_missing_is_said(serving: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Admission(Serving.model_validate(serving), "stable", None, None)


def release_with_tokens(folder: Path) -> Release:
    return Release.model_validate(
        {
            "name": "r",
            "folder": str(folder),
            "registry": {"model": "m"},
            "serving": {"jwt": {"jwks": "keys", "algorithms": ["EdDSA"], "audience": AUDIENCE}},
        }
    )


def test_the_identity_service_has_no_secret_in_its_command(tmp_path: Path) -> None:
    release = release_with_tokens(tmp_path)
    command, environment = identity_process(release, "127.0.0.1:1")
    salt = read_salt(tmp_path / "r" / "salt").decode()
    assert salt not in " ".join(command) + "".join(environment.values())
    with pytest.raises(ValueError, match="nobody is identified"):
        serving = release.serving.model_copy(update={"jwt": None})
        identity_process(release.model_copy(update={"serving": serving}), "127.0.0.1:1")


class Started(Exception):
    """In place of a process."""


@pytest.mark.parametrize("part", ["identity service", "front"])
def test_gunicorn_has_no_settings_of_another_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """With a certificate of another's the identity service spoke TLS, and every user was anonymous."""

    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--max-requests 7")

    def started(command: list[str], *, env: dict[str, str], **_: object) -> None:
        raise Started(command, env)

    if part == "front":
        front = PythonFront(Layout(tmp_path), Routing(port=free_port()), Limits())
        front.folder.mkdir(parents=True)
        monkeypatch.setattr(subprocess, "Popen", started)
        with pytest.raises(Started) as caught:
            front._launch()
        command, variables = caught.value.args
    else:
        command, variables = identity_process(release_with_tokens(tmp_path), "127.0.0.1:1")
    (tmp_path / "gunicorn.conf.py").write_text("certfile = 'theirs.pem'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gunicorn.config.Chdir.default", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", command[2:])
    settings = WSGIApplication("").cfg
    assert settings.bind and (settings.certfile, settings.max_requests) == (None, 0)
