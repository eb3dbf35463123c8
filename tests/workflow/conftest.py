"""Projects to run the workflow in."""

from pathlib import Path

import pytest
from project import Project, copy_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in which nothing ran yet."""
    return copy_project(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished experiment, shared: change it only through `edited`."""
    project = copy_project(tmp_path_factory.mktemp("finished"))
    project.run()
    return project
