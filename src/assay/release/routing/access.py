"""The front's log: lines written while it serves, read while it grows.

A line says all that its reader must know: the front's addresses of both roles stand in it beside those that were tried.
Lists are nginx's: one entry per attempt, separated by `, `, or ` : ` after an internal redirect; `-` where there was none.
"""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.release.observations import Access, Attempt, Role

MOST_BYTES = 16 * 1024 * 1024
"""Read at once."""
LOOKS = 20
"""At which files there are, before what was seen last is taken: logs are not moved that often."""
CLIENT_LEFT = 499
_BETWEEN = re.compile(r" : |, ")
_BEGINNING = b'{"timestamp":'


def parse(line: bytes) -> Access | None:
    """One request; None for one that reached no version (refused by the front).

    Raises: ValueError for what is no such line.
    """
    try:
        said: dict[str, Any] = json.loads(line)
        attempts = _attempts(said)
        if not attempts:
            return None
        return Access(
            timestamp=float(said["timestamp"]),
            request_id=said["request_id"],
            user=said["user"],
            assigned=said["assigned"],
            route=said["route"],
            attempts=attempts,
            status=int(said["status"]),
            seconds=float(said["seconds"]),
            share=float(said["share"]),
            generation=int(said["generation"]),
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"no line of an access log: {error!r}") from error


@dataclass
class AccessReader:
    """Each call of `read` gives what was logged since the last: across rotation, truncation, half and damaged lines."""

    path: Path
    positions: dict[int, int] = field(default_factory=dict)
    """Bytes read by inode: kept by a reader that may be killed, and given to the next."""
    damaged: int = 0
    refused: int = 0
    """Requests that the front answered itself."""

    def read(self) -> list[Access]:
        found: list[Access] = []
        files = self._files()
        for inode, path, _ in files:
            found += self._read(inode, path)
        self.positions = {inode: self.positions[inode] for inode, *_ in files if inode in self.positions}
        return found

    def skip(self) -> None:
        """What is there now is not wanted."""
        self.positions = {inode: size for inode, _, size in self._files()}

    def _files(self) -> list[tuple[int, Path, int]]:
        """Inode, path and size of the log and of what it was rotated to, oldest first.

        While they are moved a look may miss one, and its lines would come again: two looks have to see the same.
        """
        before: list[tuple[int, Path, int]] = []
        for look in range(LOOKS):
            found = self._listed()
            if look and [file[:2] for file in found] == [file[:2] for file in before]:
                break
            before = found
        return found

    def _listed(self) -> list[tuple[int, Path, int]]:
        found = []
        for path in self.path.parent.glob(f"{self.path.name}*"):
            number = path.name.removeprefix(self.path.name).removeprefix(".")
            if not number or number.isdigit():
                try:
                    at = path.stat()
                except OSError:
                    continue
                found.append((int(number or 0), at.st_ino, path, at.st_size))
        return [(inode, path, size) for _, inode, path, size in sorted(found, reverse=True)]

    def _read(self, inode: int, path: Path) -> list[Access]:
        """Nothing where the file was moved since it was seen there: it is read the next time."""
        at = self.positions.get(inode, 0)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_ino != inode:
                    return []
                size = file.seek(0, 2)
                file.seek(at if at <= size else 0)
                content = file.read(MOST_BYTES)
                begin = at if at <= size else 0
        except OSError:
            return []
        whole = content.rfind(b"\n") + 1
        self.positions[inode] = begin + whole
        return [access for line in content[:whole].splitlines() if (access := self._parsed(line)) is not None]

    def _parsed(self, line: bytes) -> Access | None:
        """A line that begins within the rest of a torn one is read; what was torn is counted."""
        beginning = line.rfind(_BEGINNING)
        if beginning != 0 and line.strip():
            self.damaged += 1
        if beginning < 0:
            return None
        try:
            access = parse(line[beginning:])
        except ValueError:
            self.damaged += 1
            return None
        self.refused += access is None
        return access


def _attempts(said: dict[str, Any]) -> tuple[Attempt, ...]:
    roles: dict[str, Role] = {said["stable"]: "stable", "assay_stable": "stable"}
    if said["candidate"]:
        roles |= {said["candidate"]: "candidate", "assay_candidate": "candidate"}
    addresses, statuses, times, headers = (
        _BETWEEN.split(said[name]) if said[name] else []
        for name in ("addresses", "statuses", "times", "headers")
    )
    left = int(said["status"]) == CLIENT_LEFT
    attempts = []
    for number, address in enumerate(addresses):
        if address not in roles:
            raise ValueError(f"an attempt at {address}, which is no version's")
        status = _status(statuses[number], headers[number], left and number == len(addresses) - 1)
        attempts.append(Attempt(roles[address], status, _number(times[number])))
    return tuple(attempts)


def _status(status: str, header: str, left: bool) -> int | None:
    """Of an attempt; None where the version gave none and the front's 502 or 504 stands for it."""
    if header == "-":
        return CLIENT_LEFT if left else None
    return int(status)


def _number(text: str) -> float | None:
    return None if text == "-" else float(text)
