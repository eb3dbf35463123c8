"""Chains against Holm, the fixed sequence and the general graphical procedure; the error rate simulated."""

import numpy as np
import pytest

from assay.comparison.multiplicity import adjusted_chains, holm


def graphical(p: np.ndarray, weights: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Bretz et al. (2009), algorithm 2, written plainly: adjusted p-values of any graph."""
    weights, edges = weights.copy(), edges.copy()
    left, adjusted, reached = set(range(len(p))), np.ones(len(p)), 0.0
    while True:
        candidates = [i for i in left if weights[i] > 0]
        if not candidates:
            return adjusted
        j = min(candidates, key=lambda i: p[i] / weights[i])
        reached = adjusted[j] = min(1.0, max(reached, p[j] / weights[j]))
        left.remove(j)
        new = np.zeros_like(edges)
        for a in left:
            weights[a] += weights[j] * edges[j, a]
            for b in left - {a}:
                loop = edges[a, j] * edges[j, a]
                if loop < 1:
                    new[a, b] = (edges[a, b] + edges[a, j] * edges[j, b]) / (1 - loop)
        weights[j], edges = 0, new


def chains_as_graph(arms: int, metrics: int) -> tuple[np.ndarray, np.ndarray]:
    weights, edges = np.zeros(arms * metrics), np.zeros((arms * metrics,) * 2)
    for arm in range(arms):
        weights[arm * metrics] = 1 / arms
        for metric in range(metrics - 1):
            edges[arm * metrics + metric, arm * metrics + metric + 1] = 1
        for other in set(range(arms)) - {arm}:
            edges[(arm + 1) * metrics - 1, other * metrics] = 1 / (arms - 1)
    return weights, edges


@pytest.mark.parametrize(("arms", "metrics"), [(1, 1), (1, 4), (4, 1), (2, 2), (3, 3), (4, 2)])
def test_chains_are_the_graphical_procedure(arms: int, metrics: int) -> None:
    generator = np.random.default_rng(arms * 10 + metrics)
    for _ in range(50):
        p = generator.uniform(size=arms * metrics) ** 3
        ours = adjusted_chains(p.reshape(arms, metrics).tolist())
        assert np.ravel(ours) == pytest.approx(graphical(p, *chains_as_graph(arms, metrics)))


def test_holm_is_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    generator = np.random.default_rng(1)
    for count in (1, 2, 5, 20):
        p = generator.uniform(size=count) ** 2
        assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([]) == []
    assert holm([0.03, 0.03]) == [0.06, 0.06]


def test_fixed_sequence_is_the_running_maximum() -> None:
    assert adjusted_chains([[0.01, 0.04, 0.02, 0.5, 0.001]]) == [[0.01, 0.04, 0.04, 0.5, 0.5]]


def test_a_chain_that_is_done_leaves_its_share() -> None:
    # 0.04 alone would be 0.08; after the first arm's whole list it has the full level.
    assert adjusted_chains([[0.001, 0.002], [0.04]]) == [[0.002, 0.004], [0.04]]
    assert adjusted_chains([[0.001, 0.9], [0.04]]) == [[0.002, 0.9], [0.08]]


def test_chains_of_unequal_length_and_empty_ones() -> None:
    assert adjusted_chains([[], [0.01]]) == [[], [0.01]]
    assert adjusted_chains([]) == []


@pytest.mark.parametrize("true_nulls", ["all", "first", "last", "one arm"])
def test_family_wise_error_rate(true_nulls: str) -> None:
    """At most 5%, whichever hypotheses are true: 3 arms, 3 metrics, correlated by the baseline."""
    generator = np.random.default_rng(3)
    null = np.zeros((3, 3), dtype=bool)
    null[{"all": (...,), "first": (..., 0), "last": (..., 2), "one arm": (0, ...)}[true_nulls]] = True
    errors = 0
    from scipy.special import ndtr

    for _ in range(4000):
        z = (generator.normal(size=(3, 3)) + generator.normal(size=(1, 3))) / np.sqrt(2) + np.where(
            null, 0, 4
        )
        p = 2 * ndtr(-np.abs(z))
        errors += bool((np.array(adjusted_chains(p.tolist()))[null] <= 0.05).any())
    assert errors / 4000 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)
