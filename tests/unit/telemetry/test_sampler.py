"""The sampler as a real process, under nvidia-ml-py and a library that stands in for NVML."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest
import standin
from standin import BY_READINGS, OTHER, PART, UUID, at, card

from assay.isolation.processes import is_sampler
from assay.isolation.supervisor import Company
from assay.records import now
from assay.telemetry import beside
from assay.telemetry.beside import Sampler
from assay.telemetry.window import Window, lines

SOURCES = Path(__file__).parents[3] / "src"


def test_a_steady_card_is_told_in_every_field(sample):
    found = sample(card(), samples=20)
    assert found.notes == []
    start = found.lines[0]
    assert start["event"] == "start" and start["job"] == os.getpid() != start["pid"]
    assert start["gpus"] == [
        {"uuid": UUID, "name": "Stand-in", "driver": "999.0-stand-in", "memory_total_mb": 81920}
    ]
    first, energy = found.gpu()[0], found.column("energy_mj")
    assert energy == sorted(energy) and energy[0] < energy[-1]
    del first["energy_mj"]
    assert first == {
        "uuid": UUID,
        "utilization_percent": 97,
        "memory_used_mb": 3000,
        "temperature_c": 55,
        "memory_temperature_c": 60,
        "sm_mhz": 1980,
        "memory_mhz": 2619,
        "power_w": 400,
        "clock_reasons": 0,
        "processes": 1,
        "own_processes": 1,
        "own_memory_mb": 2500,
        "other_pids": [],
        "power_limit_w": 700,
        "mig": False,
        "fan_percent": 30,
        "pcie_tx_mb_s": 12,
        "pcie_rx_mb_s": 34,
        "pcie_replays": 0,
        "ecc_corrected": 0,
        "ecc_uncorrected": 0,
    }
    asked = [line["monotonic"] for line in found.samples[:-1] if "fan_percent" in line["gpus"][0]]
    assert len(asked) < len(found.samples) - 1 and all(b - a >= 1 for a, b in pairwise(asked)), (
        "what is slow to ask is asked about once a second, and at the end"
    )
    summary = found.summary
    assert summary.warnings == [] and summary.gpus[0].other_processes == 0
    assert summary.gpus[0].series["power_w"].model_dump() == {
        "unit": "W",
        "minimum": 400,
        "median": 400,
        "maximum": 400,
        "count": len(found.samples),
    }


def test_only_the_jobs_cards_are_read(sample):
    found = sample(card(OTHER, power=1000), card(power=300_000), gpus=[UUID])
    assert {one["uuid"] for line in found.samples for one in line["gpus"]} == {UUID}
    both = sample(card(OTHER, power=1000), card(power=300_000), gpus=[UUID, OTHER])
    assert [one["uuid"] for one in both.samples[0]["gpus"]] == [UUID, OTHER]
    assert set(both.column("power_w", 1)) == {1}


def test_the_rhythm_and_the_clock_are_those_of_the_log(sample):
    before, mono = time.time(), time.monotonic()
    found = sample(card(), samples=6, interval=0.1)
    times = [line["monotonic"] for line in found.samples]
    assert len(times) <= (times[-1] - times[0]) / 0.1 + 2, "late ones are not made up for"
    assert min(b - a for a, b in pairwise(times[:-1])) < 0.2, "none slower than it may"
    assert mono < times[0] < times[-1] < time.monotonic()
    assert before < found.window.monotonic(0) * -1 + times[0] < time.time()
    stamps = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in found.samples]
    assert before < stamps[0] < stamps[-1] < time.time()
    apart = median(stamp - moment for stamp, moment in zip(stamps, times, strict=True))
    assert apart == pytest.approx(time.time() - time.monotonic(), abs=0.1)


def test_a_card_that_heats_up_and_throttles(sample):
    hot = at(20, temperature=88, sm=1200, reasons=0x28)
    found = sample(BY_READINGS, card(), at(10, temperature=75), hot, samples=30)
    assert list(dict.fromkeys(found.column("temperature_c"))) == [55, 75, 88]
    gpu = found.summary.gpus[0]
    assert set(gpu.clock_reasons) == {"hardware_slowdown", "software_thermal"}
    share = sum(value == 0x28 for value in found.column("clock_reasons")) / len(found.samples)
    assert gpu.clock_reasons["hardware_slowdown"] == pytest.approx(share) and 0 < share < 1
    assert (gpu.series["sm_mhz"].minimum, gpu.series["sm_mhz"].maximum) == (1200, 1980)
    assert gpu.series["temperature_c"].maximum == 88


def test_a_process_of_somebody_else(sample):
    other = at(10, processes="parent:2500,1:900")
    found = sample(BY_READINGS, card(), other, samples=20)
    assert sorted(set(map(len, found.column("other_pids")))) == [0, 1]
    assert found.summary.gpus[0].other_processes == 1
    assert set(found.column("own_memory_mb")) == {2500}


JOB = """
import sys, time
from pathlib import Path
from assay.telemetry.beside import Sampler
sampler = Sampler(Path(sys.argv[1]), interval=0.02)
print("ready", flush=True)
time.sleep(600)
"""
OF_A_FAMILY = """
import sys, time
from pathlib import Path
from assay.telemetry.beside import Sampler
family = int(sys.argv[3]) or None
with Sampler(Path(sys.argv[1]), interval=0.02, gpus=[sys.argv[2]], family=family):
    time.sleep(0.2)
