"""Attacks on a version as it runs: real gunicorn, two workers. None ends in a 5xx, none reaches the model, and it stays ready."""

import http.client
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from secured import (
    CALLER,
    GOOD,
    PATIENCE,
    SECRET,
    SHARED,
    SUBJECT,
    Secured,
    contents,
    eventually,
    read,
)
from tokens_made import attacks, public_jwk, shared_jwk

from assay.release.security.salt import user_digest
from assay.release.security.signatures import sign

SECONDS = 15.0
"""In which a body has to be there: longer than a busy machine lets a worker stand still."""
LARGEST = 20_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from made_bundle import made_bundle, made_results

    return made_bundle(made_results(tmp_path_factory.mktemp("results"), seeds=1))


@pytest.fixture(scope="module")
def version(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Tokens and signatures, small limits."""
    folder = tmp_path_factory.mktemp("secured")
    limits = {"body_bytes": LARGEST, "samples": 4, "timeout_seconds": SECONDS}
    with Secured(folder, bundle, signatures=True, **limits) as running:
        yield running
        running.settled()


@pytest.fixture(scope="module")
def tokens_only(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Without signatures, so that many requests can be made of one token."""
    folder = tmp_path_factory.mktemp("tokens")
    limits = {"body_bytes": LARGEST, "samples": 4, "timeout_seconds": SECONDS}
    with Secured(folder, bundle, **limits) as running:
        yield running
        running.settled()


@pytest.fixture
def untouched(version: Secured) -> Iterator[Secured]:
    """Whatever the test does never reaches the model, and the version still answers afterwards."""
    before = len(version.taken)
    yield version
    assert len(version.taken) == before
    version.check()
    assert version.ready()
    assert version.ask().status == 200


def test_what_is_right_is_answered_and_written_down(version: Secured) -> None:
    answer = version.ask(headers=version.headers(GOOD) | {"X-Assay-User": "f" * 32, "X-Request-Id": "mine"})
    assert answer.status == 200, answer.body
    eventually(lambda: [one for one in version.logged() if one["request_id"] == answer.said["request_id"]])
    found = next(one for one in version.logged() if one["request_id"] == answer.said["request_id"])
    assert found["user"] == user_digest(version.salt, SUBJECT)
    assert found["status"] == 200
    eventually(lambda: LINES.search(version.ask(path="/metrics", method="GET", headers={}, body=b"").body))
    assert found["input_shape"] == [1, 8, 8, 1]


LINES = re.compile(rb'assay_serving_log_lines_total\{outcome="written"\} [1-9]')


def test_forged_tokens(untouched: Secured) -> None:
    for name, attack in attacks(untouched.key, public_jwk(untouched.key, "1")).items():
        if "issuer" in name or name == "bytes":  # this release names none; no bytes that end a header
            continue
        headers = untouched.headers(GOOD) | {"Authorization": "Bearer " + attack.decode("latin-1")}
        answer = untouched.ask(headers=headers)
        assert answer.status == 401, (name, answer)
        assert answer.headers["www-authenticate"].startswith("Bearer"), name
        assert answer.said["error"] == "identity"


@pytest.mark.parametrize("value", [None, "", "Bearer", "Basic YTpi", "Bearer a b", "Bearer ,", "\xff" * 40])
def test_headers_that_are_no_token(untouched: Secured, value: str | None) -> None:
    headers = untouched.headers(GOOD)
    del headers["Authorization"]
    answer = untouched.ask(headers=headers if value is None else headers | {"Authorization": value})
    assert answer.status == 401


def test_two_tokens_are_none(untouched: Secured) -> None:
    good = "".join(f"{name}: {value}\r\n" for name, value in untouched.headers(GOOD).items())
    for second in ("Authorization: Bearer x\r\n", f"authorization: Bearer {untouched.token()}\r\n"):
        text = f"POST /predict HTTP/1.1\r\nHost: x\r\n{good}{second}Content-Length: {len(GOOD)}\r\n\r\n"
        assert status(untouched.raw(text.encode() + GOOD)) == 401


def test_keys_rotate_while_it_serves(version: Secured) -> None:
    new = ed25519.Ed25519PrivateKey.generate()
    old = {"Authorization": f"Bearer {version.token()}"}
    fresh = {"Authorization": "Bearer " + _token(new, "2")}

    def asked(token: dict[str, str]) -> int:
        return version.ask(headers=version.headers(GOOD) | token).status

    try:
        assert (asked(old), asked(fresh)) == (200, 401)
        version.write_keys(public_jwk(version.key, "1"), public_jwk(new, "2"), shared_jwk(SHARED, "shared"))
        for _ in version.each_worker():
            eventually(lambda: asked(fresh) == 200)
            assert asked(old) == 200
        version.jwks.write_text('{"keys": [{"kty"')
        time.sleep(1)
        for _ in version.each_worker():
            assert [asked(token) for token in (old, fresh) * 4] == [200] * 8
        version.write_keys(public_jwk(new, "2"), shared_jwk(SHARED, "shared"))
        for _ in version.each_worker():
            eventually(lambda: asked(old) == 401)
            assert asked(fresh) == 200
    finally:
        version.write_keys(public_jwk(version.key, "1"), shared_jwk(SHARED, "shared"))
        for _ in version.each_worker():
            eventually(lambda: (asked(old), asked(fresh)) == (200, 401))
    assert version.ready()


def _token(key: Any, kid: str) -> str:
    from tokens_made import token

    return token(key, kid=kid, sub=SUBJECT).decode()


def test_a_replayed_request_is_refused_by_every_worker_and_by_the_other_version(version: Secured) -> None:
    headers = version.headers(GOOD) | {"X-Request-Id": "seen-on-the-wire"}
    found = [version.ask(headers=headers).status for _ in range(30)]
    assert found == [200] + [401] * 29
    version.check()
    other, port = version.serve("candidate")
    try:
        for one in (
            headers | {"X-Request-Id": "another"},
            {k: v for k, v in headers.items() if k != "X-Request-Id"},
        ):
            assert version.ask(headers=one, port=port).status == 401
        # What the front hands on, because the first version failed or as a copy, has the same id, and comes once.
        assert [version.ask(headers=headers, port=port).status for _ in range(10)] == [200] + [401] * 9
    finally:
        version.end(other, "candidate")


def test_many_at_once_with_one_signature(version: Secured) -> None:
    headers = version.headers(GOOD)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(version.ask(headers=headers).status)) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200] + [401] * 15


