"""Signed requests: nobody else's, unchanged, recent, and once, whichever process is asked."""

import hashlib
import hmac
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.release.schema import Signatures
from assay.release.security import signatures, sources
from assay.release.security.refusal import Refusal
from assay.release.security.signatures import SignatureCheck, parse_secrets, sign

SECRET = b"c" * 32
BODY = b'{"inputs": []}'
Headers = dict[bytes, bytes]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "SLOTS", 2**12)
    monkeypatch.setattr(sources, "LOOK", 0.0)


@pytest.fixture
def secrets_file(tmp_path: Path) -> Path:
    path = tmp_path / "callers"
    path.write_text(f"# callers\n\nclient {SECRET.decode()}\n")
    path.chmod(0o600)
    return path


def made(secrets_file: Path, role: str = "stable", **settings: Any) -> SignatureCheck:
    return SignatureCheck(
        Signatures(secrets=str(secrets_file), **settings), secrets_file.parent / "nonces", role
    )


@pytest.fixture
def check(secrets_file: Path) -> Iterator[SignatureCheck]:
    one = made(secrets_file)
    yield one
    one.close()


def signed(body: bytes = BODY, target: str = "/predict") -> Headers:
    headers = sign("client", SECRET, "POST", target, body)
    return {name.encode(): value.encode() for name, value in headers.items()}


def resigned(headers: Headers, **changes: bytes) -> Headers:
    """With another timestamp or nonce, and the right signature over it."""
    values = headers | {f"x-assay-{name}".encode(): value for name, value in changes.items()}
    lines = [b"ASSAY-HMAC-SHA256", b"POST", b"/predict", values[b"x-assay-timestamp"]]
    lines += [values[b"x-assay-nonce"], hashlib.sha256(BODY).hexdigest().encode()]
    signature = hmac.new(SECRET, b"\n".join(lines), "sha256").hexdigest()
    return values | {b"x-assay-signature": signature.encode()}


def verify(check: SignatureCheck, headers: Headers, request_id: bytes = b"r1", **changes: bytes) -> bytes:
    asked = {"method": b"POST", "target": b"/predict", "body": BODY} | changes
    return check.verify(asked["method"], asked["target"], headers, asked["body"], request_id)


def test_a_signed_request_is_taken_once(check: SignatureCheck) -> None:
    headers = signed()
    assert resigned(headers) == headers  # the form that is written down
    assert verify(check, headers) == b"client"
    for request_id in (b"r1", b"r2"):
        with pytest.raises(Refusal, match="came before") as refused:
            verify(check, headers, request_id)
        assert refused.value.status == 401


def test_a_nonce_of_one_caller_is_not_another_s(check: SignatureCheck, secrets_file: Path) -> None:
    """Else who sees or guesses one could use it up."""
    secrets_file.write_text(f"client {SECRET.decode()}\nother {SECRET.decode()}\n")
    headers = signed()
    assert verify(check, headers | {b"x-assay-key": b"other"}) == b"other"
    assert verify(check, headers) == b"client"


@pytest.mark.parametrize(
    "change",
    [{"method": b"PUT"}, {"target": b"/predict?x=1"}, {"target": b"/"}, {"body": BODY + b" "}, {"body": b""}],
)
def test_what_was_changed_is_refused_and_uses_up_no_nonce(
    check: SignatureCheck, change: dict[str, bytes]
) -> None:
    headers = signed()
    with pytest.raises(Refusal, match="not that of a caller"):
        verify(check, headers, **change)
    assert verify(check, headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-assay-key", b"nobody"),
        (b"x-assay-nonce", b"n" * 32),
        (b"x-assay-signature", b"0" * 64),
        *[(b"x-assay-key", v) for v in (b"", b"a b", b"a" * 65, "ключ".encode())],
        *[(b"x-assay-nonce", v) for v in (b"", b"short", b"n" * 65, b"n" * 20 + b"\n")],
        *[(b"x-assay-signature", v) for v in (b"", b"F" * 64, b"0" * 63, b"0" * 64 + b"\n")],
        *[(b"x-assay-timestamp", v) for v in (b"", b"-1", b"1e9", b"9" * 400, b"nan", "١".encode())],
    ],
)
def test_headers_that_are_forged_or_have_another_form(
    check: SignatureCheck, name: bytes, value: bytes
) -> None:
    with pytest.raises(Refusal) as refused:
        verify(check, signed() | {name: value})
    assert refused.value.status == 401


def test_another_timestamp_is_refused(check: SignatureCheck) -> None:
    headers = signed()
    later = b"%d" % (int(headers[b"x-assay-timestamp"]) + 5)
    with pytest.raises(Refusal, match="not that of a caller"):
        verify(check, headers | {b"x-assay-timestamp": later})


def test_nothing_signed_is_refused(check: SignatureCheck) -> None:
    with pytest.raises(Refusal, match="x-assay-key is missing"):
        verify(check, {})


