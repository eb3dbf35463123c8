"""Tokens: what is refused, what rotation does, and how long a verification is remembered."""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tokens_made import AUDIENCE, attacks, public_jwk, shared_jwk, token, write_keys

from assay.release.schema import Jwt
from assay.release.security import sources, tokens
from assay.release.security.refusal import Refusal
from assay.release.security.salt import user_digest
from assay.release.security.sources import Watched
from assay.release.security.tokens import Verifier

SALT = b"0123456789abcdef0123456789abcdef"
ISSUER = "https://login.example"


@pytest.fixture
def key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@pytest.fixture(autouse=True)
def looks_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LOOK", 0.0)


def verifier(path: Path, *algorithms: str, **settings: Any) -> Verifier:
    accepted = algorithms or ("EdDSA",)
    return Verifier(
        Jwt.model_validate({"jwks": str(path), "algorithms": accepted, "audience": AUDIENCE} | settings), SALT
    )


@pytest.mark.parametrize(
    ("algorithm", "make"),
    [
        ("EdDSA", ed25519.Ed25519PrivateKey.generate),
        ("ES256", lambda: ec.generate_private_key(ec.SECP256R1())),
        ("RS256", lambda: rsa.generate_private_key(65537, 2048)),
    ],
)
def test_each_algorithm_is_taken_with_its_key(tmp_path: Path, algorithm: str, make: Any) -> None:
    made = make()
    path = write_keys(tmp_path / "jwks", public_jwk(made, "1"))
    found = verifier(path, algorithm).verify(token(made, algorithm))
    assert found.user == user_digest(SALT, "alice")
    assert len(found.user) == 32
    with pytest.raises(ValueError, match="has no key for HS256"):
        verifier(path, "HS256")


def test_shared_keys_are_taken_from_a_file_of_their_own(tmp_path: Path) -> None:
    secret = b"s" * 64
    path = write_keys(tmp_path / "jwks", shared_jwk(secret, "1"))
    assert verifier(path, "HS512").verify(token(secret, "HS512")).user
    with pytest.raises(Refusal):
        verifier(path, "HS512").verify(token(secret, "HS256"))
    path.chmod(0o640)
    with pytest.raises(ValueError, match="others may read it"):
        verifier(path, "HS512")


def test_a_key_verifies_the_algorithm_that_it_is_for_and_no_other(tmp_path: Path) -> None:
    secret = b"s" * 64
    path = write_keys(tmp_path / "jwks", shared_jwk(secret, "1") | {"alg": "HS512"})
    check = verifier(path, "HS256", "HS512")
    assert check.verify(token(secret, "HS512")).user
    with pytest.raises(Refusal):
        check.verify(token(secret, "HS256"))


def test_without_a_key_id_a_token_is_taken_where_a_single_key_fits(tmp_path: Path, key: Any) -> None:
    path = write_keys(tmp_path / "jwks", public_jwk(key, "1"))
    check = verifier(path)
    assert check.verify(token(key, kid=None)).user
    write_keys(path, public_jwk(key, "1"), public_jwk(ed25519.Ed25519PrivateKey.generate(), "2"))
    with pytest.raises(Refusal):
        check.verify(token(key, kid=None))
    assert check.verify(token(key)).user


def test_a_token_has_a_length_that_is_taken(tmp_path: Path, key: Any) -> None:
    check = verifier(write_keys(tmp_path / "jwks", public_jwk(key, "1")))
    assert check.verify(token(key, more="x" * 5000)).user
    with pytest.raises(Refusal, match="more than 8192 bytes"):
        check.verify(token(key, more="x" * 8192))


def test_a_shared_key_is_not_taken_from_a_file_that_was_read_as_a_public_one(
    tmp_path: Path, key: Any
) -> None:
    """Others may have read it."""
    secret = b"s" * 64
    path = write_keys(tmp_path / "jwks", public_jwk(key, "1"))
    path.chmod(0o644)
    check = verifier(path, "EdDSA", "HS512")
    write_keys(path, public_jwk(key, "1"), shared_jwk(secret, "2"))
    with pytest.raises(Refusal):
        check.verify(token(secret, "HS512", kid="2"))
    assert check.verify(token(key)).user and "start anew" in (check.keys.problem or "")


