"""Independent random streams, one per purpose: what one draws never shifts what another draws.

A stream is a function of the seed, its purpose and counters (epoch, step) alone. Nothing is kept between
calls and nothing global is read, so a resumed run and another arm see exactly the same draws.
"""

from typing import Literal, get_args

import numpy as np

Purpose = Literal["initialisation", "order", "augmentation", "dropout", "split"]
_PURPOSES: tuple[str, ...] = get_args(Purpose)


def stream(seed: int, purpose: Purpose, *counters: int) -> np.random.Generator:
    """The generator of one purpose at one point of a run.

    Philox (Salmon et al. 2011), keyed by `SeedSequence(seed, spawn_key=(purpose, *counters))`.
    """
    key = (_PURPOSES.index(purpose), *counters)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def stream_int(seed: int, purpose: Purpose, *counters: int) -> int:
    """One integer in [0, 2**63), to seed a generator that is not NumPy's."""
    return int(stream(seed, purpose, *counters).integers(2**63))
