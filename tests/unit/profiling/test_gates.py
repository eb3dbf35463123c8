"""Every gate held and tripped, over samples; then real blocks beside the library that stands in for NVML."""

import os
import sys

import pytest
import standin
from standin import OTHER, UUID, card

from assay.config.arm import Arm
from assay.config.schema import Data, Gates, Profile
from assay.data.prepare import prepare
from assay.profiling import block
from assay.profiling.block import profile_block
from assay.profiling.gates import Visited, judge
from assay.profiling.settle import settle
from assay.records import Record
from assay.telemetry.beside import Sampler, visible_gpu
from assay.telemetry.window import lines

CARD = {
    "uuid": UUID,
    "utilization_percent": 90,
    "sm_mhz": 1980,
    "temperature_c": 50,
    "clock_reasons": 0x4,  # its power limit: how a large model runs on any card
    "processes": 1,
    "own_processes": 1,
    "mig": False,
    "power_limit_w": 700.0,
    "ecc_uncorrected": 3,
}


def visit(position=0, arm="a", *, count=20, gpu=(), cpu=(), from_=0, lost=False):
    """Two seconds at 10 Hz; gpu, cpu: changes from sample `from_` on."""
    told = []
    for i in range(count):
        time = i * 0.1
        one = CARD | (dict(gpu) if i >= from_ else {})
        machine = {"throttled_s": 0.0, "busy_s": time, "waited_s": 0.0} | {
            key: rate * time for key, rate in dict(cpu).items()
        }
        told.append({"event": "sample", "monotonic": 100 + time, "cpu": machine, "gpus": [one]})
    return Visited(position, arm, [*told, *([{"event": "lost", "uuid": UUID}] if lost else [])])


def tripped(*visits, **bounds):
    return {gate.name: gate for gate in judge(visits, Gates(**bounds)) if gate.status == "tripped"}


def test_a_quiet_block_trips_nothing_and_measures_all():
    found = judge([visit(0, "a"), visit(1, "b"), visit(2, "b"), visit(3, "a")], Gates())
    assert {gate.status for gate in found} == {"held"}
    assert len(found) == 11 and all(gate.found is not None and gate.message is None for gate in found)


def test_what_was_not_measured_trips_nothing_and_says_so():
    """A machine without a GPU that tells nothing of its CPU either."""
    blind = [
        {"event": "sample", "monotonic": 100 + i * 0.1, "cpu": {"throttled_s": None}, "gpus": []}
        for i in range(20)
    ]
    for lines_ in (blind, []):
        found = judge([Visited(0, "a", lines_), Visited(1, "b", lines_)], Gates())
        assert {gate.status for gate in found} == {"not measured"} and {gate.found for gate in found} == {
            None
        }


@pytest.mark.parametrize(
    ("name", "held", "broken", "said"),
    [
        ("throttling", {"gpu": {"clock_reasons": 0x24}, "from_": 19}, {"gpu": {"clock_reasons": 0x28}, "from_": 15},
         "25% of the samples of visit 3 (a): hardware_slowdown, software_thermal"),
        ("clock_drift", {"gpu": {"sm_mhz": 1900}}, {"gpu": {"sm_mhz": 1800}}, "from 1800 to 1980 MHz"),
        ("start_temperature", {"gpu": {"temperature_c": 60}}, {"gpu": {"temperature_c": 61}}, "visit 3 at 61 °C"),
        ("foreign_processes", {"gpu": {"processes": 2, "own_processes": 2}}, {"gpu": {"processes": 2}, "from_": 19},
         "1 other processes computed on the GPU in visit 3 (a)"),
        ("ecc_errors", {"gpu": {"ecc_uncorrected": 3}}, {"gpu": {"ecc_uncorrected": 4}}, "1 uncorrected"),
        ("same_uuid", {}, {"gpu": {"uuid": OTHER}}, OTHER),
        ("same_mig", {}, {"gpu": {"mig": True}}, "False, True"),
        ("same_power_limit_w", {}, {"gpu": {"power_limit_w": 500.0}}, "700.0, 500.0"),
        ("gpu_lost", {}, {"lost": True}, "lost in visit 3 (a)"),
        ("cpu_throttled", {"cpu": {"throttled_s": 0.49}}, {"cpu": {"throttled_s": 0.6}}, "60% of its time held back"),
        ("cpu_contention", {"cpu": {"waited_s": 2.9}}, {"cpu": {"waited_s": 4.0}}, "80% of its time ready to run"),
    ],
)  # fmt: skip
def test_each_gate_trips_alone_and_holds_within_its_bound(name, held, broken, said):
    before = [visit(0, "a"), visit(1, "b"), visit(2, "b")]
    assert tripped(*before, visit(3, "a", **held)) == {}
    found = tripped(*before, visit(3, "a", **broken))
    assert set(found) == {name} and said in found[name].message, found


