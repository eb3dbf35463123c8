"""A JWK set (RFC 7517): which key may verify which algorithm."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import jwt

from assay.release.security.sources import ENVIRONMENT, Watched, read_source

_KINDS = {
    "oct": ("HS256", "HS384", "HS512"),
    "RSA": ("RS256",),
    "EC": ("ES256",),
    "OKP": ("EdDSA",),
}
_CURVES = {"EC": "P-256", "OKP": "Ed25519"}
_WHAT = "serving.jwt.jwks"


class Key(NamedTuple):
    """One key, and the algorithms that it verifies: those of its kind that the release accepts."""

    kid: str | None
    algorithms: tuple[str, ...]
    key: Any


class Keys(NamedTuple):
    """Those of one reading of the file."""

    all: tuple[Key, ...]

    def of(self, kid: Any, algorithm: Any) -> Key | None:
        """The key that a token names, or the only one there can be where it names none."""
        fitting = [key for key in self.all if algorithm in key.algorithms]
        if kid is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.kid == kid), None)


def watch_keys(source: str, algorithms: Iterable[str]) -> Watched[Keys]:
    """Raises: ValueError telling what is wrong with the file."""
    accepted = tuple(algorithms)
    content = read_source(source, _WHAT, private=False)
    where = source.removeprefix(ENVIRONMENT)
    secret = _is_secret(content)
    watched = Watched(
        source, _WHAT, lambda text: parse_keys(text, accepted, where, secret=secret), private=secret
    )
    if not watched.current().all:
        raise ValueError(f"{_WHAT}: {where}: has no key for {', '.join(accepted)}")
    return watched


def _is_secret(content: bytes) -> bool:
    try:
        return any(isinstance(key, dict) and key.get("kty") == "oct" for key in json.loads(content)["keys"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def parse_keys(content: bytes, accepted: tuple[str, ...], where: str, *, secret: bool) -> Keys:
    """secret: whether the file is one that its owner alone may read, so that shared keys may be in it.

    Raises: ValueError telling what is wrong, and nothing of what is in the keys.
    """
    try:
        listed = json.loads(content)["keys"]
    except (ValueError, RecursionError, KeyError, TypeError):
        listed = None
    if not isinstance(listed, list):
        raise ValueError(f'{_WHAT}: {where}: is no JWK set; write {{"keys": [{{"kty": …, "kid": …}}]}}')
    keys: list[Key] = []
    for place, jwk in enumerate(listed):
        name = f"{_WHAT}: {where}: keys[{place}]"
        if not isinstance(jwk, dict):
            raise ValueError(f"{name}: is no object")
        key = _key(jwk, accepted, name, secret)
        if key is not None:
            if any(key.kid == other.kid for other in keys):
                raise ValueError(f"{name}: another key has the same `kid`; give each its own")
            keys.append(key)
    return Keys(tuple(keys))


def _key(jwk: dict[str, Any], accepted: tuple[str, ...], name: str, secret: bool) -> Key | None:
    """None: not for verifying what is accepted. Raises: ValueError."""
    kind, alg, kid = jwk.get("kty"), jwk.get("alg"), jwk.get("kid")
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        return None
    if kind not in _KINDS or jwk.get("crv") != _CURVES.get(kind):
        return None
    if kid is not None and not isinstance(kid, str):
        raise ValueError(f"{name}: `kid` is no text")
    if kind != "oct" and "d" in jwk:
        raise ValueError(f"{name}: is a private key; who verifies has the public one: leave out d, p, q, …")
    if kind == "oct" and not secret:
        raise ValueError(
            f"{name}: is a shared key in a file that had none; start anew, so that it is guarded"
        )
    fitting = tuple(one for one in _KINDS[kind] if one in accepted and alg in (None, one))
    if not fitting:
        return None
    try:
        made = jwt.PyJWK(jwk, algorithm=fitting[0])
        long = [one for one in fitting if _is_long_enough(one, made.key)]
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        raise ValueError(f"{name}: is no usable {kind} key") from None
    if not long:
        raise ValueError(
            f"{name}: is too short for {fitting[0]}; RFC 7518 asks for {_least(fitting[0])} bits"
        )
    return Key(kid, tuple(long), made.key)


def _least(algorithm: str) -> int:
    return 2048 if algorithm == "RS256" else int(algorithm[-3:])


def _is_long_enough(algorithm: str, key: Any) -> bool:
    if algorithm.startswith("HS"):
        return 8 * len(key) >= _least(algorithm)
    return algorithm != "RS256" or key.key_size >= _least(algorithm)
