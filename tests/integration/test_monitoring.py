"""`assay monitor` for real: Prometheus, Alertmanager, node_exporter and a webhook, on runs to which everything happens.

Trainings are those of the workflow; one of them is stopped, one diverges, one fails. The cards are those of the library that
stands in for NVML, under the real sampler. The rules' times are a thirtieth of what they are; `test_monitoring_rules.py`
tries them as they are. Grafana cannot be had here: each expression of its dashboard is put to Prometheus instead.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import standin
import yaml
from alerting import MONITORING, Receiver, ask, expressions, get, hastened, wait_for
from ports import free_port
from standin import OTHER, UUID, at, card

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from project import TINY, copy_project

from assay.monitoring.stack import Service
from assay.records import Log
from assay.telemetry.beside import Sampler

NEEDED = {
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "prometheus-node-exporter": "prometheus-node-exporter",
}
MISSING = sorted(package for program, package in NEEDED.items() if shutil.which(program) is None)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"install {' '.join(MISSING)}"),
    pytest.mark.skipif(os.getuid() != 0, reason="mounts a small file system, which takes root"),
]
FACTOR = 30
LOST = "GPU-33333333-2222-3333-4444-555555555555"
TROUBLE_AFTER = 12.0
"""Seconds for which the cards are well."""
MODELS = """
import time
from torch import nn

def slow(num_classes, in_channels, image_size):
    return Slow(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

class Slow(nn.Sequential):
    def forward(self, images):
        if self.training:
            time.sleep(0.05)
        return super().forward(images)

def broken(num_classes, in_channels, image_size):
    return Broken(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

class Broken(nn.Sequential):
    def forward(self, images):
        raise RuntimeError("a fault in the model")
"""
EXPERIMENT: dict[str, Any] = deepcopy(TINY) | {
    "arms": {
        "good": {"model": {"source": "models:slow"}, "training": {"epochs": 6}},
        "wild": {"model": {"source": "builtin:mlp"}, "training": {"optimizer": {"learning_rate": 1e30}}},
        "slow": {"model": {"source": "models:slow"}, "training": {"epochs": 4000}},
        "broken": {"model": {"source": "models:broken"}},
    },
    "factors": ["model", "training.optimizer.learning_rate", "training.epochs"],
    "seeds": 1,
    "metrics": ["accuracy"],
    "profile": {"enabled": False},
}
BLOCKS: dict[str, Any] = deepcopy(TINY) | {"name": "blocks", "seeds": 1}
BLOCKS["profile"] = BLOCKS["profile"] | {"gates": {"cpu_contention": 0.0, "repeats": 0}}


@dataclass
class Site:
    """Everything that runs, and where it tells."""

    folder: Path
    results: Path
    receiver: Receiver
    ports: dict[str, int]
    command: list[str] = field(default_factory=list)

    @property
    def prometheus(self) -> str:
        return f"http://127.0.0.1:{self.ports['prometheus']}"

    @property
    def metrics(self) -> str:
        return get(f"http://127.0.0.1:{self.ports['exporter']}/metrics").decode()

    def monitor(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [
            *assay("monitor"),
            *words,
            "--results",
            str(self.results),
            "--state",
            str(self.folder / "state"),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=self.folder)

    def fired(self, name: str, seconds: float = 300.0, **labels: str) -> dict[str, Any]:
        """The alert, once it has reached the webhook."""
        what = f"{name} {labels}"
        return wait_for(what, lambda: self.receiver.of(name, job="assay", **labels), seconds)[0]


def assay(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "assay.cli", *words]


def write_log(path: Path, arm: str, ended: threading.Event, *, sick: bool = False) -> None:
    """As a training writes it, on a card that this machine does not have."""
    identity: dict[str, str | int] = {"experiment": "cards", "arm": arm, "seed": 0, "stage": "train"}
    with Log(path, identity=identity) as log:
        log.write("started", epoch=0, epochs=10, steps_per_epoch=100, device="cuda", ranks=1)
        step = 0
        while not ended.wait(0.2):
            step += 1
            loss = float("nan") if sick and step > 5 * TROUBLE_AFTER else 2.3 / step
            numbers = {"gpu_memory_mb": 1234.0, "throughput_samples_per_sec": 5000.0}
            log.write("step", step=step, epoch=step // 100, loss=loss, accuracy=0.5, **numbers)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of its own for results, whose size can be changed."""
    folder = tmp_path_factory.mktemp("disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, small_disk: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("monitoring")
    ports = {name: free_port() for name in ("exporter", "prometheus", "alertmanager", "grafana", "node")}
    configuration = hastened(folder / "configuration", FACTOR)
    prometheus = yaml.safe_load((configuration / "prometheus.yml").read_text())
    node = {"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{ports['node']}"]}]}
    prometheus["scrape_configs"].append(node)
    (configuration / "prometheus.yml").write_text(yaml.safe_dump(prometheus))
    with Receiver() as receiver:
        site = Site(folder, small_disk / "results", receiver, ports)
        words = [
            f"--{name}-port={ports[name]}" for name in ("exporter", "prometheus", "alertmanager", "grafana")
        ]
        words += ["--configuration", str(configuration), "--webhook", receiver.url]
        started = site.monitor("start", "--interval", "1", "--silence", "30", *words)
        assert started.returncode == 0, started.stdout + started.stderr
        try:
            assert "grafana" in started.stdout
            yield site
        finally:
            stopped = site.monitor("stop")
            assert stopped.returncode == 0, stopped.stderr


