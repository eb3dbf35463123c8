"""Why a GPU's clocks are not higher: the bits of `nvmlDeviceGetCurrentClocksEventReasons`, by name (nvml.h)."""

REASONS = {
    0x1: "idle",
    0x2: "application_clocks",
    0x4: "software_power_cap",
    0x8: "hardware_slowdown",
    0x10: "sync_boost",
    0x20: "software_thermal",
    0x40: "hardware_thermal",
    0x80: "power_brake",
    0x100: "display_clocks",
}

INVALIDATING = ("hardware_slowdown", "software_thermal", "hardware_thermal", "power_brake")
"""Heat and faults: they come from the room and the card, not from the arm, and differ from visit to visit.

`software_power_cap` is not among them. A large model at full load runs into the power limit on every card of its kind
all the time, so it is how the card works, and part of what an arm costs; that the limit itself is the same for all
arms is a gate of its own.
"""


def names(bits: int) -> list[str]:
    """By name; bits of a later driver by their number."""
    known = [name for bit, name in REASONS.items() if bits & bit]
    rest = bits & ~sum(REASONS)
    return [*known, *(f"bit_{rest:#x}" for _ in range(bool(rest)))]
