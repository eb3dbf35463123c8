"""Before a visit: what the GPU draws when idle, and the wait for it to cool down to where the block began."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from assay.telemetry.beside import Sampler
from assay.telemetry.window import lines

_INTERVAL = 0.25
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Idle:
    """The GPU before the first visit. Null where not told, or not taken."""

    uuid: str
    watts: float | None = None
    temperature_c: float | None = None


def idle(path: Path, uuid: str, seconds: float, identity: Mapping[str, str | int]) -> Idle:
    """Sample the GPU for so long and take medians; the samples stay in the file."""
    mine = {**identity, "phase": "idle"}
    with Sampler(path, interval=_INTERVAL, gpus=[uuid], identity=mine):
        time.sleep(seconds)

    def middle(name: str) -> float | None:
        told = [gpu[name] for line in lines(path, mine) for gpu in line.get("gpus", []) if gpu.get(name)]
        return median(told) if told else None

    return Idle(uuid, middle("power_w"), middle("temperature_c"))


def settle(path: Path, uuid: str, limit: float, seconds: float, identity: Mapping[str, str | int]) -> float:
    """Wait until the GPU is not hotter than `limit` °C, but not longer than `seconds`. Returns the seconds waited.

    A GPU that does not tell its temperature is not waited for.
    """
    began = time.monotonic()
    mine = {**identity, "phase": "settle"}
    with Sampler(path, interval=_INTERVAL, gpus=[uuid], identity=mine):
        while (waited := time.monotonic() - began) < seconds:
            samples = [line for line in lines(path, mine) if line["event"] == "sample"]
            temperature = samples[-1]["gpus"][0].get("temperature_c") if samples else limit + 1
            if temperature is None or temperature <= limit:
                return waited
            time.sleep(_POLL_SECONDS)
    return waited
