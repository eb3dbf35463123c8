"""Bundles of real, short trainings: whole, the same for the same run, and refused when they are not what they were."""

from pathlib import Path

import pytest
import torch
from made_bundle import made_bundle, made_results

from assay.release.bundle.read import read


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def bundle(results: Path) -> Path:
    return made_bundle(results)


def test_the_model_gives_the_golden_scores_and_another_does_not(
    results: Path, bundle: Path, tmp_path: Path
) -> None:
    found = read(bundle)
    inputs, outputs = found.golden()
    scores = found.network()(torch.from_numpy(inputs)).numpy()
    assert found.problem(scores) is None
    other = read(made_bundle(results, folder=tmp_path / "other", seed=(found.manifest.seed + 1) % 3))
    assert "not the model that was measured" in str(
        found.problem(other.network()(torch.from_numpy(inputs)).numpy())
    )
    assert "not the model" in str(found.problem(scores * float("nan")))
    assert outputs.shape == (32, 10)
