"""Signed requests: whose they are, that nobody changed them, and that they come for the first time.

What is signed is this text in ASCII, its lines joined by a line feed, none at the end:

    ASSAY-HMAC-SHA256
    POST
    /predict
    TIMESTAMP    seconds since 1970, decimal
    NONCE        16 to 64 of A-Z a-z 0-9 _ -
    SHA256       of the body, 64 lower-case hexadecimal digits

with the target as it is sent, query included. The signature is HMAC-SHA256 by the caller's secret, 64 lower-case
hexadecimal digits.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from assay.release.schema import Signatures
from assay.release.security.refusal import no_signature, too_many
from assay.release.security.sources import Watched
from assay.release.security.table import KEY, FullError, Table

KEY_ID, TIMESTAMP, NONCE, SIGNATURE = (
    b"x-assay-key",
    b"x-assay-timestamp",
    b"x-assay-nonce",
    b"x-assay-signature",
)
SLOTS = 2**20
"""Places for nonces: about half of them can be taken before a bucket is full."""
LEAST_SECRET = 32
"""Bytes."""
_WHAT = "serving.signatures.secrets"
_KEY_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")
_NONCE = re.compile(rb"[A-Za-z0-9_-]{16,64}")
_TIMESTAMP = re.compile(rb"[0-9]{1,12}")
_SIGNATURE = re.compile(rb"[0-9a-f]{64}")


def canonical(method: bytes, target: bytes, timestamp: bytes, nonce: bytes, body: bytes) -> bytes:
    digest = hashlib.sha256(body).hexdigest().encode()
    return b"\n".join((b"ASSAY-HMAC-SHA256", method, target, timestamp, nonce, digest))


def sign(key_id: str, secret: bytes, method: str, target: str, body: bytes) -> dict[str, str]:
    """The four headers of a new request."""
    timestamp, nonce = str(int(time.time())), secrets.token_urlsafe(24)
    text = canonical(method.encode(), target.encode(), timestamp.encode(), nonce.encode(), body)
    signature = hmac.digest(secret, text, "sha256").hex()
    values = (key_id, timestamp, nonce, signature)
    return {
        name.decode(): value
        for name, value in zip((KEY_ID, TIMESTAMP, NONCE, SIGNATURE), values, strict=True)
    }


def parse_secrets(content: bytes) -> dict[bytes, bytes]:
    """By key id, from lines `KEY_ID SECRET`; empty lines and those that begin with # are passed over.

    Raises: ValueError naming a line, and nothing of what is in it.
    """
    if content and not content.endswith(b"\n"):
        raise ValueError(
            f"{_WHAT}: the last line has no end: the file may be half written; end it with a new line"
        )
    found: dict[bytes, bytes] = {}
    for number, text in enumerate(content.splitlines(), start=1):
        if not text.strip() or text.startswith(b"#"):
            continue
        words = text.split()
        if len(words) != 2 or not _KEY_ID.fullmatch(words[0]):
            raise ValueError(
                f"{_WHAT}: line {number}: write `KEY_ID SECRET`, the id of letters, digits, `_.-`"
            )
        if len(words[1]) < LEAST_SECRET:
            raise ValueError(
                f"{_WHAT}: line {number}: the secret is shorter than {LEAST_SECRET} characters; "
                "`openssl rand -hex 32` makes one"
            )
        if words[0] in found:
            raise ValueError(f"{_WHAT}: line {number}: an id for the second time; give each secret its own")
        found[words[0]] = words[1]
    return found


def watch_secrets(source: str) -> Watched[dict[bytes, bytes]]:
    """Raises: ValueError telling what is wrong with the file."""
    watched = Watched(source, _WHAT, parse_secrets, private=True)
    if not watched.current():
        raise ValueError(f"{_WHAT}: {source}: is empty; write lines `KEY_ID SECRET`")
    return watched


class _Signed(NamedTuple):
    key_id: bytes
    timestamp: bytes
    nonce: bytes
    signature: bytes


class SignatureCheck:
    """Of one worker of the version with a role. `nonces` is shared by all workers of both versions."""

    def __init__(self, settings: Signatures, nonces: Path, role: str) -> None:
        """Raises: ValueError where the secrets cannot be used; OSError where `nonces` cannot be made."""
        self._window = settings.window_seconds
        self.secrets = watch_secrets(settings.secrets)
        self._nonces = Table(nonces, SLOTS)
        self._role = {"stable": 1, "candidate": 2}[role]
        self._nobody = secrets.token_bytes(32)

    def verify(
        self, method: bytes, target: bytes, headers: Mapping[bytes, bytes], body: bytes, request_id: bytes
    ) -> bytes:
        """The caller's key id. headers: names in lower case. request_id: the front's, or one that was just drawn.

        Raises: Refusal.
        """
        signed = _read(headers)
        now = time.time()
        apart = now - int(signed.timestamp)
        if not -self._window <= apart <= self._window:
            raise no_signature(
                f"the request was signed {abs(apart):.0f} s {'ago' if apart > 0 else 'ahead of this clock'}; "
                f"{self._window:g} s are allowed: sign it anew, and look at the clocks"
            )
        # Somebody unknown takes as long as a wrong signature.
        secret = self.secrets.current().get(signed.key_id)
        text = canonical(method, target, signed.timestamp, signed.nonce, body)
        expected = hmac.digest(secret or self._nobody, text, "sha256").hex().encode()
        if not hmac.compare_digest(expected, signed.signature) or secret is None:
            raise no_signature("the signature is not that of a caller known here over this request")
        self._take(signed, request_id, now)
        return signed.key_id

    def _take(self, signed: _Signed, request_id: bytes, now: float) -> None:
        """A nonce belongs to the request with which it came first, and each version takes that one once.

        So the front may give a request that failed in one version to the other, or a copy to a shadow; whoever
        sends it again gets another request id from the front.
        """
        tag = int.from_bytes(hashlib.blake2b(request_id, digest_size=7).digest(), "little") << 8
        ends = int(int(signed.timestamp) + self._window) + 2
        replayed = False

        def update(known: int | None) -> tuple[int, int] | None:
            nonlocal replayed
            replayed = known is not None and (known & ~0xFF != tag or bool(known & self._role))
            return None if replayed else ((known or tag) | self._role, ends)

        key = hashlib.blake2b(signed.key_id + b"\n" + signed.nonce, digest_size=KEY).digest()
        try:
            self._nonces.change(key, now, update)
        except FullError:
            raise too_many("too many signed requests within the window", round(self._window)) from None
        if replayed:
            raise no_signature("the request came before: a nonce is used once; sign it anew")

    def close(self) -> None:
        self._nonces.close()


def _read(headers: Mapping[bytes, bytes]) -> _Signed:
    """Raises: Refusal."""
    for name, form, what in (
        (KEY_ID, _KEY_ID, "1 to 64 letters, digits, `_.-`"),
        (TIMESTAMP, _TIMESTAMP, "seconds since 1970"),
        (NONCE, _NONCE, "16 to 64 letters, digits, `_-`"),
        (SIGNATURE, _SIGNATURE, "64 lower-case hexadecimal digits"),
    ):
        if not form.fullmatch(headers.get(name, b"")):
            raise no_signature(f"the header {name.decode()} is missing or is not {what}")
    return _Signed(*(headers[name] for name in (KEY_ID, TIMESTAMP, NONCE, SIGNATURE)))
