"""The rule `bundle`: asked for by name, of a finished experiment, and apart from the rest."""

import pytest
from project import Project

from assay.release.bundle.read import read

pytestmark = pytest.mark.xdist_group("finished")
TARGET = "results/tiny/bundle/cnn/bundle.json"


def test_a_bundle_is_made_when_it_is_asked_for_and_only_then(finished: Project) -> None:
    assert finished.planned() == {}
    assert finished.planned(TARGET) == {"bundle": 1}
    finished.run(TARGET)
    folder = finished.results / "bundle/cnn"
    manifest = read(folder).manifest
    assert (manifest.name, manifest.arm) == ("tiny-cnn", "cnn")
    assert manifest.verdict is not None and manifest.estimate is not None
    assert set(manifest.estimate.latency_ms) == {"1", "8"} and manifest.estimate.latency_ms["1"].median_ms
    assert manifest.estimate.latency_ms["1"].p95_ms is None or manifest.estimate.blocks == 1
    assert finished.planned() == {} == finished.planned(TARGET), "the archive and the rest stay as they are"
    assert (
        f"tiny-cnn version {manifest.version}" in (finished.folder / "logs/tiny/bundle/cnn.log").read_text()
    )
    (folder / "bundle.json").unlink()
    finished.run(TARGET)
    assert read(folder).manifest == manifest, "the same again, in place of what was incomplete"