"""


@pytest.mark.parametrize("siblings", [True, False])
def test_processes_of_the_jobs_own_tree_are_no_strangers(tmp_path, monkeypatch, nvml, siblings):
    """The job is a child of this process, which stands for a supervisor or what started the ranks."""
    path = tmp_path / "telemetry.jsonl"
    sibling = subprocess.Popen(["sleep", "600"])
    try:
        running = f"parent:2500,{os.getpid()}:1,{sibling.pid}:2500"
        standin.install(monkeypatch, nvml, tmp_path / "scenario", card(processes=running))
        family = str(os.getpid() if siblings else 0)
        environment = os.environ | {"PYTHONPATH": str(SOURCES)}
        subprocess.run([sys.executable, "-c", OF_A_FAMILY, path, UUID, family], check=True, env=environment)
    finally:
        sibling.kill()
        sibling.wait()
    listed = [line["gpus"][0]["other_pids"] for line in lines(path) if line["event"] == "sample"]
    assert listed and set(map(tuple, listed)) == {() if siblings else (sibling.pid,)}


def test_numbers_of_another_namespace_are_not_taken_for_strangers(sample):
    """In a container the driver may tell the host's numbers: the only process is then the job's own."""
    unknown = 4_100_000
    assert sample(card(processes=f"{unknown}:2500")).summary.gpus[0].other_processes == 0
    assert sample(card(processes=f"{unknown}:2500,{unknown + 1}:9")).summary.gpus[0].other_processes == 1


def test_a_card_that_falls_off_the_bus(sample):
    lost = at(20, UUID, lost=1)
    found = sample(BY_READINGS, card(), card(OTHER), lost, samples=20, gpus=[UUID, OTHER])
    lost = [line for line in found.lines if line["event"] == "lost"]
    assert [(line["uuid"], "lost" in line["message"]) for line in lost] == [(UUID, True)]
    power = found.column("power_w")
    gone = power.index(None)
    assert gone > 0 and set(power[:gone]) == {400} and set(power[gone:]) == {None}, (
        "null from then on, never 0"
    )
    assert set(found.column("temperature_c")[gone:]) == {None}
    assert None not in found.column("power_w", 1), "the other card is sampled on"
    gpu = found.summary.gpus[0]
    assert gpu.lost == lost[0]["timestamp"] and gpu.energy.joules is None
    assert any(f"GPU {UUID} was lost" in warning for warning in found.summary.warnings)


def test_a_power_limit_that_changes_and_memory_errors(sample):
    found = sample(BY_READINGS, card(), at(10, limit=500_000, ecc=2, ecc_corrected=7), samples=20)
    first, last = found.gpu()[0], found.gpu()[-1]
    for name, before, after in (
        ("power_limit_w", 700, 500),
        ("ecc_uncorrected", 0, 2),
        ("ecc_corrected", 0, 7),
    ):
        assert (first[name], last[name]) == (before, after)


def test_a_mig_instance_tells_its_memory_and_the_cards_heat(sample):
    part = f"mig {PART} of {UUID} memory=700 memory_total=10240 processes=parent:600"
    found = sample(card(mig=1, memory=60_000), part, gpus=[PART.removeprefix("MIG-")])
    first = found.gpu()[0]
    assert (first["uuid"], first["mig"], first["memory_used_mb"], first["own_memory_mb"]) == (
        *(PART, True),
        *(700, 600),
    )
    assert (first["temperature_c"], first["power_w"]) == (55, 400)


def test_a_driver_too_old_for_a_call(sample, old_nvml):
    found = sample(card(fan=None), library=old_nvml)
    first = found.gpu()[0]
    assert (
        first["energy_mj"] is None and first["memory_temperature_c"] is None and first["fan_percent"] is None
    )
    assert first["clock_reasons"] == 0, "asked for by the name that the old driver has"
    assert first["power_w"] == 400
    notes = " ".join(found.summary.notes)
    for name in (
        "energy_mj: Function Not Found",
        "memory_temperature_c: Function",
        "fan_percent: Not Supported",
    ):
        assert notes.count(name) == 1


def test_an_unknown_call_is_asked_once(sample, tmp_path):
    """The script's clock counts the calls of one function: a value that it had from the second one on is never told."""
    script = (
        "clock nvmlDeviceGetFanSpeed",
        card(fail__nvmlDeviceGetFanSpeed=3),
        at(2, fail__nvmlDeviceGetFanSpeed=0),
    )
    found = sample(*script)
    asked = [one["fan_percent"] for one in found.gpu() if "fan_percent" in one]
    assert len(asked) >= 2 and set(asked) == {None}


