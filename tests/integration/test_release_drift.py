"""A candidate whose predictions drift pauses its release, or is turned back, by drift itself: the business value is not judged.

Servers, front, users and controller are real. The step that it is in could not end by itself.
"""

from pathlib import Path
from typing import Any

import pytest
from test_release_ramp import driven

from assay.release.demo.models import bundles

STEP = {"share": 0.5, "users": 1_000_000, "least_seconds": 0, "most_seconds": 86_400}
"""It waits for users who never come, so that whatever ends it is drift."""


def sections(action: str) -> dict[str, Any]:
    return {
        "ramp": {
            "shadow": {"share": 0.0, "requests": 0, "least_seconds": 0},
            "steps": [STEP, {"share": 1.0}],
        },
        "judge": {
            "error_margin": 0.15,
            "latency": None,
            "business": None,
            "guards": {"unready_seconds": 3600},
        },
        "drift": {"window": 60, "action": action},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A good stable version, and a candidate that hardly ever answers an odd digit."""
    return bundles(tmp_path_factory.mktemp("bundles"), "drift")


def test_drift_pauses_and_a_person_decides(tmp_path: Path, made: tuple[Path, Path]) -> None:
    with driven(tmp_path, made, sections("pause")) as (release, seen):
        release.start("--until-held")
        assert release.ended() == 4, release.said()
        held = release.lines()[-1].state
        assert (held.phase, held.step, held.wanted.share) == ("step", 0, 0.5)
        assert held.held is not None and held.held.startswith("drift: predictions: ")
        release.order("rollback", str(release.file), "--reason", "it drifts", "--by", "ada")
        assert (release.lines()[-1].event, release.lines()[-1].reason) == ("rolled_back", "ada: it drifts")
        saw = seen()
        assert saw["errors"] == 0 and len(saw["versions"]) == 2, saw


def test_drift_rolls_back(tmp_path: Path, made: tuple[Path, Path]) -> None:
    with driven(tmp_path, made, sections("rollback")) as (release, seen):
        release.start()
        assert release.ended() == 3, release.said()
        (back,) = (line for line in release.lines() if line.event == "rollback")
        assert back.reason.startswith("drift: predictions: "), release.said()
        assert release.lines()[-1].event == "rolled_back"
        saw = seen()
        assert saw["errors"] == 0 and len(saw["versions"]) == 2, saw
