"""A noise floor as a person reads it."""

from assay.comparison.floor import NoiseFloor, Quantity
from assay.comparison.wording import change_text, floor_text, plural


def measured_text(found: NoiseFloor) -> str:
    """What was measured, where and when."""
    what = [plural(len(found.seeds), "seed")] if found.seeds else []
    what += [plural(found.blocks, "block")] if found.blocks else []
    facts = found.origin.facts
    places = [" or ".join(facts[name]) for name in ("host", "device") if name in facts]
    parts = [" and ".join(what), *([f"on {', '.join(places)}"] if places else [])]
    if found.origin.started and found.origin.finished:
        first, last = (
            moment[:16].replace("T", " ") for moment in (found.origin.started, found.origin.finished)
        )
        parts.append(f"{first} to {last} UTC")
    text = ", ".join(parts)
    if found.identical_weights is None:
        return text
    return f"{text}; both trainings left the same weights at {found.identical_weights} of {len(found.seeds)} seeds"


def quantity_texts(quantity: Quantity) -> tuple[str, str]:
    """By how much the second self differs, and the floor; `none` where it is not known."""
    if quantity.floor is None or quantity.estimate is None:
        return "", "none"
    change = change_text(quantity.scale, quantity.unit, quantity.estimate)
    return change, floor_text(quantity.scale, quantity.unit, quantity.floor)


def quantity_note(quantity: Quantity) -> str:
    """What a reader must know of a floor, or of there being none."""
    if quantity.reason is not None:
        return quantity.reason
    if not quantity.differing:
        assert quantity.differing_at_most is not None
        return f"no pair differs; up to {100 * quantity.differing_at_most:.0f}% of pairs might"
    return (
        "told apart from itself: by chance, or because something sets the two apart"
        if quantity.told_apart
        else ""
    )