def test_no_attack_is_taken_and_none_ends_in_anything_but_401(tmp_path: Path, key: Any) -> None:
    jwk = public_jwk(key, "1")
    # Every algorithm is accepted: only the key decides.
    path = write_keys(tmp_path / "jwks", jwk, public_jwk(rsa.generate_private_key(65537, 2048), "3"))
    anyone = verifier(path, "EdDSA", "HS256", "RS256", "ES256")
    one = verifier(path, "EdDSA", "HS256", "RS256", "ES256", issuer=ISSUER)
    assert anyone.verify(token(key)).user == one.verify(token(key, iss=ISSUER)).user
    for name, attack in attacks(key, jwk).items():
        with pytest.raises(Refusal) as refused:
            (one if "issuer" in name else anyone).verify(attack)
        assert refused.value.status == 401, name
        assert "alice" not in refused.value.reason, name
        assert refused.value.headers[0][1].startswith(b"Bearer error="), name


def test_the_same_attacks_fail_where_every_token_is_another_s_turn(tmp_path: Path, key: Any) -> None:
    """No attack is remembered as good after a good token was, nor after itself."""
    jwk = public_jwk(key, "1")
    check, good = verifier(write_keys(tmp_path / "jwks", jwk)), token(key)
    for attack in (attack for name, attack in attacks(key, jwk).items() if "issuer" not in name):
        assert check.verify(good)
        for _ in range(2):
            with pytest.raises(Refusal):
                check.verify(attack)


def test_the_clock_is_forgiven_as_much_as_was_said(tmp_path: Path, key: Any) -> None:
    path = write_keys(tmp_path / "jwks", public_jwk(key, "1"))
    late, early = token(key, exp=int(time.time()) - 30), token(key, nbf=int(time.time()) + 30)
    for one in (late, early):
        assert verifier(path, leeway_seconds=100).verify(one)
        with pytest.raises(Refusal):
            verifier(path, leeway_seconds=5).verify(one)


def test_keys_rotate_side_by_side_and_a_removed_one_ends_at_once(tmp_path: Path, key: Any) -> None:
    new = ed25519.Ed25519PrivateKey.generate()
    path = write_keys(tmp_path / "jwks", public_jwk(key, "1"))
    check, old_token, new_token = verifier(path), token(key), token(new, kid="2")
    assert check.verify(old_token)
    with pytest.raises(Refusal):
        check.verify(new_token)
    write_keys(path, public_jwk(key, "1"), public_jwk(new, "2"))
    assert check.verify(old_token).user == check.verify(new_token).user
    write_keys(path, public_jwk(new, "2"))
    assert check.verify(new_token)
    with pytest.raises(Refusal, match="not signed by a key"):
        check.verify(old_token)  # which was remembered


def test_the_same_key_id_with_another_key_ends_what_was_remembered(tmp_path: Path, key: Any) -> None:
    path = write_keys(tmp_path / "jwks", public_jwk(key, "1"))
    check, old_token = verifier(path), token(key)
    assert check.verify(old_token)
    write_keys(path, public_jwk(ed25519.Ed25519PrivateKey.generate(), "1"))
    with pytest.raises(Refusal):
        check.verify(old_token)


@pytest.mark.parametrize(
    "content", ['{"keys": [{"kty": "OKP", "crv"', "", "[]", '{"keys": [5]}', "[" * 100_000, '{"keys": null}']
)
def test_a_damaged_file_leaves_the_last_good_keys_and_says_so(
    tmp_path: Path, key: Any, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_keys(tmp_path / "jwks", public_jwk(key, "1"))
    check = verifier(path)
    path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert check.verify(token(key))
        assert check.verify(token(key, sub="bob"))
    assert check.keys.problem is not None
    assert str(path) in check.keys.problem
    assert len([r for r in caplog.records if "last good" in r.message]) == 1
    write_keys(path, public_jwk(key, "1"))
    assert check.verify(token(key))
    assert check.keys.problem is None


def test_a_file_that_changes_twice_within_a_tick_of_its_clock_is_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "YOUNG", 3600.0)
    path = tmp_path / "file"
    path.write_bytes(b"one")
    watched = Watched(str(path), "what", bytes, private=False)
    assert watched.current() == b"one"
    tick = path.stat().st_mtime_ns
    path.write_bytes(b"two")
    os.utime(path, ns=(tick, tick))
    assert watched.current() == b"two"


def test_a_lost_file_leaves_the_last_good_keys(tmp_path: Path, key: Any) -> None:
    path = write_keys(tmp_path / "jwks", public_jwk(key, "1"))
    check = verifier(path)
    path.unlink()
    assert check.verify(token(key))
    assert "cannot be read" in (check.keys.problem or "")


