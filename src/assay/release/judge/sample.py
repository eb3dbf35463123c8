"""Which users of a step are compared, in bounded memory."""

import base64
import hashlib
from typing import Any

import numpy as np

MOST_USERS = 2**17
"""Per version that are held; beyond, every second one by a hash, and so on."""
_HASHED = 12


def key_of(user: str) -> int:
    """96 bits to know a user by and to draw by. Independent of the split, which hashes otherwise."""
    return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=_HASHED).digest(), "big")


class Users:
    """The users of each version that were seen, and which of them had an error.

    Where a version has too many, only users whose hash ends in so many zero bits are compared from then on. That
    depends on nothing that they do, so it changes the share of the candidate among those compared and nothing else.
    """

    def __init__(self, most: int = MOST_USERS) -> None:
        self.most = most
        self.seen: tuple[set[int], set[int]] = (set(), set())
        """Of the stable version and of the candidate."""
        self.failed: set[int] = set()
        self.bits = [0, 0]

    def sampled(self, key: int, candidate: bool) -> bool:
        return key & ((1 << self.bits[candidate]) - 1) == 0

    def add(self, key: int, candidate: bool) -> bool:
        """Whether the sample of this version had to be thinned for it."""
        held = self.seen[candidate]
        held.add(key)
        thinned = len(held) > self.most
        while len(held) > self.most:
            self.bits[candidate] += 1
            dropped = {one for one in held if not self.sampled(one, candidate)}
            held -= dropped
            self.failed -= dropped
        return thinned

    def count(self, candidate: bool) -> int:
        """Users of a version; an estimate once it is thinned."""
        return len(self.seen[candidate]) << self.bits[candidate]

    def share(self, split: float) -> float:
        """Of the candidate among compared users, where it has `split` of all."""
        candidate = split * 2.0 ** -self.bits[1]
        return candidate / (candidate + (1 - split) * 2.0 ** -self.bits[0])

    def state(self) -> dict[str, Any]:
        return {
            "bits": list(self.bits),
            "seen": [packed(one) for one in self.seen],
            "failed": packed(self.failed),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.bits = list(state["bits"])
        stable, candidate = (unpacked(text) for text in state["seen"])
        self.seen = (stable, candidate)
        self.failed = unpacked(state["failed"])


def packed(keys: set[int]) -> str:
    """Base64 of the sorted keys: three times shorter than a JSON list."""
    content = b"".join(key.to_bytes(_HASHED, "big") for key in sorted(keys))
    return base64.b64encode(content).decode()


def unpacked(text: str) -> set[int]:
    content = np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(-1, _HASHED)
    return {int.from_bytes(row.tobytes(), "big") for row in content}
