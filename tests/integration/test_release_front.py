"""A front, the identity service and two versions together, all real, with everything that a release file can ask of callers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from ports import free_port
from secured import (
    GOOD,
    PATIENCE,
    SECRET,
    SHARED,
    SOURCE,
    SUBJECT,
    Answer,
    Secured,
    contents,
    eventually,
    is_ready,
    standing,
    whole_lines,
)
from tokens_made import attacks, public_jwk, shared_jwk

from assay.release.observations import Access
from assay.release.routing.access import AccessReader
from assay.release.routing.front import Front
from assay.release.routing.gunicorn import PythonFront
from assay.release.routing.nginx import NginxFront, find_nginx
from assay.release.routing.plan import Plan
from assay.release.schema import Limits, Routing
from assay.release.security.salt import user_digest

try:
    find_nginx()
    MISSING = ""
except ValueError as error:
    MISSING = str(error)
pytestmark = pytest.mark.integration
NEEDS_NGINX = pytest.mark.skipif(bool(MISSING), reason=MISSING)
KINDS = [pytest.param(NginxFront, marks=NEEDS_NGINX, id="nginx"), pytest.param(PythonFront, id="python")]


class Running(NamedTuple):
    stable: Secured
    candidate: int
    """Its port."""
    identity: str


ODD = (
    *(
        b"POST /predict HTTP/1.1\r\nX-Odd: %s\r\n" % odd
        for odd in (b"a ", b"\ta", b"a\x01b", b"\x0b", b"\xff", b"a\x7f", b"")
    ),
    *(
        b"POST /predict?%s HTTP/1.1\r\n" % odd
        for odd in (b"\xff", b"a=%ff", b"\x01", b"a" * 20_000, b"[]{}|^", b"%", b"?#")
    ),
    b"POST /predict HTTP/1.1\r\nContent-Type: \xff\x80\r\n",
    b"POST /predict HTTP/1.1\r\nAccept: a\x00b\r\n",
    b"POST /predict HTTP/1.1\r\nAuthorization: Bearer \r\n",
    b"TRACE /predict HTTP/1.1\r\n",
    b"POST /predict HTTP/1.0\r\n",
)


class Fronted:
    def __init__(self, running: Running, front: Front, port: int, reader: AccessReader) -> None:
        self.running, self.front, self.port, self.reader = running, front, port, reader

    def ask(self, headers: dict[str, str] | None = None, body: bytes = GOOD) -> Answer:
        return self.running.stable.ask(body, headers, port=self.port)

    def headers(self) -> dict[str, str]:
        """Of a request that is let in, of a user whom the front knows: where the identity service is late, who asks is nobody."""
        headers = self.running.stable.headers(GOOD)
        unsigned = {name: headers[name] for name in ("Authorization", "Content-Type")}
        eventually(lambda: self.observed(self.ask(unsigned)).user)
        return headers

    def observed(self, answer: Answer) -> Access:
        """The line of an answer in the front's log."""
        wanted = answer.headers["x-request-id"]
        return next(
            access
            for access in self.until(lambda found: any(one.request_id == wanted for one in found))
            if access.request_id == wanted
        )

    def until(self, condition: Callable[[list[Access]], bool]) -> list[Access]:
        """The next lines of it, as far as the one with which the condition holds."""
        found: list[Access] = []

        def more() -> bool:
            found.extend(self.reader.read())
            return condition(found)

        eventually(more)
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    from made_bundle import made_bundle, made_results

    bundle = made_bundle(made_results(tmp_path_factory.mktemp("results"), seeds=1))
    folder, port = tmp_path_factory.mktemp("release"), free_port()
    # A version that stands still for some seconds is not what is tested, but where it is said so.
    with Secured(folder, bundle, signatures=True, timeout_seconds=30) as stable:
        other, candidate = stable.serve("candidate")
        release = folder / "release.yaml"
        release.write_text(stable.layout.resolved.read_text())
        command = [sys.executable, "-m", "assay.cli", "release", "identity", str(release)]
        with stable.printed.open("a") as printed:
            identity = subprocess.Popen(
                [*command, "--bind", f"127.0.0.1:{port}"],
                stdout=printed,
                stderr=printed,
                env=os.environ | {"PYTHONPATH": str(SOURCE)},
            )
        try:
            eventually(lambda: is_ready(port))
            yield Running(stable, candidate, f"127.0.0.1:{port}")
        finally:
            identity.terminate()
            identity.wait(PATIENCE)
            stable.end(other, "candidate")


@pytest.fixture(scope="module", params=KINDS)
def fronted(request: pytest.FixtureRequest, running: Running) -> Iterator[Fronted]:
    """Every identified user has the candidate."""
    layout, routing = running.stable.layout, Routing(port=free_port())
    limits = Limits.model_validate(yaml.safe_load(layout.resolved.read_text())["serving"]["limits"])
    front: Front = request.param(layout, routing, limits)
    generation = 1 if front.active() is None else int(front.active() or 0) + 1
    stable = f"127.0.0.1:{running.stable.port}"
    front.start(Plan(generation, 1.0, stable, f"127.0.0.1:{running.candidate}", running.identity))
    reader = AccessReader(layout.access)
    reader.skip()
    try:
        yield Fronted(running, front, routing.port, reader)
    finally:
        front.stop(10)


