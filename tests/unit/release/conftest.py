"""A finished experiment and the bundles of its two arms, made once."""

from pathlib import Path

import pytest
from made_bundle import made_bundle, made_results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def bundle(results: Path) -> Path:
    """Of the arm `mlp`. To be read; who changes one makes a copy."""
    return made_bundle(results)


@pytest.fixture(scope="session")
def other_bundle(results: Path) -> Path:
    """Of the arm `wide`."""
    return made_bundle(results, "wide")
