"""Several hypotheses, one error rate: chains of hypotheses that share the level.

Each chain is tested in its order and stops at its first hypothesis that is not rejected. All chains start
with an equal share of the level; the share of a chain whose last hypothesis was rejected goes to the others
in equal parts. This is a graphical procedure of Bretz, Maurer, Brannath and Posch (2009), which holds the
family-wise error rate strongly. Its special cases:

- one chain: the fixed-sequence procedure (Maurer, Hothorn and Lehmacher 1995; Westfall and Krishen 2001);
- chains of one hypothesis each: Holm (1979).

`docs/statistics.md` says which chains a comparison makes, and why.
"""

import heapq
from collections.abc import Sequence


def adjusted_chains(chains: Sequence[Sequence[float]]) -> list[list[float]]:
    """Adjusted p-values in the shape of `chains`: a hypothesis is rejected where its own is <= alpha."""
    adjusted: list[list[float]] = [[] for _ in chains]
    waiting = [(chain[0], index) for index, chain in enumerate(chains) if chain]
    heapq.heapify(waiting)
    reached = 0.0
    while waiting:
        p, index = heapq.heappop(waiting)
        reached = min(1.0, max(reached, p * (len(waiting) + 1)))
        adjusted[index].append(reached)
        following = len(adjusted[index])
        if following < len(chains[index]):
            heapq.heappush(waiting, (chains[index][following], index))
    return adjusted


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjustment."""
    return [chain[0] for chain in adjusted_chains([[p] for p in p_values])]
