"""The exporter: what it tells of folders of results, healthy and not, and how it is started and ended."""

import json
import math
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from assay.cli import main
from assay.clock import now
from assay.monitoring import metrics
from assay.monitoring.files import Moment
from assay.monitoring.metrics import METRICS, Collector
from assay.records import Log

CARD = {
    "uuid": "GPU-1",
    "utilization_percent": 97,
    "memory_used_mb": 3000,
    "temperature_c": 55,
    "memory_temperature_c": None,
    "sm_mhz": 1980,
    "memory_mhz": 2619,
    "power_w": 400.5,
    "energy_mj": 5_000_000,
    "clock_reasons": 0,
    "processes": 1,
    "own_processes": 1,
}
Told = dict[tuple[str, ...], float]


def write_run(experiment: Path, arm: str, seed: int, losses: list[float | None], **more: object) -> Path:
    train = experiment / "runs" / arm / f"seed-{seed}" / "train"
    (experiment / ".lock").parent.mkdir(parents=True, exist_ok=True)
    (experiment / ".lock").write_text("1 on nowhere\n")
    identity = {"experiment": experiment.name, "arm": arm, "seed": seed, "stage": "train"}
    with Log(train / "log.jsonl", identity=identity) as log:
        log.write("started", epoch=0, epochs=2, steps_per_epoch=50, device="cpu", ranks=1)
        for step, loss in enumerate(losses, start=1):
            log.write("step", step=step, epoch=0, loss=loss, **more)
    return train


def write_telemetry(
    path: Path, cards: list[dict[str, object]], *, events: tuple[dict[str, object], ...] = ()
) -> None:
    def line(event: str, **fields: object) -> str:
        return (
            json.dumps({"timestamp": now(), "monotonic": time.monotonic(), "event": event, **fields}) + "\n"
        )

    card = {"uuid": "GPU-1", "name": "Card", "driver": "1", "memory_total_mb": 81920}
    described = [card] if cards else []
    text = line("start", pid=2, job=1, interval_s=0.1, gpus=described, cpu={"rapl": {}}, notes=[])
    text += "".join(line("sample", cpu={"load": 1.5, "throttled_s": None}, gpus=[one]) for one in cards)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "".join(line(**event) for event in events))


def told_by(collector: Collector) -> Told:
    """Values by name and labels, as Prometheus would read them."""
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    found: Told = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def names_of(told: Told) -> set[str]:
    return {key[0] for key in told}


def test_a_run_on_a_card_is_told_in_base_units(tmp_path):
    train = write_run(
        tmp_path / "digits", "cnn", 3, [2.0, 1.5], gpu_memory_mb=2.0, throughput_samples_per_sec=9.0
    )
    hot = CARD | {"clock_reasons": 0x28, "temperature_c": 90}
    write_telemetry(train / "telemetry.jsonl", [CARD, CARD, hot, CARD | {"clock_reasons": None}])
    told = told_by(Collector(tmp_path))
    run = ("arm=cnn", "experiment=digits", "seed=3")
    card = ("arm=cnn", "experiment=digits", "gpu=GPU-1", "seed=3")
    assert told[("assay_run_state", *run, "state=running")] == 1
    assert told[("assay_run_loss", *run)] == 1.5 and told[("assay_run_step", *run)] == 2
    assert told[("assay_run_progress_ratio", *run)] == 0.02
    assert told[("assay_run_gpu_memory_peak_bytes", *run)] == 2 * 2**20
    assert told[("assay_run_samples_per_second", *run)] == 9
    assert told[("assay_gpu_memory_used_bytes", *card)] == 3000 * 2**20
    assert told[("assay_gpu_memory_total_bytes", *card)] == 81920 * 2**20
    assert told[("assay_gpu_utilization_ratio", *card)] == pytest.approx(0.97)
    assert told[("assay_gpu_sm_clock_hertz", *card)] == 1.98e9
    assert told[("assay_gpu_energy_joules_total", *card)] == 5000
    assert told[("assay_gpu_samples_total", *card)] == 3, (
        "a sample that does not tell the reasons does not count"
    )
    assert told[("assay_gpu_throttled_samples_total", *card)] == 1, "two reasons in one sample are one sample"
    reason = ("assay_gpu_clock_reason_samples_total", "arm=cnn", "experiment=digits", "gpu=GPU-1")
    assert told[(*reason, "reason=software_thermal", "seed=3")] == 1
    assert told[(*reason, "reason=power_brake", "seed=3")] == 0
    assert told[("assay_gpu_lost", *card)] == 0
    assert told[("assay_cpu_load", *run)] == 1.5
    absent = {
        "assay_gpu_memory_temperature_celsius",
        "assay_cpu_throttled_seconds_total",
        "assay_run_validation_loss",
    }
    assert names_of(told) & absent == set(), "what was not measured is absent"
    assert names_of(told) <= set(METRICS)