def test_bounds_are_settings():
    slow = visit(3, "a", gpu={"sm_mhz": 1500, "temperature_c": 90})
    assert set(tripped(visit(0, "a"), slow)) == {"clock_drift", "start_temperature"}
    assert tripped(visit(0, "a"), slow, clock_drift=0.5, start_band=50) == {}


def test_clocks_of_different_arms_and_of_a_resting_card_are_no_drift():
    assert tripped(visit(0, "a"), visit(1, "b", gpu={"sm_mhz": 1200})) == {}
    resting = visit(3, "a", gpu={"sm_mhz": 345, "utilization_percent": 0}, from_=4)
    assert tripped(visit(0, "a"), resting) == {}


@pytest.mark.parametrize(
    ("bits", "trips"),
    [(0x8, True), (0x20, True), (0x40, True), (0x80, True)]
    + [(bits, False) for bits in (0x0, 0x1, 0x2, 0x4, 0x10, 0x100)],
)
def test_heat_and_faults_are_throttling_and_settings_of_the_card_are_not(bits, trips):
    found = tripped(visit(0, "a"), visit(3, "a", gpu={"clock_reasons": bits}))
    assert set(found) == ({"throttling"} if trips else set())


def test_few_samples_decide_nothing_about_shares():
    assert tripped(visit(0, "a"), visit(3, "a", count=4, gpu={"sm_mhz": 100})) == {}
    assert tripped(visit(0, "a"), visit(3, "a", count=8, cpu={"waited_s": 50.0})) == {}


# --- real blocks ----------------------------------------------------------------------------------------

ON_A_CARD = f"""
import assay.environment
assay.environment.gpu_uuids = lambda device: [{UUID!r}]
"""
NETS = """
import os
from pathlib import Path
import torch

def counted(num_classes):
    \"\"\"Each visit builds it once, before its sampler starts: the file says what the card does from then on.\"\"\"
    folder = Path(os.environ["SCENARIOS"])
    built = folder / "built"
    count = len(built.read_text()) if built.exists() else 0
    built.write_text("x" * (count + 1))
    chosen = folder / f"{count}"
    if chosen.exists():
        Path(os.environ["ASSAY_NVML_SCENARIO"]).write_text(chosen.read_text())
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, num_classes))
"""
QUICK = {
    "batch_sizes": [1],
    "seconds": 0.3,
    "warmup_seconds": 0.0,
    "min_samples": 10,
    "training_steps": 0,
    "idle_seconds": 0.5,
}
BUSY = {"cpu_contention": 1.0, "cpu_throttled": 1000.0}
"""Bounds that hold whoever computes beside this test."""