def test_a_signature_over_something_else(untouched: Secured) -> None:
    headers = untouched.headers(GOOD)
    assert untouched.ask(GOOD.replace(b"0", b"1"), headers).status == 401
    assert untouched.ask(headers=headers, path="/predict?debug=1").status == 401
    assert untouched.ask(headers={k: v for k, v in headers.items() if "ssay" not in k}).status == 401
    stranger = sign(CALLER, b"x" * 32, "POST", "/predict", GOOD)
    assert untouched.ask(headers=headers | stranger).status == 401


DEEP = b'{"inputs": ' + b"[" * 9000 + b"]" * 9000 + b"}"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", {400}),
        (b"null", {400, 422}),
        (b"[]", {400, 422}),
        (b'{"inputs": null}', {422}),
        (b'{"inputs": []}', {422}),
        (b'{"inputs": [[]]}', {422}),
        (b'{"inputs": [[1, 2]]}', {422}),
        (b'{"inputs": [%s]}' % b",".join([b"[" + b"0," * 63 + b"0]"] * 5), {413, 422}),
        (b'{"inputs": [[' + b"0," * 63 + b"0]]", {400}),
        (b'{"inputs": [[' + b"0," * 63 + b"NaN]]}", {400}),
        (b'{"inputs": [[' + b"0," * 63 + b"Infinity]]}", {400}),
        (b'{"inputs": [[' + b"0," * 63 + b"-Infinity]]}", {400}),
        (b'{"inputs": [[' + b"0," * 63 + b"1e999]]}", {400, 422}),
        (b'{"inputs": [[' + b"0," * 63 + b"1e300]]}", {422}),
        (b'{"inputs": [[' + b"0," * 63 + b"-1]]}", {422}),
        (b'{"inputs": [[' + b"0," * 63 + b"9" * 5000 + b"]]}", {400, 422}),
        (b'{"inputs": [[' + b"0," * 63 + b"0." + b"1" * 5000 + b"e-9999999999]]}", {200, 400, 422}),
        (b'{"inputs": [[' + b"0," * 63 + b"true]]}", {422}),
        (b'{"inputs": [[' + b"0," * 63 + b'"0"]]}', {422}),
        (b'{"inputs": [[' + b"0," * 63 + b"{}]]}", {422}),
        (b'{"inputs": [[' + b"0," * 63 + b"[0]]]}", {422}),
        (b'{"inputs": [[' + b"0," * 63 + b'0]], "inputs": [[1]]}', {400, 422}),
        (b'{"inputs": [[' + b"0," * 63 + b'0]], "model": "../../etc/passwd"}', {400, 422}),
        (b'\xef\xbb\xbf{"inputs": [[' + b"0," * 63 + b"0]]}", {200, 400}),
        ('{"inputs": [["\ud800"]]}'.encode("utf-8", "surrogatepass"), {400, 422}),
        (b'{"inputs": [["\\ud800"]]}', {400, 422}),
        (b'{"in\\u0000puts": [[0]]}', {400, 422}),
        ('{"входы": [[0]]}'.encode(), {400, 422}),
        (b"\x00" * 1000, {400}),
        (b"\xff\xfe" + GOOD.decode().encode("utf-16-le"), {400}),
        (DEEP, {400, 422}),
        (b"[" * 19_000, {400}),
        (b'{"a":' * 3000, {400}),
        (b'"' + b"\\" * 10_000, {400}),
        (b"\x80\x04\x95", {400}),
    ],
)
def test_bodies_that_are_no_input(version: Secured, body: bytes, expected: set[int]) -> None:
    answer = version.ask(body)
    assert answer.status in expected, answer
    version.check()
    if answer.status != 200:
        assert answer.said["reason"]
        assert len(answer.body) < 2000
    assert version.ready()