def logged(running: Running, role: str) -> dict[str, Any]:
    """The last prediction that a version wrote down."""
    paths = sorted(running.stable.layout.predictions(role).glob("*.jsonl"))
    lines = [json.loads(line) for path in paths for line in whole_lines(path)]
    return max(lines, key=lambda line: float(line["timestamp"]), default={})


def test_who_asks_is_the_same_to_all_and_nobody_else_says_it(fronted: Fronted) -> None:
    stable = fronted.running.stable
    forged = {
        "X-Assay-User": "f" * 32,
        "X-Request-Id": "mine",
        "X-Assay-Shadow": "1",
        "X-Assay-Assigned": "stable",
    }
    answer = fronted.ask(fronted.headers() | forged)
    assert answer.status == 200, answer
    access = fronted.observed(answer)
    assert (access.user, access.assigned, access.route) == (
        user_digest(stable.salt, SUBJECT),
        "candidate",
        "split",
    )
    line = eventually(
        lambda: (one := logged(fronted.running, "candidate")).get("request_id") == access.request_id and one
    )
    assert (line["user"], line["assigned"], line["shadow"]) == (access.user, "candidate", False)
    assert access.request_id == answer.said["request_id"] != "mine"


def test_a_signed_request_passes_once(fronted: Fronted) -> None:
    headers = fronted.running.stable.headers(GOOD)
    assert [fronted.ask(headers | {"X-Request-Id": "same"}).status for _ in range(6)] == [200] + [401] * 5
    stranger = {"Authorization": f"Bearer {fronted.running.stable.token(sub='bob')}"}
    assert fronted.ask(headers | stranger).status == 401


def test_attacks_end_at_the_version_or_before_and_are_no_failures(fronted: Fronted) -> None:
    stable = fronted.running.stable
    tokens = attacks(stable.key, public_jwk(stable.key, "1"))
    for name in sorted(tokens):
        if "issuer" in name or name == "bytes":
            continue
        headers = stable.headers(GOOD) | {"Authorization": "Bearer " + tokens[name].decode("latin-1")}
        assert 400 <= fronted.ask(headers).status < 500, name
    for body in (b"{", b"[" * 5000, GOOD.replace(b"0", b"NaN", 1), b""):
        assert 400 <= fronted.ask(stable.headers(body), body).status < 500
    for flood in (
        b"X: " + b"y" * 200_000,
        b"\r\n".join(b"X-%d: y" % n for n in range(3000)),
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Content-Length: 99999999999999999999999",
    ):
        said = stable.raw(b"POST /predict HTTP/1.1\r\nHost: x\r\n" + flood + b"\r\n\r\n", port=fronted.port)
        assert not said or 400 <= int(said.split()[1]) < 500, said[:100]
    assert fronted.ask(stable.headers(GOOD)).status == 200


@pytest.mark.parametrize("odd", ODD)
def test_odd_requests_of_a_known_user_are_no_failures_of_a_version(fronted: Fronted, odd: bytes) -> None:
    """Else any user could turn a release back."""
    stable = fronted.running.stable
    headers = stable.headers(GOOD)
    if b"Authorization" in odd:
        del headers["Authorization"]
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    length = b"Host: x\r\nConnection: close\r\nContent-Length: %d\r\n" % len(GOOD)
    fronted.reader.skip()
    said = stable.raw(odd + length + lines + b"\r\n" + GOOD, port=fronted.port)
    assert not said or int(said.split()[1]) < 500, said[:200]
    assert fronted.ask(stable.headers(GOOD)).status == 200
    seen = fronted.until(lambda found: any(access.status == 200 for access in found))
    assert not any(attempt.failed for access in seen for attempt in access.attempts), seen


def test_a_candidate_that_hangs_costs_a_signed_request_nothing(fronted: Fronted) -> None:
    """The stable version takes the nonce of a request that the candidate has as well, and nobody takes it after them."""
    stable = fronted.running.stable
    workers = [
        json.loads(path.read_text())["process"]["pid"]
        for path in stable.layout.service("candidate").glob("groups/*/workers/*.json")
    ]
    headers = fronted.headers()
    with standing(workers):
        answer = fronted.ask(headers)
    assert answer.status == 200, answer
    tried = [(attempt.role, attempt.status) for attempt in fronted.observed(answer).attempts]
    assert tried == [("candidate", None), ("stable", 200)]
    eventually(lambda: is_ready(fronted.running.candidate))
    assert [fronted.ask(headers).status for _ in range(4)] == [401] * 4


def test_no_secret_is_in_what_the_front_keeps(fronted: Fronted) -> None:
    """But in the cache of identities, which is nobody else's to read."""
    stable = fronted.running.stable
    headers = stable.headers(GOOD)
    assert fronted.ask(headers).status == 200
    token = headers["Authorization"].split()[1]
    secrets = [SECRET, SHARED.decode(), shared_jwk(SHARED, "")["k"], SUBJECT, token]
    folder = stable.layout.folder
    assert stable.layout.front.stat().st_mode & 0o077 == 0
    texts = {path: text for path, text in contents(folder).items() if "identity-cache" not in path.parts}
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts[process] = process.read_bytes()
        except OSError:
            continue
    assert stable.layout.access in texts
    assert [
        (path, secret) for path, text in texts.items() for secret in secrets if secret.encode() in text
    ] == []
