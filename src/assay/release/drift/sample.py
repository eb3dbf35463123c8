"""One prediction per user: those of the same user are alike, and would make chance look like drift."""

import hashlib
import heapq
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.release.observations import Prediction

MOST_CLASSES = 1_000_000
SUMMARIES = {"mean": "input_mean", "std": "input_std", "low": "input_min", "high": "input_max"}
"""Features of the reference that stand in a line."""


class Sample(NamedTuple):
    """The first sample of a request. None: not measured, or not finite."""

    inputs: tuple[float | None, ...]
    """In the order of `SUMMARIES`."""
    predicted: int | None
    value: float | None


def unit_of(line: Prediction) -> str:
    """Whose prediction it is: a user, or, of anonymous ones, the request."""
    return str(line["user"] or line["request_id"])


def sample_of(line: Prediction) -> Sample:
    said: dict[str, Any] = dict(line)
    predicted = _first(said.get("output_class"))
    return Sample(
        tuple(_first(said.get(key)) for key in SUMMARIES.values()),
        None if predicted is None or not 0 <= predicted < MOST_CLASSES else int(predicted),
        _first(said.get("output_value")),
    )


def _first(values: Any) -> float | None:
    first = values[0] if isinstance(values, list) and values else None
    return first if isinstance(first, float | int) and math.isfinite(first) else None


class Window:
    """The first `size` users since it began, one sample each; it ends early where many lines bring few users."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.samples: dict[str, Sample] = {}
        self.lines = 0

    def add(self, unit: str, sample: Sample) -> bool:
        """Whether the sample is the user's first."""
        self.lines += 1
        if unit in self.samples:
            return False
        self.samples[unit] = sample
        return True

    @property
    def over(self) -> bool:
        return len(self.samples) >= self.size or self.lines >= 20 * self.size


class Lowest:
    """The `size` users with the lowest hash: evenly drawn from all that come, however many that are."""

    def __init__(self, size: int, salt: str = "") -> None:
        self.size, self.salt = size, salt
        self.samples: dict[int, Sample] = {}
        self._negative: list[int] = []
        """A heap of the negative keys: the largest key first."""

    def add(self, unit: str, sample: Sample) -> None:
        content = f"{self.salt}:{unit}".encode()
        key = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
        if key not in self.samples:
            self.keep(key, sample)

    def keep(self, key: int, sample: Sample) -> None:
        heapq.heappush(self._negative, -key)
        self.samples[key] = sample
        if len(self.samples) > self.size:
            del self.samples[-heapq.heappop(self._negative)]


def column(samples: list[Sample], place: int) -> NDArray[np.float64]:
    """A feature's values, as far as they were measured."""
    return np.array([one.inputs[place] for one in samples if one.inputs[place] is not None], dtype=np.float64)
