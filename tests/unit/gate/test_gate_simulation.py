"""Short forms of benchmarks/gate.py: false alarms and misses that docs/gate.md states."""

from types import ModuleType

import pytest

REPETITIONS = 25
LIMIT = 6
"""Of 25 at a rate of 5%, more than this is chance once in 10,000 times."""


def shares(gates: ModuleType, kind: str, title: str, n: int) -> dict[str, int]:
    candidate = next(one for one in gates.CANDIDATES if one.title == title)
    return dict(gates.count(kind, candidate, n, repetitions=REPETITIONS, seed=7))


@pytest.mark.parametrize(("kind", "n"), [("seeds", 6), ("sessions", 3)])
def test_a_good_candidate_passes_and_a_bad_one_does_not(gates: ModuleType, kind: str, n: int) -> None:
    good = shares(gates, kind, "better by a margin", n)
    bad = shares(gates, kind, "worse by four margins", n)
    assert good["pass"] > 15 and good.get("worse", 0) <= LIMIT
    assert bad["worse"] > 15 and bad.get("pass", 0) <= LIMIT


@pytest.mark.parametrize(("kind", "n"), [("seeds", 6), ("sessions", 3)])
def test_at_the_margin_neither_error_is_above_its_level(gates: ModuleType, kind: str, n: int) -> None:
    found = shares(gates, kind, "worse by exactly the margin", n)
    assert found.get("pass", 0) <= LIMIT and found.get("worse", 0) <= LIMIT


def test_a_noisy_candidate_is_undecided_and_no_false_alarm(gates: ModuleType) -> None:
    found = shares(gates, "seeds", "the same, five times as noisy", 6)
    assert found.get("worse", 0) <= LIMIT and found["inconclusive"] > 15


def test_a_gate_that_always_passes_would_be_seen(gates: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts above can fail: a test without its margin lets candidates at the margin through."""
    from assay.gate import decide

    monkeypatch.setattr(decide, "one_sided", lambda worsening, margin: (1.0, 0.0))
    assert shares(gates, "seeds", "worse by exactly the margin", 6)["pass"] > LIMIT
