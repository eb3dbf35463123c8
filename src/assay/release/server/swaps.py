"""How an order stands, from its beginning to its end."""

from assay.clock import now
from assay.release.server.files import Service, Swap, Wanted

KEPT = 20
"""Orders that `service.json` tells of."""


def begun(number: int, action: str, bundle: str | None) -> Swap:
    return Swap(number=number, action=action, bundle=bundle, state="loading", began=now())


def failed(swap: Swap, reason: str) -> Swap:
    return swap.model_copy(update={"state": "failed", "reason": reason, "ended": now()})


def done(swap: Swap, group: int | None) -> Swap:
    return swap.model_copy(update={"state": "done", "group": group, "ended": now()})


def broken_off(before: Service, wanted: Wanted | None) -> list[Swap]:
    """The orders of a supervisor that was killed: who waits for one that it had in hand, or had not taken yet, is told."""
    why = "`assay release serve` ended before it was done; order it again"
    found = [swap if swap.ended is not None else failed(swap, why) for swap in before.swaps]
    if wanted is not None and before.taken is not None and wanted.number > before.taken:
        found.append(failed(begun(wanted.number, wanted.action, wanted.bundle), why))
    return found[-KEPT:]
