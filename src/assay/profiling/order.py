"""In which order a block visits its arms, so that drift of the machine falls on all of them alike."""

from collections.abc import Sequence


def visit_order(arms: Sequence[str], block: int) -> list[str]:
    """Each arm twice: a row of a balanced Latin square, then the same row in reverse.

    For arms A and B that is ABBA in even blocks and BAAB in odd ones. Within a block every arm has the same
    mean position, so a linear drift cancels; over as many blocks as there are rows, each arm stands equally
    often at each position and directly follows each other arm equally often (Williams 1949, "Experimental
    designs balanced for the estimation of residual effects of treatments").
    """
    rows = _balanced_rows(len(arms))
    row = [arms[index] for index in rows[block % len(rows)]]
    return row + row[::-1]


def _balanced_rows(count: int) -> list[list[int]]:
    """Williams' square of `count` treatments: `count` rows if that is even, else twice as many."""
    first = [0]
    low, high = 1, count - 1
    while len(first) < count:
        first.append(low)
        low += 1
        if len(first) < count:
            first.append(high)
            high -= 1
    rows = [[(index + shift) % count for index in first] for shift in range(count)]
    if count % 2:
        rows = [row for pair in rows for row in (pair, pair[::-1])]
    return rows
