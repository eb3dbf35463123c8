"""Bearer tokens (RFC 7519): verified by the release's keys and its algorithms, whatever a token says of itself."""

import hashlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import jwt

from assay.release.schema import Jwt
from assay.release.security.jwks import Keys, watch_keys
from assay.release.security.refusal import no_identity
from assay.release.security.salt import user_digest

LONGEST = 8192
"""Bytes of a token."""
LONGEST_SUBJECT = 1024
REMEMBERED = 16_384
"""Most tokens whose verification is remembered."""

_ANEW = "ask who issued it for another"
_REASONS: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: f"the token has expired; {_ANEW}",
    jwt.ImmatureSignatureError: "the token is not valid yet; look at the clocks",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is from another issuer",
    jwt.exceptions.InvalidSubjectError: "the token's `sub` is no text",
    jwt.InvalidSignatureError: "the token is not signed by a key that is accepted here",
}


class Verified(NamedTuple):
    """user: salted digest of who asks. expires: seconds since 1970, without leeway."""

    user: str
    expires: float


ANONYMOUS = Verified("", 0.0)


class Verifier:
    """Verifies tokens, and remembers by their digest, never longer than they or their key live."""

    def __init__(self, settings: Jwt, salt: bytes) -> None:
        """Raises: ValueError where the keys cannot be used."""
        self._settings, self._salt = settings, salt
        self.keys = watch_keys(settings.jwks, settings.algorithms)
        self._known: dict[bytes, Verified] = {}
        self._known_by: Keys = self.keys.current()

    def identify(self, authorization: Sequence[bytes]) -> Verified:
        """From the values of all headers `Authorization` of a request. Raises: Refusal."""
        if not authorization:
            if self._settings.required:
                raise no_identity("no token; send `Authorization: Bearer TOKEN`", asked=False)
            return ANONYMOUS
        if len(authorization) > 1:
            raise no_identity("more than one header Authorization")
        scheme, _, token = authorization[0].partition(b" ")
        if scheme.lower() != b"bearer":
            raise no_identity("no bearer token; send `Authorization: Bearer TOKEN`", asked=False)
        return self.verify(token.strip(b" "))

    def verify(self, token: bytes) -> Verified:
        """Raises: Refusal."""
        if len(token) > LONGEST:
            raise no_identity(f"the token has more than {LONGEST} bytes")
        keys = self.keys.current()
        if keys is not self._known_by:
            self._known.clear()
            self._known_by = keys
        digest = hashlib.sha256(token).digest()
        known = self._known.get(digest)
        if known is not None:
            if time.time() < known.expires:
                return known
            del self._known[digest]
        verified = self._verify(token, keys)
        if len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[digest] = verified
        return verified

    def _verify(self, token: bytes, keys: Keys) -> Verified:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise no_identity("this is no token: three parts in base64url, joined by dots") from None
        if "crit" in header:
            raise no_identity("the token asks for extensions (`crit`) that are not known here")
        key = keys.of(header.get("kid"), header.get("alg"))
        if key is None:
            raise no_identity(_REASONS[jwt.InvalidSignatureError])
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[one for one in key.algorithms if one in self._settings.algorithms],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway_seconds,
                options={"require": ["exp", "sub", "aud"]},
            )
            return Verified(user_digest(self._salt, _subject(claims["sub"])), float(claims["exp"]))
        except jwt.MissingRequiredClaimError as missing:
            raise no_identity(f"the token has no `{missing.claim}`") from None
        except jwt.PyJWTError as error:
            reason = _REASONS.get(type(error), "the token's content is not what RFC 7519 asks for")
            raise no_identity(reason) from None
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise no_identity("the token's content is not what RFC 7519 asks for") from None


def _subject(sub: str) -> str:
    """Raises: Refusal for what names nobody."""
    try:
        length = len(sub.encode())
    except UnicodeEncodeError:
        raise no_identity("the token's `sub` is no text") from None
    if not 1 <= length <= LONGEST_SUBJECT:
        raise no_identity(f"the token's `sub` has {length} bytes; 1 to {LONGEST_SUBJECT} are taken")
    return sub