def test_a_failure_that_passes_costs_its_samples_only(sample):
    found = sample(
        BY_READINGS,
        card(),
        at(10, fail__nvmlDeviceGetPowerUsage=999),
        at(20, fail__nvmlDeviceGetPowerUsage=0),
        samples=30,
    )
    power = found.column("power_w")
    assert power[0] == power[-1] == 400 and None in power
    assert sum("power_w: " in note and "at times" in note for note in found.summary.notes) == 1


@pytest.mark.parametrize("uuid", ["GPU-00000000-0000-0000-0000-000000000000", "no-such"])
def test_a_card_that_is_not_there_is_null_and_noted(sample, uuid):
    found = sample(card(), gpus=[uuid])
    assert set(found.column("power_w")) == {None}
    assert any(uuid in note for note in found.summary.notes)


def test_no_library_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with Sampler(tmp_path / "t.jsonl", interval=0.02, gpus=[UUID]) as sampler:
        time.sleep(0.1)
    found = list(lines(tmp_path / "t.jsonl"))
    assert sampler.notes == [] and len([one for one in found if one["event"] == "sample"]) > 1
    assert any("NVML Shared Library Not Found" in note for note in found[0]["notes"])


def test_a_call_that_hangs_holds_nobody_up(tmp_path, monkeypatch, nvml):
    monkeypatch.setattr(beside, "STOP_SECONDS", 0.5)
    hangs = at(5, hang__nvmlDeviceGetTemperature=600)
    standin.install(monkeypatch, nvml, tmp_path / "s", BY_READINGS, card(), hangs)
    path = tmp_path / "t.jsonl"
    sampler = Sampler(path, interval=0.02, gpus=[UUID])
    standin.wait_for_samples(path, 1)
    time.sleep(0.2)
    for number in range(5000):  # far more than a pipe holds
        sampler.mark("mark", number=number)
    began = time.monotonic()
    notes = sampler.stop()
    assert time.monotonic() - began < beside.PATIENCE_SECONDS, "it waits for no core"
    assert any("hangs" in note for note in notes)


def test_one_that_was_stopped_is_waited_for(tmp_path, monkeypatch):
    """And so is one that waits for a core: neither hangs, and its last lines count."""
    monkeypatch.setattr(beside, "STOP_SECONDS", 1.0)
    path = tmp_path / "t.jsonl"
    sampler = Sampler(path, interval=0.02)
    standin.wait_for_samples(path, 1)
    process = sampler._process.pid
    os.kill(process, signal.SIGSTOP)
    threading.Timer(2.0, os.kill, (process, signal.SIGCONT)).start()
    assert sampler.stop() == []
    assert list(lines(path))[-1]["event"] == "end"


def test_one_that_goes_on_just_when_it_is_looked_at_does_not_hang(monkeypatch):
    monkeypatch.setattr(beside, "STOP_SECONDS", 3.0)
    look, states = beside._progress, []

    def late(process):
        if len(states) == 1:
            os.kill(process, signal.SIGCONT)
            while look(process).state not in "SZ":  # it may have ended meanwhile
                time.sleep(0.001)
        found = look(process)
        states.append(found.state)
        return found

    process = subprocess.Popen(["sleep", "1"])
    os.kill(process.pid, signal.SIGSTOP)
    while look(process.pid).state != "T":
        time.sleep(0.001)
    monkeypatch.setattr(beside, "_progress", late)
    assert beside._ended(process) == 0
    assert states[0] == "T", (
        "it was stopped, computed nothing, and was not stopped when it was looked at again"
    )


def test_marks_stand_among_the_samples_at_their_own_time(tmp_path):
    with Sampler(tmp_path / "t.jsonl", interval=0.02, identity={"arm": "a", "visit": 3}) as sampler:
        time.sleep(0.1)
        before = time.monotonic()
        sampler.mark("before", measurement="inference@1")
        marked = time.monotonic()
        time.sleep(0.1)
    found = list(lines(tmp_path / "t.jsonl", {"visit": 3}))
    mark = next(one for one in found if one["event"] == "before")
    assert mark["measurement"] == "inference@1" and mark["arm"] == "a"
    assert before <= mark["monotonic"] <= marked
    assert list(lines(tmp_path / "t.jsonl", {"visit": 4})) == []


