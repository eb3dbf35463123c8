"""Tuning never sees the test split."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tuned_experiment import swept

from assay.config.schema import Data
from assay.config.trials import points, settings_at
from assay.data.prepare import prepare
from assay.data.store import Store, images_path, labels_path
from assay.records import Record
from assay.sweep.read import record_path
from assay.sweep.select import search
from assay.training.folder import Run
from assay.training.run import train


def test_trials_come_out_the_same_whatever_is_in_the_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained for real, on the same data with another test split; and asked for by name, it never is."""
    prepare(Data(source="digits", test=0.6, validation=0.3), tmp_path / "data", module_roots=[])
    shutil.copytree(tmp_path / "data", tmp_path / "other")
    for path in (images_path(tmp_path / "other", "test"), labels_path(tmp_path / "other", "test")):
        array = np.load(path)
        np.save(path, np.zeros_like(array))
    asked: set[str] = set()
    split = Store.split
    monkeypatch.setattr(Store, "split", lambda self, name: (asked.add(name), split(self, name))[1])
    made = swept(trials=2, seeds=[1000])
    sweep, arm = made.sweep, made.arms["mlp"]
    assert sweep is not None
    found = []
    for data in ("data", "other"):
        folder = tmp_path / f"{data}-sweep"
        for number, point in enumerate(points(sweep, "mlp")):
            output = record_path(folder, number, 1000).parent
            run = Run(
                "e",
                "mlp",
                1000,
                settings_at(arm, point),
                tmp_path / data,
                output,
                output.parent / "checkpoint",
            )
            assert train(run) == 0
        weights = [Record.read(record_path(folder, number, 1000)).weights_sha256 for number in range(2)]
        found.append((search("e", "mlp", sweep, arm, folder), weights))
    assert found[0] == found[1]
    assert asked == {"train", "validation"}
