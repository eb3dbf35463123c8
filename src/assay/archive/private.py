"""What must not leave the machine with an archive: secrets anywhere, and paths and names of users in text logs."""

import gzip
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LEAST = 8
"""Characters of a value that is looked for: a shorter one is found in any text."""
_WORDS = frozenset(
    [
        "TOKEN",
        "TOKENS",
        "SECRET",
        "SECRETS",
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "PASS",
        "CREDENTIAL",
        "CREDENTIALS",
        "KEY",
        "APIKEY",
        "AUTH",
        "COOKIE",
        "WEBHOOK",
        "PAT",
        "DSN",
    ]
)
_IN_ADDRESS = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
_KNOWN = re.compile(
    rb"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,}|glpat-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}"
    rb"|xox[abprs]-[A-Za-z0-9-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|sk-[A-Za-z0-9_-]{32,})\b"
    rb"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
)
"""Tokens that tell what they are by their form."""


@dataclass(frozen=True)
class Private:
    """What to look for, on this machine and in this environment."""

    secrets: Mapping[bytes, str] = field(default_factory=dict)
    """Value: the environment variable that has it."""
    places: tuple[tuple[str, str], ...] = ()
    """Paths of this machine, longest first, and what stands for each in a text log."""
    user: str | None = None

    def check(self, place: str, content: bytes | Path) -> None:
        """Raises: ValueError for a file that holds a secret: it names the variable and not the value."""
        data = content if isinstance(content, bytes) else content.read_bytes()
        if place.endswith(".gz"):
            try:
                data = gzip.decompress(data)
            except (OSError, EOFError, zlib.error):
                return
        held = [name for value, name in self.secrets.items() if value in data]
        if held or (known := _KNOWN.search(data)) is not None:
            what = (
                f"the value of the environment variable {held[0]}"
                if held
                else f"what looks like a secret ({known[0][:8].decode('ascii', 'replace')}…)"  # type: ignore[index]
            )
            where = content if isinstance(content, Path) else place
            raise ValueError(
                f"{where}: holds {what}: nothing is archived with a secret in it; take it out of where it comes from, run "
                "that again, and change the secret"
            )

    def text_log(self, content: bytes) -> bytes:
        """A text log without secrets, without paths of this machine and without its user's name."""
        for value, name in self.secrets.items():
            content = content.replace(value, f"[value of {name}]".encode())
        text = _KNOWN.sub(b"[secret]", content).decode("utf-8", "replace")
        for path, stands in self.places:
            text = re.sub(rf"{re.escape(path)}(?=[/\s'\":,)\]]|$)", stands, text, flags=re.MULTILINE)
        if self.user is not None:
            text = re.sub(rf"(?<=/){re.escape(self.user)}(?=/)", "USER", text)
        return text.encode()


def private(code: Path, environment: Mapping[str, str] | None = None) -> Private:
    """Of this process. code: the checkout that runs."""
    environment = os.environ if environment is None else environment
    places = {str(code.absolute()): "CODE", str(Path.cwd()): ".", environment.get("HOME", ""): "~"}
    known = [(path, stands) for path, stands in places.items() if len(path) > 1]
    user = environment.get("USER") or environment.get("LOGNAME") or ""
    return Private(
        secrets=dict(_secrets(environment.items())),
        places=tuple(sorted(known, key=lambda one: -len(one[0]))),
        user=user if len(user) > 2 else None,
    )


def _secrets(variables: Iterable[tuple[str, str]]) -> Iterable[tuple[bytes, str]]:
    """Values of variables whose names say that they are secret, and passwords in addresses. Paths are none."""
    for name, value in sorted(variables):
        for found in _IN_ADDRESS.findall(value):
            if len(found) >= LEAST:
                yield os.fsencode(found), name
        if (
            _WORDS & set(re.split(r"[^A-Z0-9]+", name.upper()))
            and len(value) >= LEAST
            and value[0] not in "/.~"
        ):
            yield os.fsencode(value), name
