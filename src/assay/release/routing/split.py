"""Which version a user has: the answer of nginx's `split_clients`, for those who ask without nginx.

nginx hashes the text with MurmurHash2 (Austin Appleby's 32-bit variant, its seed 0 combined with the length) and gives
the first bucket to hashes below its share of 0xffffffff (`ngx_murmurhash.c`, `ngx_http_split_clients_module.c`). The
candidate's bucket begins at 0, so that a larger share keeps every user that a smaller one had.
"""

from dataclasses import dataclass
from typing import NamedTuple

from assay.release.observations import Role, Route

UNITS = 10_000
"""Shares are counted in hundredths of a percent: nginx knows none smaller."""
_FACTOR, _MASK = 0x5BD1E995, 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, as nginx computes it."""
    value = len(data) & _MASK
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _FACTOR & _MASK
        word = (word ^ word >> 24) * _FACTOR & _MASK
        value = value * _FACTOR & _MASK ^ word
    if rest := data[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * _FACTOR & _MASK
    value = (value ^ value >> 13) * _FACTOR & _MASK
    return value ^ value >> 15


def units(share: float) -> int:
    """A share in hundredths of a percent.

    Raises: ValueError where it is not between 0 and 1, or above 0 and yet too small to be told from it.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share}: write a number between 0 and 1")
    count = round(share * UNITS)
    if share > 0 and count == 0:
        raise ValueError(f"share {share}: the smallest is 0.0001 (0.01% of users); write that or more")
    return count


def in_candidate(salt: str, user: str, share: float) -> bool:
    """Whether the split gives a user (its digest) the candidate. An empty user never has it."""
    count = units(share)
    if not user or count == 0:
        return False
    return count == UNITS or murmur2(f"{salt}:{user}".encode()) < count * _MASK // UNITS


class Choice(NamedTuple):
    """A version, and why."""

    assigned: Role
    route: Route


@dataclass(frozen=True)
class Split:
    """All that decides who has which version, for applications that call a model in their own process.

    `early` and `testers` are digests; `any_tester` lets everyone choose by header.
    """

    salt: str
    share: float
    early: frozenset[str] = frozenset()
    testers: frozenset[str] = frozenset()
    any_tester: bool = False
    candidate: bool = True
    """False: there is none, and everyone has the stable version."""

    def choose(self, user: str, wish: str = "") -> Choice:
        """The version of a user (a digest; empty: anonymous) who may have asked for one by header."""
        route = self._route(user, wish)
        if not self.candidate:
            return Choice("stable", route)
        if route == "header":
            return Choice("candidate" if wish == "candidate" else "stable", route)
        chosen = route == "early" or (route == "split" and in_candidate(self.salt, user, self.share))
        return Choice("candidate" if chosen else "stable", route)

    def _route(self, user: str, wish: str) -> Route:
        if wish in ("stable", "candidate") and (self.any_tester or user in self.testers):
            return "header"
        if user in self.early:
            return "early"
        return "split" if user else "anonymous"