@pytest.mark.parametrize(
    "body", [b"", b"1", b"\x00" * 255, b"\x00" * 257, b"\x00\x00\xc0\x7f" * 64, b"\x00\x00\x80\x7f" * 64]
)
def test_raw_bodies_that_are_no_input(untouched: Secured, body: bytes) -> None:
    headers = untouched.headers(body) | {"Content-Type": "application/octet-stream"}
    assert untouched.ask(body, headers).status in (400, 422)


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/json5",
        "application/x-pickle",
        "multipart/form-data",
        "ключ",
        "a" * 5000,
    ],
)
def test_other_content_types(untouched: Secured, kind: str) -> None:
    headers = untouched.headers(GOOD) | {"Content-Type": kind.encode().decode("latin-1")}
    assert untouched.ask(headers=headers).status == 415


def test_bodies_that_are_too_large(untouched: Secured) -> None:
    body = b" " * (LARGEST + 1)
    assert untouched.ask(body).status == 413
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {untouched.token()}\r\n"
    said = f"{head}Content-Length: {10**12}\r\n\r\n".encode()
    assert status(untouched.raw(said + b"[")) == 413
    for length in ("9" * 30, "9" * 5000, "-1", "+5", "0x10", "1e3", "5, 6", "\xb2"):
        said = f"{head}Content-Length: {length}\r\n\r\n".encode("latin-1")
        assert status(untouched.raw(said + b"[")) in (None, 400, 413), length
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    assert status(untouched.raw(chunked + (b"1000\r\n" + b" " * 0x1000 + b"\r\n") * 8)) == 413


def test_chunks_without_a_length_are_read(version: Secured) -> None:
    headers = "".join(f"{name}: {value}\r\n" for name, value in version.headers(GOOD).items())
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\n{headers}Transfer-Encoding: chunked\r\n\r\n".encode()
    chunks = b"".join(b"1\r\n" + GOOD[i : i + 1] + b"\r\n" for i in range(len(GOOD))) + b"0\r\n\r\n"
    assert status(version.raw(head + chunks)) == 200
    version.taken.append("chunks")