def test_a_token_is_remembered_until_it_ends(
    tmp_path: Path, key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = verifier(write_keys(tmp_path / "jwks", public_jwk(key, "1")), leeway_seconds=0)
    good = token(key, exp=int(time.time()) + 100)
    first = check.verify(good)
    monkeypatch.setattr(jwt, "decode", lambda *_, **__: pytest.fail("verified again"))
    assert check.verify(good) is first
    monkeypatch.undo()
    later = time.time() + 200
    monkeypatch.setattr(tokens.time, "time", lambda: later)
    with monkeypatch.context() as clock, pytest.raises(Refusal):
        # PyJWT reads the clock elsewhere: it is asked again, which is what counts.
        clock.setattr(jwt, "decode", lambda *_, **__: (_ for _ in ()).throw(jwt.ExpiredSignatureError))
        check.verify(good)


def test_what_is_remembered_is_bounded(tmp_path: Path, key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED", 3)
    check = verifier(write_keys(tmp_path / "jwks", public_jwk(key, "1")))
    for number in range(10):
        check.verify(token(key, sub=str(number)))
    assert len(check._known) == 3


def test_headers_that_are_no_single_bearer_token_are_refused(tmp_path: Path, key: Any) -> None:
    path = write_keys(tmp_path / "jwks", public_jwk(key, "1"))
    good = b"Bearer " + token(key)
    check = verifier(path)
    assert check.identify([good]).user
    assert check.identify([good.replace(b"Bearer", b"bearer")]).user
    for wrong in ([], [good, good], [token(key)], [b"Basic YTpi"], [b""], [b"Bearer"], [b"Bearer  "]):
        with pytest.raises(Refusal) as refused:
            check.identify(wrong)
        assert refused.value.status == 401
    with pytest.raises(Refusal) as refused:
        check.identify([])
    assert refused.value.headers == ((b"www-authenticate", b"Bearer"),), (
        "as RFC 6750 has it: no error was made"
    )
    assert verifier(path, required=False).identify([]).user == ""
    with pytest.raises(Refusal):
        verifier(path, required=False).identify([b"Bearer no"])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([], "has no key"),
        ([{"kty": "OKP", "crv": "Ed25519", "x": "AA", "d": "AA"}], "private key"),
        ([{"kty": "OKP", "crv": "Ed25519", "x": "AA"}], "no usable OKP key"),
        ([{"kty": "OKP", "crv": "Ed25519", "x": "AA", "use": "enc"}], "has no key"),
        ([{"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": 5}], "no text"),
        ([{"kty": "quantum"}], "has no key"),
    ],
)
def test_a_file_without_usable_keys_is_refused_at_the_start(tmp_path: Path, keys: Any, said: str) -> None:
    path = write_keys(tmp_path / "jwks", *keys)
    with pytest.raises(ValueError, match=said) as error:
        verifier(path)
    assert "serving.jwt.jwks" in str(error.value)


def test_short_keys_and_two_of_one_name_are_refused(tmp_path: Path, key: Any) -> None:
    path = write_keys(tmp_path / "jwks", public_jwk(rsa.generate_private_key(65537, 1024), "1"))
    with pytest.raises(ValueError, match="2048"):
        verifier(path, "RS256")
    write_keys(path, shared_jwk(b"s" * 16, "1"))
    with pytest.raises(ValueError, match="256") as error:
        verifier(path, "HS256")
    assert "s" * 16 not in str(error.value)
    write_keys(path, public_jwk(key, "1"), public_jwk(key, "1"))
    with pytest.raises(ValueError, match="same `kid`"):
        verifier(path)


def test_keys_from_the_environment_and_files_that_others_write(
    tmp_path: Path, key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_TEST_KEYS", json.dumps({"keys": [public_jwk(key, "1")]}))
    assert verifier(Path("env:ASSAY_TEST_KEYS")).verify(token(key))
    with pytest.raises(ValueError, match="NOT_THERE is not set"):
        verifier(Path("env:NOT_THERE"))
    path = write_keys(tmp_path / "jwks", public_jwk(key, "1"))
    path.chmod(0o666)
    with pytest.raises(ValueError, match="everybody may write"):
        verifier(path)
    path.chmod(0o600)
    nobody = 65_534
    if os.geteuid() == 0:
        os.chown(path, nobody, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: nobody)
    with pytest.raises(ValueError, match="belongs to another user"):
        verifier(path)
    (tmp_path / "large").write_bytes(b" " * (sources.LARGEST + 1))
    with pytest.raises(ValueError, match="that is no file of keys"):
        verifier(tmp_path / "large")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="is no file"):
        verifier(tmp_path / "fifo")
