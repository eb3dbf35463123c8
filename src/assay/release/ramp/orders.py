"""What a person wants: one file an order, so that it reaches a controller that is busy, or not there yet."""

import secrets
from pathlib import Path
from typing import Literal

from pydantic import Field

from assay.clock import now
from assay.records import Typed, write_atomically
from assay.release.layout import Layout
from assay.release.ramp.room import is_full

Order = Literal["rollback", "pause", "resume", "promote"]
PRECEDENCE: tuple[Order, ...] = ("rollback", "pause", "resume", "promote")
"""A person's stop wins over whatever else was ordered at the same time."""


class Ordered(Typed):
    """One order."""

    order: Order
    by: str
    reason: str
    timestamp: str
    at: int | None = Field(default=None, description="Line of the journal that the person saw.")


_NAMED = Ordered(
    order="rollback", by="a person", reason="ordered without room on the disk for more", timestamp=""
)
"""What an empty file means whose name says that it is a roll-back."""


def place(layout: Layout, order: Order, *, by: str, reason: str, at: int | None) -> str:
    """Write an order; returns its name."""
    ordered = Ordered(order=order, by=by, reason=reason, timestamp=now(), at=at)
    name = f"{ordered.timestamp.replace(':', '')}-{order}-{secrets.token_hex(4)}"
    path = layout.orders / f"{name}.json"
    try:
        write_atomically(path, ordered.model_dump_json(indent=1).encode() + b"\n")
    except OSError as error:
        if order != "rollback" or not is_full(error):
            raise
        path.touch()  # a name takes no room
    return name


def waiting(layout: Layout) -> tuple[dict[str, Ordered], list[str]]:
    """Orders by name, stops first, then the oldest; and the names of files that are none."""
    found: dict[str, Ordered] = {}
    wrong: list[str] = []
    if not layout.orders.is_dir():
        return found, wrong
    for path in sorted(layout.orders.glob("*.json")):
        try:
            content = path.read_bytes()
            by_name = not content and "-rollback-" in path.stem
            found[path.stem] = _NAMED if by_name else Ordered.model_validate_json(content)
        except FileNotFoundError:
            continue
        except (ValueError, OSError):
            wrong.append(path.name)
    return dict(sorted(found.items(), key=lambda item: PRECEDENCE.index(item[1].order))), wrong


def remove(layout: Layout, name: str) -> None:
    (layout.orders / f"{name}.json").unlink(missing_ok=True)


def put_aside(layout: Layout, file: str) -> Path:
    """What is no order is kept, under a name that is not read again."""
    path = layout.orders / file
    aside = path.with_suffix(".refused")
    path.replace(aside)
    return aside