def test_a_line_that_a_killed_sampler_left_half_done_costs_itself_only(tmp_path):
    path = tmp_path / "t.jsonl"
    for attempt in (1, 2):
        with Sampler(path, interval=0.02, identity={"attempt": attempt}) as sampler:
            standin.wait_for_samples(path, 1)
            if attempt == 1:
                sampler._process.kill()
        with path.open("a") as file:
            file.write('{"timestamp": "20')
    found = list(lines(path, {"attempt": 2}))
    assert found[0]["event"] == "start" and found[-1]["event"] == "end"


def test_a_window_may_begin_at_a_time(tmp_path):
    path = tmp_path / "t.jsonl"
    times = []
    for interval in (0.05, 0.02):
        times.append(now())
        with Sampler(path, interval=interval):
            time.sleep(0.1)
    whole, second = Window(path).summary(), Window(path, since=times[1]).summary()
    assert second.interval_s == 0.02 and 0 < second.samples < whole.samples
    assert Window(path, since=now()).summary() is None


def test_it_is_told_from_other_children_of_a_job(tmp_path):
    """By whoever asks whether a job computes beside itself."""
    other = subprocess.Popen(["sleep", "600"])
    with Sampler(tmp_path / "t.jsonl", interval=0.02) as sampler:
        time.sleep(0.1)
        assert is_sampler(sampler._process.pid) and not is_sampler(other.pid)
    other.kill()
    other.wait()
    assert not is_sampler(other.pid)


@pytest.mark.parametrize("others", [False, True])
def test_a_job_that_is_sampled_is_still_looked_after_by_its_supervisor(tmp_path, others):
    """Of one that starts processes nobody can tell whom it waits for; its sampler is none of these."""
    program = JOB.replace(
        "print(", "import os, subprocess\nif OTHERS: subprocess.Popen(['sleep', '600'])\nprint("
    )
    command = [sys.executable, "-c", f"OTHERS = {others}\n{program}", tmp_path / "t.jsonl"]
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment, start_new_session=True, text=True
    )
    try:
        assert job.stdout.readline() == "ready\n"
        time.sleep(0.1)
        company = Company(job.pid, [0])
        if company._waited() is None:
            pytest.skip("this kernel does not tell how long a process waited for a core")
        company.look()
        assert (company._before is None) == others
    finally:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def test_nothing_runs_where_nothing_is_asked_for(tmp_path):
    with Sampler(tmp_path / "t.jsonl", interval=None) as sampler:
        sampler.mark("before")
    assert not (tmp_path / "t.jsonl").exists() and sampler.notes == []


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_job_however_that_ends(tmp_path, number):
    path = tmp_path / "t.jsonl"
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    job = subprocess.Popen([sys.executable, "-c", JOB, path], stdout=subprocess.PIPE, env=environment)
    assert job.stdout.readline() == b"ready\n"
    standin.wait_for_samples(path, 1)
    pid = json.loads(path.read_text().splitlines()[0])["pid"]
    job.send_signal(number)
    job.wait()
    deadline = time.monotonic() + 120
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert json.loads(path.read_text().splitlines()[-1])["event"] == "end", "its last lines are written"


def test_a_stop_signal_to_the_group_leaves_it_until_the_job_ends(tmp_path):
    with Sampler(tmp_path / "t.jsonl", interval=0.02) as sampler:
        deadline = time.monotonic() + 60
        while not (tmp_path / "t.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.02)  # until it has begun: an interpreter that starts dies of signals
        os.kill(sampler._process.pid, signal.SIGTERM)
        os.kill(sampler._process.pid, signal.SIGINT)
        time.sleep(0.1)
    assert sampler.notes == []
    assert list(lines(tmp_path / "t.jsonl"))[-1]["event"] == "end"


def test_a_process_forked_from_the_job_does_not_hold_the_end_up(tmp_path):
    """As workers that load data do: they inherit the pipe whose end is the sampler's sign to stop.

    One that waited for that end would be given up, and a note say so.
    """
    sampler = Sampler(tmp_path / "t.jsonl", interval=0.02)
    worker = os.fork()
    if worker == 0:
        time.sleep(600)
        os._exit(0)
    try:
        assert sampler.stop() == []
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    assert list(lines(tmp_path / "t.jsonl"))[-1]["event"] == "end"


def test_it_needs_no_package_but_nvidia_ml_py():
    """It starts beside every run: what it imports costs CPU time there."""
    program = (
        f"import sys; sys.path.insert(0, {str(SOURCES)!r}); import assay.telemetry.sampler; "
        "print([m for m in ('torch', 'numpy', 'pydantic', 'pathlib', 'typing', 'subprocess', 'pynvml') if m in sys.modules])"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stdout + found.stderr
