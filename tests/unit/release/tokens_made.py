"""Keys and tokens as an issuer makes them, and as attackers do."""

import base64
import hashlib
import hmac
import json
import os
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "predictions"


def public_jwk(key: Any, kid: str | None) -> dict[str, Any]:
    makers: list[tuple[type, Any]] = [
        (rsa.RSAPrivateKey, RSAAlgorithm),
        (ec.EllipticCurvePrivateKey, ECAlgorithm),
        (ed25519.Ed25519PrivateKey, OKPAlgorithm),
    ]
    maker = next(maker for kind, maker in makers if isinstance(key, kind))
    jwk: dict[str, Any] = maker.to_jwk(key.public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    return jwk | ({} if kid is None else {"kid": kid})


def shared_jwk(secret: bytes, kid: str) -> dict[str, Any]:
    return {"kty": "oct", "k": encoded(secret).decode(), "kid": kid}


def write_keys(path: Path, *keys: dict[str, Any]) -> Path:
    """As a rotation should: whole, by renaming."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"keys": keys}))
    beside.chmod(0o600)
    beside.replace(path)
    return path


def token(key: Any, algorithm: str = "EdDSA", kid: str | None = "1", **claims: Any) -> bytes:
    """A claim that is None is left out."""
    whole = {"sub": "alice", "aud": AUDIENCE, "exp": int(time.time()) + 600} | claims
    content = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(content, key, algorithm=algorithm, headers={} if kid is None else {"kid": kid}).encode()


def encoded(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def forged(header: dict[str, Any], claims: dict[str, Any] | bytes, secret: bytes | None) -> bytes:
    """Any header over any content, signed by HMAC-SHA256 where there is a secret."""
    content = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    text = encoded(json.dumps(header).encode()) + b"." + encoded(content)
    signature = b"" if secret is None else hmac.digest(secret, text, hashlib.sha256)
    return text + b"." + encoded(signature)


def attacks(key: ed25519.Ed25519PrivateKey, jwk: dict[str, Any]) -> dict[str, bytes]:
    """Tokens that none who accepts `jwk` under EdDSA may take. key: its private half."""
    good = {"sub": "alice", "aud": AUDIENCE, "exp": int(time.time()) + 600}
    public = base64.urlsafe_b64decode(jwk["x"] + "=")
    other = ed25519.Ed25519PrivateKey.generate()
    whole = token(key)
    head, content, signature = whole.split(b".")
    longer = encoded(json.dumps(good | {"sub": "root"}).encode())
    return {
        "none": forged({"alg": "none", "kid": "1"}, good, None),
        "None": forged({"alg": "None", "kid": "1"}, good, None),
        "no algorithm": forged({"kid": "1"}, good, b""),
        "public key as secret": forged({"alg": "HS256", "kid": "1"}, good, public),
        "public JWK as secret": forged({"alg": "HS256", "kid": "1"}, good, json.dumps(jwk).encode()),
        "EdDSA said, HMAC done": forged({"alg": "EdDSA", "kid": "1"}, good, public),
        "another key": token(other),
        "own key in the header": jwt.encode(
            good, other, algorithm="EdDSA", headers={"jwk": public_jwk(other, "1"), "kid": "1"}
        ).encode(),
        "unknown key": token(key, kid="2"),
        "key id is a list": forged({"alg": "EdDSA", "kid": ["1"]}, good, b""),
        "key id is a path": forged({"alg": "HS256", "kid": "../../../../dev/null"}, good, b""),
        "algorithm is an object": forged({"alg": {}, "kid": "1"}, good, b""),
        "content changed": b".".join((head, longer, signature)),
        "no signature": b".".join((head, content, b"")),
        "half": whole[: len(whole) // 2],
        "expired": token(key, exp=int(time.time()) - 60),
        "no end": token(key, exp=None),
        "end is a text": token(key, exp="soon"),
        "end is infinite": token(key, exp=float("inf")),
        "end is too large": forged_by(key, b'{"sub":"a","aud":"predictions","exp":1' + b"0" * 400 + b"}"),
        "not yet": token(key, nbf=int(time.time()) + 6000),
        "issued later": token(key, iat=int(time.time()) + 6000),
        "no subject": token(key, sub=None),
        "empty subject": token(key, sub=""),
        "subject is a list": forged_by(key, json.dumps(good | {"sub": ["alice"]}).encode()),
        "half a character": forged_by(key, json.dumps(good | {"sub": "\ud800"}).encode()),
        "long subject": token(key, sub="x" * 2000),
        "another audience": token(key, aud="others"),
        "no audience": token(key, aud=None),
        "another issuer": token(key, iss="https://evil.example"),
        "no issuer": token(key, iss=None),
        "content is a list": forged_by(key, b"[]"),
        "content is deep": forged_by(key, b"[" * 3000),
        "critical": jwt.encode(
            good, key, algorithm="EdDSA", headers={"crit": ["x"], "x": 1, "kid": "1"}
        ).encode(),
        "empty": b"",
        "dots": b"..",
        "bytes": os.urandom(64),
        "unicode": "ключ.ключ.ключ".encode(),
        "long": b"a" * 100_000,
    }


def forged_by(key: ed25519.Ed25519PrivateKey, content: bytes) -> bytes:
    """A good signature over any content."""
    text = encoded(json.dumps({"alg": "EdDSA", "kid": "1"}).encode()) + b"." + encoded(content)
    return text + b"." + encoded(key.sign(text))