@pytest.fixture(scope="session")
def nvml(tmp_path_factory):
    return standin.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def run(tmp_path, monkeypatch, nvml):
    """Profiles one arm beside a card; scenarios by the number of the visit from which on they hold."""

    def profiled(start: str, changes: dict[int, str], **gates) -> tuple[Record, list[dict]]:
        prepare(Data(source="digits"), tmp_path / "data", module_roots=[])
        (tmp_path / "gate_nets.py").write_text(NETS)
        (tmp_path / "sitecustomize.py").write_text(ON_A_CARD)
        for number, text in changes.items():
            (tmp_path / str(number)).write_text(text + "\n")
        standin.install(monkeypatch, nvml, tmp_path / "scenario", start)
        monkeypatch.setenv("SCENARIOS", str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
        arm = Arm.model_validate({"model": {"source": "gate_nets:counted"}})
        profile_block(
            experiment="e",
            block=0,
            arms={"a": arm},
            profile=Profile.model_validate(QUICK | {"gates": BUSY | gates}),
            data=tmp_path / "data",
            output=tmp_path / "block",
            module_roots=[tmp_path],
            telemetry=0.02,
        )
        folder = tmp_path / "block" / "a"
        return Record.read(folder / "record.json"), list(lines(folder / "telemetry.jsonl"))

    return profiled


def test_a_block_that_throttled_is_repeated_and_then_counts(run, monkeypatch):
    """The first visit throttles; the idle card before the block draws 90 W, and each visit's net energy is told."""
    limits = []

    def settled(path, uuid, limit, *rest):
        limits.append((uuid, limit))
        return settle(path, uuid, limit, *rest)

    monkeypatch.setattr(block, "settle", settled)
    idle = card(power=90_000, temperature=40)
    record, told = run(idle, {0: card(reasons=0x40, temperature=42), 1: card(temperature=42)})
    assert (record.outcome, record.attempts) == ("completed", 2), record.message
    assert [gate["name"] for gate in record.details["rejected"][0]] == ["throttling"]
    assert "hardware_thermal" in record.details["rejected"][0][0]["message"]
    assert {gate["status"] for gate in record.details["gates"]} <= {"held", "not measured"}
    assert record.metrics["latency_ms"].value > 0
    assert record.details["idle"] == {"uuid": UUID, "watts": 400, "temperature_c": 42}, "taken anew"
    first = [line for line in told if line.get("phase") == "idle" and line["attempt"] == 1]
    assert {gpu["power_w"] for line in first if line["event"] == "sample" for gpu in line["gpus"]} == {90}
    assert {line["attempt"] for line in told if "visit" in line} == {1, 2}, "every attempt's samples are kept"
    assert all(visit["settled_s"] is not None for visit in record.details["visits"][1:])
    assert limits == [(UUID, 45), (UUID, 47)], "half the band above the idle card, of each attempt"
    assert record.metrics["gpu_memory_mb"].samples == [2500, 2500], "as the driver tells it of the visits"


def test_a_block_that_stays_invalid_has_no_numbers(run):
    record, _ = run(card(processes="parent:2500,1:900"), {}, repeats=0)
    assert (record.outcome, record.attempts) == ("invalid", 1)
    assert "1 other processes computed on the GPU" in record.message
    assert {one.value for one in record.metrics.values()} == {None}
    assert {one.samples for one in record.metrics.values()} == {None}
    assert record.details["visits"][0]["inference_ms"]["1"]["median"] > 0, "the evidence stays"


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"limit": 500_000}, "same_power_limit_w"),
        ({"ecc": 1}, "ecc_errors"),
        ({"mig": 1}, "same_mig"),
        ({"lost": 1}, "gpu_lost"),
        ({"reasons": 0x40}, "throttling"),
        ({"processes": "parent:2500,1:900"}, "foreign_processes"),
    ],
)
def test_each_gate_on_samples_of_a_real_sampler(tmp_path, monkeypatch, nvml, change, gate):
    changes = standin.at(10, **change)
    standin.install(monkeypatch, nvml, tmp_path / "s", standin.BY_READINGS, card(), changes)
    with Sampler(tmp_path / "t", interval=0.02, gpus=[UUID]):
        standin.wait_for_samples(tmp_path / "t", 20)
    seen = Visited(0, "a", list(lines(tmp_path / "t")))
    assert set(tripped(seen, **BUSY)) == {gate}


@pytest.mark.parametrize(
    ("uuid", "change", "gate"),
    [
        (UUID, {"sm": 1500}, "clock_drift"),
        (UUID, {"temperature": 70}, "start_temperature"),
        (OTHER, {}, "same_uuid"),
    ],
)
def test_gates_between_visits_on_samples_of_a_real_sampler(tmp_path, monkeypatch, nvml, uuid, change, gate):
    first, second = tmp_path / "first", tmp_path / "second"
    for path, name, changes in ((first, UUID, {}), (second, uuid, change)):
        standin.install(monkeypatch, nvml, tmp_path / f"{path.name}-scenario", card(name, **changes))
        with Sampler(path, interval=0.02, gpus=[name]):
            standin.wait_for_samples(path, 10)
    quiet, other = list(lines(first)), list(lines(second))
    assert tripped(Visited(0, "a", quiet), Visited(1, "a", quiet), **BUSY) == {}
    assert set(tripped(Visited(0, "a", quiet), Visited(1, "a", other), **BUSY)) == {gate}


def test_the_wait_for_a_card_to_cool(tmp_path, monkeypatch, nvml):
    cooling = standin.at(1.0, temperature=44)
    standin.install(monkeypatch, nvml, tmp_path / "scenario", card(temperature=70), cooling)
    assert visible_gpu() == UUID
    waited = settle(tmp_path / "t", UUID, 45, 600, {"before": 1})
    assert 0.9 < waited < 600
    assert settle(tmp_path / "u", UUID, 30, 0.5, {"before": 1}) >= 0.5, "no longer than the bound"
    blind = card(temperature=None)
    standin.install(monkeypatch, nvml, tmp_path / "scenario", blind)
    assert settle(tmp_path / "v", UUID, 30, 600, {"before": 1}) < 600, "what is not told is not waited for"


@pytest.mark.parametrize(
    ("visible", "order", "cards", "found"),
    [
        (None, None, [UUID], UUID),
        (OTHER, None, [UUID, OTHER], OTHER),
        (None, None, [UUID, OTHER], None),
        ("1", None, [UUID, OTHER], None),
        ("1", "PCI_BUS_ID", [UUID, OTHER], OTHER),
        ("", None, [UUID], None),
    ],
)
def test_the_visible_card_is_named_only_where_that_is_sure(
    tmp_path, monkeypatch, nvml, visible, order, cards, found
):
    standin.install(monkeypatch, nvml, tmp_path / "scenario", *map(card, cards))
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("CUDA_DEVICE_ORDER", order)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert visible_gpu() == found
