"""GPUs and machines as the real sampler tells them, under the library that stands in for NVML."""

from pathlib import Path

import pytest
import standin
from standin import OTHER, UUID, at, card
from watched_runs import Clock, Live

from assay.monitoring.run import RunFiles
from assay.monitoring.samples import Samples
from assay.monitoring.state import Gpu
from assay.telemetry.beside import Sampler


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin.build(tmp_path_factory.mktemp("nvml"))


def gpus_of(samples: Samples, clock: Clock) -> dict[str, Gpu]:
    found = samples.gpus(clock.moment, host="n1", user="a seed 0", stage="train", arm="a", seed=0)
    return {gpu.uuid: gpu for gpu in found}


def test_heat_throttling_and_a_lost_card(
    nvml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    scenario = [standin.BY_READINGS, card(), card(OTHER)]
    standin.install(monkeypatch, nvml, tmp_path / "scenario", *scenario)
    path = tmp_path / "telemetry.jsonl"
    samples = Samples(path)
    with Sampler(path, interval=0.02, gpus=[UUID, OTHER], identity={"attempt": 1}):
        standin.wait_for_samples(path, 1)
        samples.look(clock.moment)
        first = gpus_of(samples, clock)[UUID]
    scenario += [at(10, UUID, temperature=91, reasons=0x40, sm=600), at(20, OTHER, lost=1)]
    standin.install(monkeypatch, nvml, tmp_path / "scenario", *scenario)
    with Sampler(path, interval=0.02, gpus=[UUID, OTHER], identity={"attempt": 1}):
        standin.wait_for_samples(path, path.read_bytes().count(b'"event": "sample"') + 20)
    samples.look(clock.moment)
    assert (first.name, first.live, first.throttled, first.clock_reasons) == ("Stand-in", True, False, ())
    assert first.values["temperature_c"] == 55 and first.values["memory_total_mb"] == 81920
    assert first.values["other_processes"] == 0
    last = gpus_of(samples, clock)
    assert last[UUID].values["temperature_c"] == 91 and last[UUID].values["sm_mhz"] == 600
    assert last[UUID].throttled and last[UUID].clock_reasons == ("hardware_thermal",)
    assert last[UUID].values["power_limit_w"] == 700, "told once a second, and known in between"
    assert not last[UUID].live, "its sampler has ended"
    lost = last[OTHER]
    assert lost.lost is not None and lost.lost[:4] == lost.timestamp[:4]
    assert lost.throttled is None and lost.clock_reasons is None and "temperature_c" not in lost.values


def test_a_card_that_cannot_be_read_is_told_and_has_no_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    path = tmp_path / "telemetry.jsonl"
    with Sampler(path, interval=0.02, gpus=["GPU-none"]):
        standin.wait_for_samples(path, 1)
    samples = Samples(path)
    samples.look(clock.moment)
    gpu = gpus_of(samples, clock)["GPU-none"]
    assert set(gpu.values.values()) == {None} and gpu.throttled is None and gpu.lost is None


def test_a_machine_without_a_gpu_tells_its_load(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "telemetry.jsonl"
    with Sampler(path, interval=0.02):
        standin.wait_for_samples(path, 1)
    samples = Samples(path)
    samples.look(clock.moment)
    assert gpus_of(samples, clock) == {}
    host = samples.host(clock.moment, "n1")
    assert host is not None and host.values["load"] is not None and host.values["load"] > 0


def test_a_hung_run_is_told_with_what_its_process_does(
    nvml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Telemetry tells a hang from a death: this process sleeps, its card is idle, and both go on."""
    standin.install(monkeypatch, nvml, tmp_path / "scenario", card(utilization=0))
    live, files = Live(tmp_path, supervised=False), RunFiles(tmp_path, "small", 0)
    live.step()
    live.step()
    path = tmp_path / "train" / "telemetry.jsonl"
    with Sampler(path, interval=0.02, gpus=[UUID], identity={"attempt": 1}):
        files.look(clock.moment)
        for look in range(4):  # it writes once a second: each look finds more
            standin.wait_for_samples(path, 1 + 20 * look)
            run = files.look(clock.after(20))
    assert run.state == "stalled" and run.why is not None
    assert run.why.startswith("no line for 1 min 20 s: its process lives, CPU ")
    assert run.why.endswith("%, GPU 0%")