def test_counters_go_on_from_look_to_look(tmp_path):
    train = write_run(tmp_path / "digits", "cnn", 0, [1.0])
    path = train / "telemetry.jsonl"
    write_telemetry(path, [CARD])
    collector = Collector(tmp_path)
    card = ("arm=cnn", "experiment=digits", "gpu=GPU-1", "seed=0")
    counts = []
    for _ in range(3):
        counts.append(told_by(collector)[("assay_gpu_samples_total", *card)])
        with path.open("a") as file:
            file.write(json.dumps({"timestamp": now(), "event": "sample", "gpus": [CARD], "cpu": {}}) + "\n")
    assert counts == [1, 2, 3]
    assert told_by(Collector(tmp_path))[("assay_gpu_samples_total", *card)] == 4, (
        "an exporter that was started anew"
    )


def test_a_run_on_a_cpu_has_no_gpu_series(tmp_path):
    train = write_run(tmp_path / "digits", "mlp", 0, [1.0])
    write_telemetry(train / "telemetry.jsonl", [])
    told = told_by(Collector(tmp_path))
    assert not [name for name in names_of(told) if name.startswith("assay_gpu")]
    assert ("assay_run_loss", "arm=mlp", "experiment=digits", "seed=0") in told


def test_a_loss_that_is_no_number_is_told_as_such(tmp_path):
    write_run(tmp_path / "digits", "nan", 0, [1.0, math.nan])
    write_run(tmp_path / "digits", "inf", 0, [math.inf])
    write_run(tmp_path / "digits", "null", 0, [None])
    told = told_by(Collector(tmp_path))
    values = {key[1]: value for key, value in told.items() if key[0] == "assay_run_loss"}
    assert math.isnan(values.pop("arm=nan")) and values == {"arm=inf": math.inf}


def test_a_lost_card_is_told_after_its_sampler_has_ended(tmp_path):
    train = write_run(tmp_path / "digits", "cnn", 0, [1.0])
    blank = dict.fromkeys(CARD) | {"uuid": "GPU-1"}
    lost = {"event": "lost", "uuid": "GPU-1", "message": "GPU is lost"}
    write_telemetry(train / "telemetry.jsonl", [CARD, blank], events=(lost, {"event": "end"}))
    told = told_by(Collector(tmp_path))
    assert told[("assay_gpu_lost", "arm=cnn", "experiment=digits", "gpu=GPU-1", "seed=0")] == 1
    assert {name for name in names_of(told) if name.startswith("assay_gpu")} == {"assay_gpu_lost"}


def test_visits_of_a_profile_have_no_seed_and_are_told_once(tmp_path):
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / ".lock").write_text("1 on nowhere\n")
    for block, power in ((0, 100.0), (1, 200.0)):
        path = tmp_path / "digits" / "profile" / f"block-{block}" / "cnn" / "telemetry.jsonl"
        write_telemetry(path, [CARD | {"power_w": power}])
    told = told_by(Collector(tmp_path))
    assert told[("assay_gpu_power_watts", "arm=cnn", "experiment=digits", "gpu=GPU-1", "seed=")] == 200
    assert ("assay_profile_block_state", "block=0", "experiment=digits", "state=waiting") in told


def test_what_happened_long_ago_is_told_no_more_and_comes_back(tmp_path, monkeypatch):
    write_run(tmp_path / "digits", "cnn", 0, [1.0])
    collector = Collector(tmp_path)
    state = ("assay_run_state", "arm=cnn", "experiment=digits", "seed=0", "state=running")
    assert state in told_by(collector)
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "RECENT_SECONDS", -1.0)
        assert told_by(collector)[("assay_exporter_experiments",)] == 0
    assert state not in told_by(collector), "looked at again seldom"
    os.utime(tmp_path / "digits" / ".lock", (time.time() + 5, time.time() + 5))
    assert state in told_by(collector), "a workflow has begun"


@pytest.mark.parametrize(("hours", "told"), [(23, 1), (25, 0)])
def test_an_experiment_is_told_for_a_day_after_its_last_event(hours, told, tmp_path, monkeypatch):
    write_run(tmp_path / "digits", "cnn", 0, [1.0])
    later = hours * 3600
    monkeypatch.setattr(metrics, "Moment", lambda wall, monotonic: Moment(wall + later, monotonic))
    assert told_by(Collector(tmp_path))[("assay_exporter_experiments",)] == told


@pytest.mark.parametrize("name", ["Upper", "with space", ".monitor", "x" * 80, "ü"])
def test_folders_that_are_no_experiments_are_passed_over(name, tmp_path):
    write_run(tmp_path / name, "cnn", 0, [1.0])
    assert told_by(Collector(tmp_path))[("assay_exporter_experiments",)] == 0


