"""The demonstration, with a good candidate and with each bad one: what is promised comes true, and no user sees an error."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 900


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiments are made once; each release has a folder of its own in it."""
    return tmp_path_factory.mktemp("demo")


def demonstrated(work: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "assay.release.demo", "--folder", str(work), *words],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        cwd=work,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"users asked [1-9]\d+ times and saw 0 errors", done.stdout), done.stdout
    return done.stdout


@pytest.mark.parametrize("front", ["nginx", "python"])
def test_a_good_candidate_is_promoted(work: Path, front: str) -> None:
    if front == "nginx" and shutil.which("nginx") is None:
        pytest.skip("install nginx")
    said = demonstrated(work, "--front", front)
    for phase in (
        "preflight",
        "shadow",
        "step 1 of 3",
        "step 2 of 3",
        "step 3 of 3",
        "bake",
        "retire",
        "promoted",
    ):
        assert f"  {phase}" in said, said


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("nan", r"rolling back: non-finite outputs: \d+ of the candidate's"),
        ("errors", r"rolling back: (error burst|errors, at share)"),
        ("slow", r"rolling back: (latency, at share|error burst|errors, at share)"),
        ("drift", r"rolling back: (business, at share|drift: )"),
    ],
)
def test_a_bad_candidate_is_turned_back(work: Path, bad: str, why: str) -> None:
    said = demonstrated(work, "--bad", bad)
    assert re.search(why, said), said
    if bad == "drift":
        assert re.search(r"(drift|the judge) turned it back, [0-9.]+ s after the beginning, in ", said), said
    if bad == "nan":
        assert re.search(r"answers: \d+ from \w+$", said, re.MULTILINE), (
            "copies showed it before any user had it"
        )
