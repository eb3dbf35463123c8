"""Dividing a data set at random: stratified by class, copies of an image kept together."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from assay.data.streams import stream

Indices = NDArray[np.int64]


def groups_of(digests: NDArray[np.void]) -> Indices:
    """The number of the first image with the same pixels, for every image."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], np.int64)


def divide(
    labels: Indices, groups: Indices, fractions: Sequence[float], seed: int
) -> tuple[list[Indices], Indices]:
    """Hold out one set per fraction, each of what the ones before it left; the rest is for training.

    Within each class the nearest whole number to the fraction is held out, at least one image and never
    the last one. Images of one group go together, under the first one's class. Returns sorted indices of
    the held-out sets, and of the rest.
    """
    held: list[list[Indices]] = [[] for _ in fractions]
    rest: list[Indices] = []
    leaders = np.unique(groups)
    members = np.split(np.argsort(groups, kind="stable"), np.flatnonzero(np.diff(np.sort(groups))) + 1)
    for label in np.unique(labels[leaders]):
        own = np.flatnonzero(labels[leaders] == label)
        queue = [members[place] for place in stream(seed, "split", int(label)).permutation(own)]
        for taken, fraction in zip(held, fractions, strict=True):
            count = sum(map(len, queue))
            target = min(max(1, round(count * fraction)), count - 1)
            while len(queue) > 1 and target > 0:
                target -= len(queue[-1])
                taken.append(queue.pop())
        rest += queue
    return [_sorted(parts) for parts in held], _sorted(rest)


def _sorted(parts: list[Indices]) -> Indices:
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.int64)