def test_two_lengths_are_refused(untouched: Secured) -> None:
    """What two servers read differently is how requests are smuggled."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    for both in (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
    ):
        found = untouched.raw(head + both + b"\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status(found) in (None, 400, 401, 413, 415), both
        assert b"assay_serving" not in found


def test_a_body_that_comes_slowly_is_given_up_and_hinders_nobody(untouched: Secured) -> None:
    lines = f"Authorization: Bearer {untouched.token()}\r\nContent-Length: {len(GOOD)}\r\n"
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()
    slow = [socket.create_connection(("127.0.0.1", untouched.port), timeout=PATIENCE) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(head + GOOD[:5])
        began = time.monotonic()
        assert untouched.ask(path="/health/live", method="GET", headers={}).status == 200
        assert [status(connection.recv(65536)) for connection in slow] == [408] * 50
        assert time.monotonic() - began < SECONDS + PATIENCE / 2
    finally:
        for connection in slow:
            connection.close()


def test_half_requests_hinder_nobody(untouched: Secured) -> None:
    halves = [socket.create_connection(("127.0.0.1", untouched.port), timeout=PATIENCE) for _ in range(200)]
    try:
        for connection in halves:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert all(
            untouched.ask(path="/health/live", method="GET", headers={}).status == 200 for _ in range(8)
        )
    finally:
        for connection in halves:
            connection.close()


@pytest.mark.parametrize(
    "flood",
    [
        b"".join(b"X-%d: y\r\n" % number for number in range(5000)),
        b"X: " + b"y" * 1_000_000 + b"\r\n",
        b"Cookie: " + b"a=b; " * 50_000 + b"\r\n",
        b"X-Request-Id: " + b"r" * 100_000 + b"\r\n",
        b"".join(b"Authorization: Bearer %d\r\n" % number for number in range(1000)),
    ],
)
def test_floods_of_headers(untouched: Secured, flood: bytes) -> None:
    text = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n" + flood + b"\r\n{}"
    found = untouched.raw(text)
    assert status(found) in (None, 400, 401, 413, 431), found[:200]
    assert b"rrrrrrrrrr" not in found


@pytest.mark.parametrize(
    "path",
    [
        *("/", "//predict", "/predict/", "/predict/x", "/PREDICT", "/predict%00", "/predict%0d%0aX:y"),
        *(
            "/../predict",
            "/..%2f..%2fetc/passwd",
            "/static/../../etc/passwd",
            "/%2e%2e/predict",
            "/predict;a=b",
        ),
        *("/metrics/..", "/health/ready/../../predict", "/" + "a" * 20_000, "/%ff%fe", "/ключ", "/predict\\"),
        *(
            "*",
            "/?" + "a=b&" * 5000,
            "//[::1]/predict",
            "/docs/../../bundle.json",
            "/.env",
            "/openapi.json%00",
        ),
    ],
)
def test_paths_that_are_not_there(untouched: Secured, path: str) -> None:
    text = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD
    assert status(untouched.raw(text)) in (None, 400, 404, 405, 414)


@pytest.mark.parametrize(
    "method", ["GET", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "HEAD", "PRI", "X" * 500]
)
def test_other_methods(untouched: Secured, method: str) -> None:
    for path in ("/predict", "/metrics", "http://elsewhere.example/predict"):
        if method in ("GET", "HEAD") and path == "/metrics":
            continue
        found = untouched.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert status(found) in (None, 400, 404, 405, 501), found


def test_an_upgrade_is_no_way_in(untouched: Secured) -> None:
    for kind in ("websocket", "h2c"):
        head = f"GET /predict HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {kind}\r\n"
        head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        assert status(untouched.raw(head.encode())) in (None, 400, 404, 405)


def status(answer: bytes) -> int | None:
    """None: the connection was closed without a word."""
    if not answer:
        return None
    found = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    assert found, answer[:200]
    return int(found[1])


class Line:
    """A connection that is kept as long as the server keeps it."""

    def __init__(self, version: Secured) -> None:
        self._version, self._connection = (
            version,
            http.client.HTTPConnection("127.0.0.1", version.port, timeout=PATIENCE),
        )
        self._token = f"Bearer {version.token()}"

    def ask(self, body: bytes, kind: str) -> int:
        headers = {"Authorization": self._token, "Content-Type": kind}
        for _ in range(3):
            try:
                self._connection.request("POST", "/predict", body, headers)
                found = read(self._connection).status
                if found == 200:
                    self._version.taken.append("line")
                return found
            except (http.client.HTTPException, OSError):
                self._connection.close()
        raise AssertionError(f"no answer to {body[:100]!r}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.just("inputs"), inner, max_size=3)
    ),
    max_leaves=30,
)


def test_whatever_is_sent_as_json_is_answered_and_never_by_an_error_of_ours(tokens_only: Secured) -> None:
    line, refused = Line(tokens_only), 0

    @settings(
        max_examples=1500,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        content=JSON | st.fixed_dictionaries({"inputs": JSON}), kind=st.sampled_from(["json", "octet-stream"])
    )
    def garbage(content: Any, kind: str) -> None:
        nonlocal refused
        body = json.dumps(content).encode()
        assert line.ask(body[:LARGEST], f"application/{kind}") in (400, 413, 422)
        refused += 1

    garbage()
    assert refused >= 1500
    tokens_only.settled()
    assert tokens_only.ready()


def test_ten_thousand_damaged_requests(tokens_only: Secured) -> None:
    """Right ones with bytes changed, cut or doubled. Some stay right; nothing else comes to the model."""
    draw, line = random.Random(6), Line(tokens_only)
    whole = json.dumps({"inputs": [[draw.randrange(256) for _ in range(64)]]}).encode()
    counts: dict[int, int] = {}
    for _ in range(10_000):
        body = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            at, length = draw.randrange(len(body)), draw.randrange(1, 40)
            match draw.randrange(4):
                case 0:
                    body[at] = draw.randrange(256)
                case 1:
                    del body[at : at + length]
                case 2:
                    body[at:at] = body[at : at + length]
                case _:
                    body[at:at] = draw.choice(
                        [b"[", b"]", b"NaN", b"1e400", b"-", b"null,", b'"', b"\\u0000", b"{}"]
                    )
            body = body or bytearray(b" ")
        found = line.ask(bytes(body), "application/json")
        counts[found] = counts.get(found, 0) + 1
    assert set(counts) <= {200, 400, 413, 422}, counts
    assert counts.get(400, 0) + counts.get(422, 0) > 5000, counts
    tokens_only.settled()
    assert tokens_only.ready()


def test_a_thousand_requests_of_noise(tokens_only: Secured) -> None:
    """Not even HTTP, or hardly."""
    draw = random.Random(6)
    good = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    for number in range(1000):
        text = bytearray(good)
        if number % 2:
            text = bytearray(draw.randbytes(draw.randrange(1, 300)))
        for _ in range(3):
            text[draw.randrange(len(text))] = draw.randrange(256)
        with socket.create_connection(("127.0.0.1", tokens_only.port), timeout=PATIENCE) as connection:
            connection.sendall(bytes(text))
            connection.shutdown(socket.SHUT_WR)
            try:
                found = connection.recv(65536)
            except ConnectionResetError:
                found = b""
        assert (status(found) or 400) < 500, text
    tokens_only.settled()
    assert tokens_only.ready()


def test_a_user_s_limit_holds_over_all_workers(bundle: Path, tmp_path: Path) -> None:
    with Secured(tmp_path, bundle, per_user="20/hour") as version:
        headers = {"Authorization": f"Bearer {version.token()}", "Content-Type": "application/json"}
        found = [version.ask(headers=headers) for _ in range(60)]
        statuses = [answer.status for answer in found]
        assert statuses.count(200) in (20, 21), statuses  # 21: an hour of the clock ended meanwhile
        assert set(statuses) == {200, 429}
        last = found[-1]
        assert last.status == 429
        assert 1 <= int(last.headers["retry-after"]) <= 3600
        other = headers | {"Authorization": f"Bearer {version.token(sub='bob')}"}
        assert version.ask(headers=other).status == 200


def test_no_secret_is_anywhere(version: Secured) -> None:
    """In no command line of the machine, no file of the release but those that hold it, no page and no answer."""
    headers = version.headers(GOOD)
    answers = [version.ask(headers=headers), version.ask(headers=headers), version.ask(b"{", headers)]
    pages = [version.ask(path=path, method="GET", headers={}, body=b"") for path in PAGES]
    eventually(lambda: version.logged())
    token = headers["Authorization"].split()[1]
    secrets = [
        SECRET,
        SHARED.decode(),
        shared_jwk(SHARED, "")["k"],
        version.salt.decode(),
        SUBJECT,
        token,
        token[-40:],
    ]
    texts = {f"answer {n}": repr(answer).encode() for n, answer in enumerate([*answers, *pages])}
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts[str(process)] = process.read_bytes()
        except OSError:
            continue
    holders = {version.jwks, version.folder / "callers", version.layout.salt}
    texts |= {str(path): text for path, text in contents(version.folder).items() if path not in holders}
    assert len([name for name in texts if "jsonl" in name]) >= 1
    assert str(version.printed) in texts
    found = [(name, secret) for name, text in texts.items() for secret in secrets if secret.encode() in text]
    assert found == []


PAGES = ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs", "/nowhere")
