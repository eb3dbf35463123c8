"""An archive of an experiment that ran in the image: checked on the host, and run again in the image to the bit."""

import sys
from pathlib import Path

import pytest

from assay.archive.reproduction import Reproduction
from assay.config.bases import Base
from assay.records import Record

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from project import TINY, assay, copy_project

pytestmark = pytest.mark.integration


def test_an_archive_from_the_image_is_checked_and_run_again_in_it(
    images: Path, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_IMAGES", str(images))
    project = copy_project(tmp_path / "own")
    project.write(
        TINY
        | {"profile": {"enabled": False}, "metrics": ["accuracy"], "training": {"epochs": 1}}
        | {"image": {"reference": base.reference}}
    )
    project.run("--sdm", "apptainer")
    archive = project.results / "archive" / "tiny.crate.zip"
    checked = assay(tmp_path, "verify", str(archive))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    record = Record.read(project.results / "runs/mlp/seed-0/train/record.json")
    assert record.environment.image is not None and record.environment.image["base_digest"] == base.digest
    words = ("--into", "again", "--cores", "2", "--", "--sdm", "apptainer")
    done = assay(tmp_path, "reproduce", str(archive), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Reproduced: 4 of 4 runs came out to the bit" in done.stdout
    again = Record.read(tmp_path / "again/results/tiny/runs/mlp/seed-0/train/record.json")
    assert again.environment.image == record.environment.image
    assert Reproduction.read(tmp_path / "again" / "reproduction.json").word == "identical"
