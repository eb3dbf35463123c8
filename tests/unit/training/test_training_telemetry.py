"""What a training's record says of the machine, with and without a GPU at hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import standin
from training_runs import MakeRun, lines_of, trained, with_training

from assay.telemetry import energy
from assay.telemetry import run as run_energy
from assay.telemetry.beside import Sampler
from assay.telemetry.window import lines
from assay.training import recording
from assay.training import run as training_run
from assay.training.folder import TELEMETRY
from assay.training.measured import no_metrics


class Begun(Sampler):
    """Trainings here are shorter than a sampler's start on a busy machine: they begin when it has."""

    def __init__(self, path: Path, **orders: Any) -> None:
        super().__init__(path, **orders)
        if orders["interval"] is not None:
            standin.wait_for_samples(path, 1)


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_run, "Sampler", Begun)


def test_a_run_on_a_cpu_says_what_the_machine_did_and_nothing_of_gpus(make_run: MakeRun) -> None:
    run = replace(with_training(make_run(), epochs=60), telemetry=0.02)
    record = trained(run)
    told = record.telemetry
    assert told is not None and told.samples >= 2 and told.gpus == [] and told.interval_s == 0.02
    assert {"load", "busy_s"} <= set(told.cpu)
    for name in ("train_energy", "train_energy_per_sample", "train_energy_to_chosen_epoch"):
        assert record.metrics[name].value is None, "null on a CPU, never 0"
    assert 0 < record.metrics["train_seconds_to_chosen_epoch"].value <= record.metrics["train_seconds"].value
    ends = record.details["epoch_ends_s"]
    assert len(ends) == 60 and ends == sorted(ends) and ends[0] > 0
    assert record.metrics["train_seconds_to_chosen_epoch"].value == pytest.approx(
        ends[record.details["chosen_epoch"]], abs=1e-5
    )
    assert record.details["epoch_energy_j"] is None, "null on a CPU, never 0"
    times = [line["timestamp"] for line in lines(run.output / TELEMETRY) if line["event"] == "sample"]
    steps = [line["timestamp"] for line in lines_of(run)]
    assert times[0] < steps[-1] <= times[-1], "samples lie over the whole log, on one clock"


def test_a_run_that_did_not_complete_tells_the_same_metrics_as_null(make_run: MakeRun) -> None:
    empty = no_metrics()
    told = trained(make_run()).metrics
    assert {name: one.unit for name, one in told.items()} == {name: one.unit for name, one in empty.items()}
    assert {one.value for one in empty.values()} == {None} != {one.value for one in told.values()}


def test_without_telemetry_there_is_none(make_run: MakeRun) -> None:
    run = make_run()
    assert trained(run).telemetry is None
    assert not (run.output / TELEMETRY).exists()


def test_energy_of_a_run_on_a_gpu(
    make_run: MakeRun,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The training computes on the CPU; the card beside it is the library's, at 400 W throughout."""
    library = standin.build(tmp_path_factory.mktemp("nvml"))
    standin.install(monkeypatch, library, tmp_path / "scenario", standin.card())
    monkeypatch.setattr(recording, "gpu_uuids", lambda device: [standin.UUID.removeprefix("GPU-")])
    monkeypatch.setattr(energy, "LEAST_SECONDS", 0.01)
    monkeypatch.setattr(run_energy, "LEAST_SECONDS", 0.01)
    run = replace(with_training(make_run(), epochs=40, select="last"), telemetry=0.02)
    record = trained(run)
    metrics = record.metrics
    assert metrics["train_energy"].value is not None
    seconds = metrics["train_seconds_to_chosen_epoch"].value
    assert metrics["train_energy"].value == pytest.approx(400 * seconds, rel=0.05)
    assert metrics["train_energy_to_chosen_epoch"].value == metrics["train_energy"].value
    by_epoch = record.details["epoch_energy_j"]
    assert len(by_epoch) == len(record.details["epoch_ends_s"]) == 40
    assert sum(by_epoch) == pytest.approx(metrics["train_energy"].value)
    samples = 40 * record.details["steps_per_epoch"] * 64
    assert metrics["train_energy_per_sample"].value == pytest.approx(metrics["train_energy"].value / samples)
    assert record.telemetry.gpus[0].uuid == standin.UUID and record.details["shared"] is None
    assert [told for told in record.warnings if not told.startswith("cores:")] == [], (
        "others may work beside this test"
    )


def test_a_run_that_shared_its_gpu_tells_no_time_and_no_energy_as_its_own(
    make_run: MakeRun,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where nobody else was there at the moment: the card tells it as little beforehand as afterwards."""
    library = standin.build(tmp_path_factory.mktemp("nvml"))
    standin.install(monkeypatch, library, tmp_path / "scenario", standin.card())
    monkeypatch.setattr(recording, "gpu_uuids", lambda device: [standin.UUID.removeprefix("GPU-")])
    monkeypatch.setattr(energy, "LEAST_SECONDS", 0.01)
    monkeypatch.setattr(run_energy, "LEAST_SECONDS", 0.01)
    alone = trained(replace(with_training(make_run(), epochs=60), telemetry=0.02))
    assert alone.metrics["train_energy"].value is not None and alone.telemetry.gpus[0].energy is not None
    place = {"gpu": standin.UUID, "place": 1, "runs": 4, "others": 2}
    monkeypatch.setattr(recording, "shared_gpu", lambda device: place)
    record = trained(replace(with_training(make_run("b"), epochs=60), telemetry=0.02))
    assert record.details["shared"] == place
    timed = {name: one.value for name, one in record.metrics.items() if not name.startswith("validation_")}
    assert len(timed) == 7 and set(timed.values()) == {None}
    assert record.details["epoch_energy_j"] is None
    (gpu,) = record.telemetry.gpus
    assert gpu.energy is None and gpu.series["power_w"].median == 400, "of the card, and told as that"
    assert any(standin.UUID in note and "other runs shared it" in note for note in record.telemetry.notes)
    assert record.weights_sha256 == alone.weights_sha256, "sharing changes no result"