def test_damaged_files_silence_nobody_else(tmp_path, capsys, monkeypatch):
    train = write_run(tmp_path / "broken", "cnn", 0, [1.0])
    (train / "log.jsonl").write_bytes(b'{"event": "step", "step": {}}\n\xff\xfe\n[1]\n{"event": ')
    (train / "telemetry.jsonl").write_text(
        '{"event": "sample", "gpus": 3}\n{"event": "start", "gpus": [1]}\n'
    )
    (train / "record.json").write_text("{}")
    (train / "attempt.json").write_text("[]")
    (tmp_path / "broken" / "experiment.yaml").write_text("a: [")
    write_run(tmp_path / "whole", "cnn", 0, [1.0])
    collector = Collector(tmp_path)
    told = told_by(collector)
    assert ("assay_run_loss", "arm=cnn", "experiment=whole", "seed=0") in told
    assert told[("assay_exporter_warnings",)] == 1

    real = metrics.Watcher.look

    def look(self, moment=None):
        if self.folder.name == "broken":
            raise KeyError("unforeseen")
        return real(self, moment)

    monkeypatch.setattr(metrics.Watcher, "look", look)
    for _ in range(2):
        told = told_by(collector)
        assert ("assay_run_loss", "arm=cnn", "experiment=whole", "seed=0") in told
        assert told[("assay_exporter_warnings",)] == 1
    assert capsys.readouterr().err.count("cannot be read") == 1, "told once"


def test_where_nothing_is_yet_the_disk_is_told(tmp_path):
    told = told_by(Collector(tmp_path / "results"))
    assert told[("assay_exporter_experiments",)] == 0
    assert 0 < told[("assay_results_free_bytes",)] < told[("assay_results_size_bytes",)]
    (tmp_path / "file").write_text("")
    assert told_by(Collector(tmp_path / "file"))[("assay_exporter_experiments",)] == 0


def test_many_runs_are_few_series(tmp_path):
    experiment = tmp_path / "many"
    for seed in range(100):
        write_run(experiment, "cnn", seed, [1.0])
    assert len(told_by(Collector(tmp_path))) < 100 * 12


def run(*words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-m", "assay.cli", "exporter", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_over_http_on_this_machine_alone_until_it_is_asked_to_end(tmp_path):
    write_run(tmp_path / "digits", "cnn", 0, [1.0])
    exporter = run("--results", str(tmp_path), "--port", "0")
    assert exporter.stdout is not None
    url = exporter.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url, timeout=300) as answer:
        assert 'assay_run_loss{arm="cnn",experiment="digits",seed="0"} 1.0' in answer.read().decode()
    exporter.send_signal(signal.SIGTERM)
    assert exporter.wait(300) == 0


def test_the_textfile_is_whole_renewed_and_gone_at_the_end(tmp_path):
    write_run(tmp_path / "results" / "digits", "cnn", 0, [1.0])
    (tmp_path / "collected").mkdir()
    file = tmp_path / "collected" / "assay.prom"
    before = os.umask(0o077)
    exporter = run("--results", str(tmp_path / "results"), "--textfile", str(file), "--interval", "0.1")
    os.umask(before)
    end = time.monotonic() + 300
    seen = set()
    while len(seen) < 3:
        assert time.monotonic() < end and exporter.poll() is None
        if file.exists():
            content = file.read_text()
            assert (
                content.endswith("\n") and "assay_run_loss{" in content and "assay_exporter_read" in content
            )
            seen.add(re.findall(r"^assay_exporter_read_seconds (.*)$", content, re.MULTILINE)[0])
    assert stat.S_IMODE(file.stat().st_mode) == 0o644, "node_exporter is another user"
    exporter.send_signal(signal.SIGINT)
    assert exporter.wait(300) == 0
    assert list(file.parent.iterdir()) == [], "values that are no longer so are not left behind"


def test_once_leaves_the_file(tmp_path):
    file = tmp_path / "assay.prom"
    before = os.umask(0o077)
    try:
        assert main(["exporter", "--results", str(tmp_path), "--textfile", str(file), "--once"]) == 0
    finally:
        os.umask(before)
    assert "assay_exporter_experiments 0.0" in file.read_text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--once"], "--textfile"),
        (["--textfile", "x.txt"], "end in .prom"),
        (["--textfile", "nowhere/x.prom"], "make it first"),
        (["--port", "70000"], "0 (any that is free) to 65535"),
        (["--results", "a-file"], "is no folder"),
        (["--results", "results/digits"], "--results results"),
        (["--address", "203.0.113.7"], "--address"),
        (["--address", "no such name"], "--address"),
    ],
)
def test_what_cannot_be_is_refused(words, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a-file").write_text("")
    Path("results/digits").mkdir(parents=True)
    Path("results/digits/experiment.yaml").write_text("name: digits\n")
    assert main(["exporter", *words]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["--interval", "0"], "from 0.1 to 60"), (["--silence", "nan"], "from 0.1 to 86400")],
)
def test_seconds_have_bounds(words, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["exporter", *words])
    assert ended.value.code == 2 and complaint in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["exporter", "--port", str(port)]) == 2
    assert f"127.0.0.1:{port}: Address already in use; choose another with --port" in capsys.readouterr().err
