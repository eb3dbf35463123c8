"""The identity service as the front meets it: a gunicorn of its own."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ports import free_port
from secured import PATIENCE, SHARED, SOURCE, SUBJECT, Answer, eventually, is_ready, read
from tokens_made import AUDIENCE, attacks, public_jwk, shared_jwk, token, write_keys

from assay.release.layout import Layout
from assay.release.security.salt import read_salt, user_digest


class Identity:
    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ed25519

        self.folder, self.port = folder, free_port()
        self.key = ed25519.Ed25519PrivateKey.generate()
        self.jwks = write_keys(folder / "jwks.json", public_jwk(self.key, "1"), shared_jwk(SHARED, "2"))
        self.release = folder / "release.yaml"
        jwt = {"jwks": str(self.jwks), "algorithms": ["EdDSA", "HS256"], "audience": AUDIENCE}
        content = {"name": "r", "folder": str(folder), "registry": {"model": "m"}, "serving": {"jwt": jwt}}
        self.release.write_text(yaml.safe_dump(content))

    def start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "assay.cli", "release", "identity", str(self.release)]
        with (self.folder / "printed.log").open("a") as printed:
            return subprocess.Popen(
                [*command, "--bind", f"127.0.0.1:{self.port}"],
                stdout=printed,
                stderr=printed,
                env=os.environ | {"PYTHONPATH": str(SOURCE)},
            )

    def ask(self, token: str | None, path: str = "/identity", method: str = "GET") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
            return read(connection)
        finally:
            connection.close()


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    service = Identity(tmp_path_factory.mktemp("identity"))
    process = service.start()
    try:
        eventually(lambda: process.poll() is not None or is_ready(service.port))
        assert process.poll() is None, (service.folder / "printed.log").read_text()
        yield service
    finally:
        process.terminate()
        process.wait(PATIENCE)


def test_it_says_who_asks_and_how_long_that_holds(identity: Identity) -> None:
    salt = read_salt(Layout(identity.folder / "r").salt)
    for lifetime in (600, 30):
        answer = identity.ask(token(identity.key, sub=SUBJECT, exp=int(time.time()) + lifetime).decode())
        assert answer.status == 200
        assert answer.headers["x-assay-user"] == user_digest(salt, SUBJECT)
        assert 0 < int(answer.headers["x-accel-expires"]) <= min(60, lifetime)
        assert SUBJECT.encode() not in answer.body


def test_within_the_leeway_nothing_is_kept(identity: Identity) -> None:
    answer = identity.ask(token(identity.key, exp=int(time.time()) - 1).decode())
    if answer.status == 200:  # 10 s are forgiven, which a busy machine may take
        assert answer.headers["x-accel-expires"] == "0"


def test_it_knows_nobody_without_a_good_token(identity: Identity) -> None:
    tokens = attacks(identity.key, public_jwk(identity.key, "1"))
    names = [name for name in tokens if "issuer" not in name and name != "bytes"]
    for name in names:
        answer = identity.ask(tokens[name].decode("latin-1"))
        assert answer.status == 401, name
        assert "x-assay-user" not in answer.headers
        assert answer.headers["x-accel-expires"] == "0"
    assert identity.ask(None).status == 401
    assert identity.ask("x", "/etc/passwd").status == 404
    assert identity.ask("x", method="POST").status == 405
    assert is_ready(identity.port)


def test_a_removed_key_names_nobody_and_a_damaged_file_is_told(identity: Identity) -> None:
    good = token(SHARED, "HS256", "2").decode()
    assert identity.ask(good).status == 200
    write_keys(identity.jwks, public_jwk(identity.key, "1"))
    eventually(lambda: identity.ask(good).status == 401)
    identity.jwks.write_text("{")
    eventually(lambda: identity.ask(None, "/health/ready").said["problem"])
    assert identity.ask(token(identity.key).decode()).status == 200
    write_keys(identity.jwks, public_jwk(identity.key, "1"), shared_jwk(SHARED, "2"))
    eventually(lambda: identity.ask(good).status == 200)


def test_no_secret_is_in_its_command_its_variables_or_what_it_prints(identity: Identity) -> None:
    good = token(identity.key, sub=SUBJECT).decode()
    assert identity.ask(good).status == 200
    salt = read_salt(Layout(identity.folder / "r").salt).decode()
    secrets = [salt, SHARED.decode(), shared_jwk(SHARED, "")["k"], SUBJECT, good]
    texts = [(identity.folder / "printed.log").read_bytes()]
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                texts.append((process / name).read_bytes())
            except OSError:
                continue
    assert any(b"assay.release.security.identity" in text for text in texts)
    assert [secret for secret in secrets for text in texts if secret.encode() in text] == []


def test_mistakes_are_said_at_once(tmp_path: Path) -> None:
    service = Identity(tmp_path)
    service.jwks.write_text(json.dumps({"keys": []}))
    process = service.start()
    assert process.wait(PATIENCE) == 2
    printed = (tmp_path / "printed.log").read_text()
    assert "serving.jwt.jwks" in printed
    assert "Traceback" not in printed
