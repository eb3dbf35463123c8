"""The order of visits: what makes it fair."""

from collections import Counter
from itertools import pairwise

import pytest

from assay.profiling.order import visit_order


def test_two_arms_are_visited_abba_and_baab():
    orders = ["".join(visit_order("AB", block)) for block in range(4)]
    assert orders == ["ABBA", "BAAB", "ABBA", "BAAB"]


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("block", [0, 1, 5])
def test_a_linear_drift_falls_on_all_arms_alike(count, block):
    arms = [f"arm-{index}" for index in range(count)]
    order = visit_order(arms, block)
    positions = {arm: [place for place, name in enumerate(order) if name == arm] for arm in arms}
    assert {sum(places) for places in positions.values()} == {2 * count - 1}


@pytest.mark.parametrize("count", range(2, 9))
def test_over_all_rows_positions_and_followers_are_balanced(count):
    arms = list(range(count))
    rows = [visit_order(arms, block)[:count] for block in range(count if count % 2 == 0 else 2 * count)]
    for place in range(count):
        assert len(set(Counter(row[place] for row in rows).values())) == 1
    followers = Counter(pair for row in rows for pair in pairwise(row))
    assert len(followers) == count * (count - 1)
    assert len(set(followers.values())) == 1
