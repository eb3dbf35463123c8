"""A release's salt, and the digest that stands for a user in every log."""

import contextlib
import hmac
import os
import re
import secrets
from pathlib import Path

from assay.release.security.sources import read_source

_FORM = re.compile(rb"[0-9a-f]{32}\n?")


def make_salt(path: Path) -> bytes:
    """The salt in the file; drawn and written where there is none. Raises: ValueError where it cannot be used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(16) + "\n")
                file.flush()
                os.fsync(descriptor)
            if not path.exists():
                os.link(beside, path)  # fails where another was first: theirs counts
        finally:
            beside.unlink()
    return read_salt(path)


def read_salt(path: Path) -> bytes:
    """32 hexadecimal digits. Raises: ValueError for a file that others may read, or that is none of `make_salt`."""
    content = read_source(str(path), "the release's salt", private=True)
    if not _FORM.fullmatch(content):
        raise ValueError(
            f"the release's salt: {path}: is not 32 hexadecimal digits; restore it from a backup; or, if the "
            "release has not begun, remove it: a new one is drawn, which assigns every user anew"
        )
    return content.strip()


def user_digest(salt: bytes, sub: str) -> str:
    """HMAC-SHA256 of the identity by the salt's digits as text: its first 32 hexadecimal digits."""
    return hmac.digest(salt, sub.encode(), "sha256").hex()[:32]
