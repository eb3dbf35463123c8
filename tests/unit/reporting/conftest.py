"""Results shared by the tests of reporting: made once, as the stages write them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from made_results import Made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two arms, six seeds, six blocks; all completed, on the host. Not to be changed."""
    return Made(tmp_path_factory.mktemp("made")).make()


@pytest.fixture(scope="session")
def reported(made: Path) -> Path:
    """The report of `made`."""
    from assay.reporting.run import report

    report(results=made, output=made / "report")
    return made / "report"
