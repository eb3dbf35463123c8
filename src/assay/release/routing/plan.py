"""What a front is to do: one generation of its configuration."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from assay.release.routing.split import units

_PATH = re.compile(r"/[A-Za-z0-9 ._/@%+=~-]*")
_GENERATIONS = 10**9
GO = "go"
"""File beside a generation without which all have the stable version: to remove it takes no room on a full disk."""


class FrontError(RuntimeError):
    """The front did not do what it was told; what it did before, it still does."""


@dataclass(frozen=True)
class Plan:
    """Who goes where. Addresses are `IP:PORT` or `unix:/PATH`."""

    generation: int
    """Grows with every change; a number is used once."""
    share: float
    """Of identified users who have the candidate, in steps of 0.0001."""
    stable: str
    candidate: str | None = None
    """None: there is none, and nobody is sent there."""
    identity: str | None = None
    """Address of the identity service; None: every user is anonymous."""
    early: tuple[str, ...] = ()
    """Users (`sub`) who have the candidate whatever the share; a ramp leaves them out until its first step."""

    def __post_init__(self) -> None:
        if not 0 <= self.generation < _GENERATIONS:
            raise ValueError(f"generation {self.generation}: write a whole number from 0 on")
        if units(self.share) and self.candidate is None:
            raise ValueError(f"share {self.share} without a candidate: name its address, or write share 0")
        for name in ("stable", "candidate", "identity"):
            if (address := getattr(self, name)) is not None:
                check_address(address, name)
        if self.stable == self.candidate:
            raise ValueError(f"stable and candidate have the same address, {self.stable}: give each its own")


def check_address(address: str, name: str) -> None:
    """Raises: ValueError unless it is `IP:PORT` or `unix:/PATH`, in characters that mean themselves to nginx."""
    if address.startswith("unix:"):
        good = _PATH.fullmatch(address.removeprefix("unix:")) is not None
    else:
        host, _, port = address.rpartition(":")
        good = port.isascii() and port.isdigit() and 0 < int(port) < 65536 and _is_host(host)
    if not good:
        raise ValueError(
            f"{name}: {address!r} is no address; write IP:PORT, e.g. 127.0.0.1:9001, or unix:/PATH"
        )


def check_folder(folder: Path) -> None:
    """Raises: ValueError where nginx would read something else in a folder's name than we wrote."""
    if not _PATH.fullmatch(str(folder)):
        raise ValueError(
            f"{folder}: a front cannot be told of this folder; release in one whose absolute path has only letters, "
            "digits, spaces and . _ - + = ~ % @ /"
        )


def _is_host(host: str) -> bool:
    """Literal addresses alone: of a name, logs would show what it was resolved to."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return (ipaddress.ip_address(bare).version == 6) == (bare != host)
    except ValueError:
        return False
