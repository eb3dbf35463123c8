"""What a person wants: one file an order, so that it reaches a controller that is busy, or not there yet."""

import secrets
from pathlib import Path
from typing import Literal

from pydantic import Field

from assay.clock import now
from assay.records import Typed, write_atomically
from assay.release.layout import Layout

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


def place(layout: Layout, order: Order, *, by: str, reason: str, at: int | None) -> str:
    """Write an order; returns its name."""
    ordered = Ordered(order=order, by=by, reason=reason, timestamp=now(), at=at)
    name = f"{ordered.timestamp.replace(':', '')}-{order}-{secrets.token_hex(4)}"
    write_atomically(layout.orders / f"{name}.json", ordered.model_dump_json(indent=1).encode() + b"\n")
    return name


def waiting(layout: Layout) -> tuple[dict[str, Ordered], list[str]]:
    """Orders by name, stops first, then the oldest; and the names of files that are none."""
    found: dict[str, Ordered] = {}
    wrong: list[str] = []
    if not layout.orders.is_dir():
        return found, wrong
    for path in sorted(layout.orders.glob("*.json")):
        try:
            found[path.stem] = Ordered.model_validate_json(path.read_bytes())
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