@pytest.mark.parametrize("apart", [-61, 61, -1e9, 1e9])
def test_old_requests_and_clocks_apart_are_refused(
    check: SignatureCheck, apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = float(int(time.time()))  # and no later: a second more or less decides
    monkeypatch.setattr(signatures.time, "time", lambda: now)
    headers = resigned(signed(), timestamp=b"%d" % max(0, now + apart))
    with pytest.raises(Refusal, match="60 s are allowed"):
        verify(check, headers)


def test_a_nonce_is_kept_as_long_as_its_request_is_recent(
    secrets_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request from the future's edge lives twice the window, and so does what is known of it."""
    check = made(secrets_file, window_seconds=10)
    now = int(time.time())
    headers = resigned(signed(), timestamp=b"%d" % (now + 9))
    assert verify(check, headers)
    for later in range(25):
        monkeypatch.setattr(signatures.time, "time", lambda later=later: float(now + later))
        with pytest.raises(Refusal, match="came before" if later < 20 else "allowed"):
            verify(check, headers)


def test_every_version_takes_the_front_s_request_once_and_no_other(secrets_file: Path) -> None:
    """What one version failed to answer may go to the other, and a copy to a shadow: under the same request id."""
    stable, candidate, beside = made(secrets_file), made(secrets_file, "candidate"), made(secrets_file)
    headers = signed()
    assert verify(candidate, headers)
    with pytest.raises(Refusal):
        verify(stable, headers, b"r2")
    assert verify(stable, headers)
    for again in (stable, beside, candidate):
        with pytest.raises(Refusal, match="came before"):
            verify(again, headers)


def _ask(path: Path, all_headers: list[Headers], begin: Any, results: Any) -> None:
    signatures.SLOTS = 2**12
    check = made(path)
    begin.wait()
    taken = []
    for number, headers in enumerate(all_headers):
        try:
            verify(check, headers, b"any")
            taken.append(number)
        except Refusal:
            pass
    results.put(taken)


def test_of_many_workers_exactly_one_takes_a_request(secrets_file: Path) -> None:
    context = multiprocessing.get_context("fork")
    all_headers = [signed() for _ in range(300)]
    begin, results = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=_ask, args=(secrets_file, all_headers, begin, results)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    taken = [number for _ in workers for number in results.get(timeout=300)]
    for worker in workers:
        worker.join()
    assert sorted(taken) == list(range(300))


def test_nonces_are_known_after_a_restart(secrets_file: Path) -> None:
    first, headers = made(secrets_file), signed()
    assert verify(first, headers)
    first.close()
    with pytest.raises(Refusal, match="came before"):
        verify(made(secrets_file), headers)


def test_where_no_nonce_can_be_kept_nothing_is_taken(
    secrets_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signatures, "SLOTS", 64)
    check = made(secrets_file)
    for _ in range(64):
        verify(check, signed())
    with pytest.raises(Refusal) as refused:
        verify(check, signed())
    assert (refused.value.status, refused.value.headers) == (429, ((b"retry-after", b"60"),))
    later = time.time() + 65
    monkeypatch.setattr(signatures.time, "time", lambda: later)
    assert verify(check, resigned(signed(), timestamp=b"%d" % later))


def test_secrets_rotate(check: SignatureCheck, secrets_file: Path) -> None:
    secrets_file.write_text(f"other {'d' * 32}\n")
    with pytest.raises(Refusal):
        verify(check, signed())
    secrets_file.write_text(f"other {'d' * 32}\nclient {SECRET.decode()[:20]}")  # half written
    with pytest.raises(Refusal):
        verify(check, signed())
    assert "half written" in (check.secrets.problem or "")
    secrets_file.write_text(f"other {'d' * 32}\nclient {SECRET.decode()}\n")
    assert verify(check, signed())
    secrets_file.chmod(0o644)
    secrets_file.write_text(f"evil {'e' * 32}\n")
    assert verify(check, signed())
    assert "others may read it" in (check.secrets.problem or "")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602])
def test_secrets_that_others_may_read_are_refused(secrets_file: Path, mode: int) -> None:
    secrets_file.chmod(mode)
    with pytest.raises(ValueError, match="chmod") as error:
        made(secrets_file)
    assert "serving.signatures.secrets" in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"client\n", "line 1"),
        (b"a b c\n", "line 1"),
        (b"client short\n", "shorter than 32"),
        (b"a %s\na %s\n" % (SECRET, SECRET), "line 2"),
        (b"a %s" % SECRET, "no end"),
        ("ключ ".encode() + SECRET + b"\n", "line 1"),
    ],
)
def test_a_file_of_another_form_is_refused_without_a_word_of_it(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        parse_secrets(content)
    assert SECRET.decode() not in str(error.value)


def test_an_empty_file_is_refused_at_the_start(secrets_file: Path) -> None:
    secrets_file.write_text("# nobody\n")
    with pytest.raises(ValueError, match="is empty"):
        made(secrets_file)


def test_a_credential_of_systemd_is_taken_though_it_shows_a_group(
    secrets_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its group bit is the mask of an access list for one user."""
    secrets_file.chmod(0o440)
    with pytest.raises(ValueError, match="others may read"):
        made(secrets_file)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secrets_file.parent))
    made(secrets_file).close()
    secrets_file.chmod(0o444)
    with pytest.raises(ValueError, match="others may read"):
        made(secrets_file)