@pytest.fixture(scope="module")
def cards(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three runs on cards: one is well, one throttles, one falls off the bus; and a fourth whose loss turns to nan."""
    experiment, folder = site.results / "cards", tmp_path_factory.mktemp("cards")
    experiment.mkdir(parents=True)
    (experiment / ".lock").write_text(f"{os.getpid()} on {os.uname().nodename}\n")
    for name, content in {
        "proc/loadavg": "1.5 1 1 1/1 1",
        "proc/stat": "cpu 1 1 1 1 1 1 1 0 0 0",
        "sys/fs/cgroup/cpu.stat": "nr_throttled 2\nthrottled_usec 3000000",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content + "\n")
    scenario = [card(), card(OTHER), card(LOST)]
    scenario += [
        at(TROUBLE_AFTER, OTHER, temperature=91, sm=1100, reasons=0x28),
        at(TROUBLE_AFTER, LOST, lost=1),
    ]
    ended, threads, samplers = threading.Event(), [], []
    with pytest.MonkeyPatch.context() as patch:
        standin.install(patch, standin.build(folder), folder / "scenario", *scenario)
        for arm, gpus in {"cool": [UUID], "hot": [OTHER], "gone": [LOST], "nan": []}.items():
            train = experiment / "runs" / arm / "seed-0" / "train"
            words = {"args": (train / "log.jsonl", arm, ended), "kwargs": {"sick": arm == "nan"}}
            threads.append(threading.Thread(target=write_log, **words))
            identity = {"experiment": "cards", "arm": arm, "seed": 0, "attempt": 1}
            path = train / "telemetry.jsonl"
            samplers.append(Sampler(path, interval=0.1, gpus=gpus, identity=identity, root=str(folder)))
    for thread in threads:
        thread.start()
    yield experiment
    ended.set()
    for thread in threads:
        thread.join()
    for sampler in samplers:
        sampler.stop()


@pytest.fixture(scope="module")
def workflow(site: Site, small_disk: Path) -> Iterator[Path]:
    """The folder of an experiment that runs: one arm is well, one diverges, one fails, one takes long."""
    project = copy_project(small_disk)
    (small_disk / "models.py").write_text(MODELS)
    project.write(EXPERIMENT)
    running = project.start("--keep-going", "--nolock")
    yield project.results
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGINT)
    running.wait(timeout=300)


def trainer(experiment: Path, arm: str) -> int:
    """The process that trains, as its telemetry tells it, once an epoch is over."""
    train = experiment / "runs" / arm / "seed-0" / "train"
    log = train / "log.jsonl"
    wait_for(f"an epoch of {arm}", lambda: log.exists() and '"event": "epoch"' in log.read_text())
    return int(json.loads((train / "telemetry.jsonl").read_text().splitlines()[0])["job"])


def test_what_happens_reaches_the_webhook_and_nothing_else_does(
    site: Site, cards: Path, workflow: Path
) -> None:
    pid = trainer(workflow, "slow")
    value = wait_for(
        "a healthy run", lambda: ask(site.prometheus, 'assay_run_state{arm="slow", state="running"}')
    )
    assert [one["value"][1] for one in value] == ["1"]
    assert not site.receiver.of("AssayRunStalled")

    throttled = site.fired("AssayGpuThrottled", experiment="cards", arm="hot", seed="0", gpu=OTHER)
    assert (
        "throttled in" in throttled["annotations"]["summary"]
        and "cooling" in throttled["annotations"]["runbook"]
    )
    assert site.fired("AssayGpuLost", experiment="cards", arm="gone", gpu=LOST)
    assert site.fired("AssayRunDiverged", experiment="cards", arm="nan", seed="0"), (
        "a NaN before the run has ended"
    )
    assert site.fired("AssayRunDiverged", experiment="tiny", arm="wild", seed="0"), "a training that diverged"
    failed = site.fired("AssayRunFailed", experiment="tiny", arm="broken", seed="0")
    assert failed["labels"]["state"] == "failed"

    os.kill(pid, signal.SIGSTOP)
    try:
        stalled = site.fired("AssayRunStalled", experiment="tiny", arm="slow", seed="0")
        assert stalled["labels"]["severity"] == "critical"
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("that it goes on", lambda: site.receiver.of("AssayRunStalled", "resolved", arm="slow"))

    told = {(alert["labels"]["alertname"], alert["labels"].get("arm")) for alert in site.receiver.alerts}
    # In this haste an exporter that waits two seconds for a core counts as gone.
    assert told - {("AssayExporterDown", None)} == {
        ("AssayGpuThrottled", "hot"),
        ("AssayGpuLost", "gone"),
        ("AssayRunDiverged", "nan"),
        ("AssayRunDiverged", "wild"),
        ("AssayRunFailed", "broken"),
        ("AssayRunStalled", "slow"),
    }, "silent where all is well: cool, good"


def test_every_expression_of_the_dashboard_returns_data(site: Site, cards: Path, workflow: Path) -> None:
    trainer(workflow, "slow")
    found = expressions(MONITORING / "grafana" / "dashboards" / "assay.json")
    assert len(found) > 20
    for expression in found:
        wait_for(f"data for {expression}", lambda text=expression: ask(site.prometheus, text))
    groups = json.loads(get(f"{site.prometheus}/api/v1/rules"))["data"]["groups"]
    (rules,) = [group["rules"] for group in groups if group["name"] == "assay"]
    assert {rule["health"] for rule in rules} == {"ok"} and len(rules) == 10


def test_the_values_are_those_of_the_files(site: Site, cards: Path) -> None:
    expected = {
        f'assay_gpu_temperature_celsius{{gpu="{UUID}"}}': 55.0,
        f'assay_gpu_power_watts{{gpu="{UUID}"}}': 400.0,
        f'assay_gpu_sm_clock_hertz{{gpu="{UUID}"}}': 1.98e9,
        f'assay_gpu_memory_used_bytes{{gpu="{UUID}"}}': 3000 * 2**20,
        f'assay_gpu_throttled_samples_total{{gpu="{UUID}"}}': 0.0,
        f'assay_gpu_pcie_transmit_bytes_per_second{{gpu="{UUID}"}}': 12e6,
        'assay_run_gpu_memory_peak_bytes{arm="cool"}': 1234 * 2**20,
        'assay_cpu_load{arm="cool"}': 1.5,
        'assay_cpu_throttled_seconds_total{arm="cool"}': 3.0,
    }
    for expression, value in expected.items():
        (one,) = wait_for(expression, lambda text=expression: ask(site.prometheus, text))
        assert float(one["value"][1]) == pytest.approx(value), expression

    def comes_to(counter: str, rate: float, tolerance: float) -> bool:
        """At some time: a scrape that was late tells another rate."""
        found = ask(site.prometheus, f'rate({counter}{{gpu="{UUID}"}}[5s])')
        return [float(one["value"][1]) for one in found] == [pytest.approx(rate, rel=tolerance)]

    wait_for("joules a second are watts", lambda: comes_to("assay_gpu_energy_joules_total", 400, 0.2))
    wait_for("samples a second", lambda: comes_to("assay_gpu_samples_total", 10, 0.3))
    assert ask(site.prometheus, 'assay_cpu_temperature_celsius{experiment="cards"}') == [], (
        "not told: absent, not 0"
    )


def test_promtool_finds_nothing_to_say_of_the_metrics(site: Site, cards: Path, workflow: Path) -> None:
    trainer(workflow, "slow")
    command = ["promtool", "check", "metrics"]
    done = subprocess.run(command, input=site.metrics, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    bad = "# HELP x_ms A time.\n# TYPE x_ms gauge\nx_ms 1\n"
    assert subprocess.run(command, input=bad, capture_output=True, text=True, timeout=300).returncode != 0


def test_a_finished_run_keeps_its_state_alone(site: Site, workflow: Path) -> None:
    def ended() -> bool:
        return 'arm="good",experiment="tiny",seed="0",state="completed"' in site.metrics

    wait_for("the end of a run", ended)
    told = {line.split("{")[0] for line in site.metrics.splitlines() if 'arm="good"' in line}
    assert told == {"assay_run_state"}
    wait_for("stale series", lambda: not ask(site.prometheus, 'assay_run_loss{arm="good"}'))
    assert ask(site.prometheus, 'count_over_time(assay_run_state{arm="good", state="running"}[10m])')


@contextmanager
def every_cpu_busy() -> Iterator[None]:
    """A visit waits for a CPU, on a quiet machine too."""
    spin = [
        sys.executable,
        "-c",
        "import time; end = time.monotonic() + 900\nwhile time.monotonic() < end: pass",
    ]
    others = [subprocess.Popen(spin) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_a_block_that_does_not_count_is_told(site: Site, workflow: Path, small_disk: Path) -> None:
    (small_disk / "blocks.yaml").write_text(yaml.safe_dump(BLOCKS, sort_keys=False))
    arguments = ["--snakefile", "Snakefile", "--configfile", "blocks.yaml", "--cores", "4", "--nolock"]
    target = "results/blocks/profile/block-0/mlp/record.json"
    environment = os.environ | {"PYTHONPATH": str(small_disk / "src")}
    command = [sys.executable, "-m", "snakemake", *arguments, target]
    with every_cpu_busy():
        done = subprocess.run(
            command, cwd=small_disk, env=environment, capture_output=True, text=True, timeout=900
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((small_disk / target).read_text())["outcome"] == "invalid"
    site.fired("AssayBlockBroken", experiment="blocks", block="0", state="invalid")


def test_node_exporter_collects_the_textfile_and_an_old_one_is_told(site: Site, cards: Path) -> None:
    folder = site.folder / "collected"
    folder.mkdir()
    file = folder / "assay.prom"
    words = ["--web.listen-address", f"127.0.0.1:{site.ports['node']}", "--collector.disable-defaults"]
    words += ["--collector.textfile", f"--collector.textfile.directory={folder}"]
    writer = subprocess.Popen(
        assay("exporter", "--results", str(site.results), "--textfile", str(file), "--interval", "0.5"),
        stderr=subprocess.PIPE,
    )
    node = subprocess.Popen(["prometheus-node-exporter", *words], stderr=subprocess.DEVNULL)
    try:
        query = f'assay_gpu_temperature_celsius{{job="node", gpu="{UUID}"}}'
        (one,) = wait_for("the textfile", lambda: ask(site.prometheus, query))
        assert float(one["value"][1]) == 55
        assert ask(site.prometheus, "node_textfile_scrape_error == 0")
        assert not site.receiver.of("AssayTextfileOld")
        writer.kill()
        wait_for("an old textfile", lambda: site.receiver.of("AssayTextfileOld", file=str(file)))
    finally:
        writer.kill()
        writer.wait()
        node.kill()
        node.wait()


def test_a_disk_that_fills_is_told(site: Site, small_disk: Path) -> None:
    assert not site.receiver.of("AssayDiskFilling")
    (small_disk / "ballast").write_bytes(bytes(100 * 2**20))  # 4% of which is room enough for what runs
    told = os.statvfs(small_disk)
    used = (told.f_blocks - told.f_bfree) * told.f_frsize
    for size in (int(used * 1.04), 4 * 2**30):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
        site.fired("AssayDiskFilling")
    wait_for("room again", lambda: site.receiver.of("AssayDiskFilling", "resolved", job="assay"))


def test_an_exporter_that_is_gone_is_told_and_seen_by_status(site: Site) -> None:
    state = site.monitor("status")
    assert state.returncode == 0 and state.stdout.count("runs, process") == 3, state.stdout
    services = {
        one["name"]: one for one in json.loads((site.folder / "state" / "state.json").read_text())["services"]
    }
    os.kill(services["exporter"]["process"], signal.SIGKILL)
    site.fired("AssayExporterDown")
    state = site.monitor("status")
    assert state.returncode == 1 and "HAS ENDED" in state.stdout
    again = site.monitor("start")
    assert again.returncode == 2 and "prometheus, alertmanager run already" in again.stderr
    assert site.monitor("stop").returncode == 0
    assert not any(Service(**one).runs for one in services.values())
    assert site.monitor("status").returncode == 1
