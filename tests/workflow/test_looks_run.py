"""An experiment with looks, run in earnest: it stops where it is decided, and trains nothing twice."""

import re
import subprocess
import sys

from project import TINY, Project

from assay.comparison.model import Comparison

LOOKING = TINY | {
    "factors": ["training.optimizer.learning_rate"],
    "arms": {
        "slow": {"training": {"optimizer": {"learning_rate": 1.0e-6}}},
        "quick": {"training": {"optimizer": {"learning_rate": 0.05}}},
    },
    "model": {"source": "builtin:mlp"},
    "seeds": 5,
    "metrics": ["accuracy"],
    "profile": {"enabled": False},
    # Of three seeds the least p is 0.25, and up to the first look 0.21 may be spent.
    "comparison": {"confidence": 0.7, "looks": [3, 4, 5], "spending": "pocock"},
}


def assay_run(project: Project) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "assay.cli", "run", "tiny.yaml", "--cores", "2"],
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr + project.logs()
    return done.stdout + done.stderr


def test_it_stops_at_the_look_that_decides(project: Project) -> None:
    project.write(LOOKING)
    output = assay_run(project)
    assert re.findall(r"\b(\d+) train\b", output) == ["6", "2"]
    comparison = Comparison.read(project.results / "comparison" / "comparison.json")
    assert comparison.sequential is not None
    assert (comparison.sequential.seeds, comparison.sequential.stopped_early) == (4, True)
    assert comparison.metrics[0].contrasts[0].verdict == "better"
    assert sorted(path.name for path in project.results.glob("runs/quick/*")) == [
        f"seed-{n}" for n in range(4)
    ]
    assert "stopped early" in (project.results / "report" / "index.html").read_text()

    again = assay_run(project)
    assert "train" not in " ".join(re.findall(r"\d+ jobs: .*", again)), "nothing is left to do"
    assert "no further seeds are run" in again
