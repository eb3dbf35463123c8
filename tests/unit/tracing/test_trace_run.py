"""Real traces by the entry point: files that Perfetto opens, records, and arms that fail."""

import gzip
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from assay.config.schema import Data
from assay.data.prepare import prepare
from assay.forkserver import Server
from assay.records import Record, sha256_file
from assay.tracing.model import MODES, Traced

ROOT = Path(__file__).parents[3]
NETS = """
import os
import time
import torch

class Net(torch.nn.Module):
    def __init__(self, act):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.act = act

    def forward(self, images):
        scores = self.layer(images.flatten(1))
        return scores if images.device.type == "meta" else self.act(self, scores)

def refuse(net, scores):
    if torch.autograd.profiler._is_profiler_enabled:
        raise RuntimeError("not under a profiler")
    return scores

def end(net, scores):
    if net.training:
        os.kill(os.getpid(), 11)
    return scores

def exhausted(net, scores):
    if net.training:
        raise MemoryError("no more")
    return scores

def profiling(net, scores):
    with torch.profiler.profile():
        return scores + 0

def lasting(num_classes):
    time.sleep(300)  # who watches its memory may be stopped for a while

def refusing(num_classes):
    return Net(refuse)

def crashing(num_classes):
    return Net(end)

def hungry(num_classes):
    return Net(exhausted)

def profiled(num_classes):
    return Net(profiling)
"""
FAILING = {
    "refusing": ("failed", "inference: RuntimeError: not under a profiler", []),
    "profiled": ("failed", "inference: RuntimeError: ", []),
    "crashing": ("failed", "was ended by SIGSEGV", []),
    "hungry": ("out_of_memory", "training: MemoryError: no more", ["inference"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces")
    prepare(Data(source="digits"), folder / "data", module_roots=[])
    (folder / "own_nets.py").write_text(NETS)
    server = Server()
    yield folder
    server.stop()


def start(folder: Path, arm: str, source: str, *options: str) -> "subprocess.CompletedProcess[str]":
    settings = {
        "model": {"source": source},
        "training": {"batch_size": 8, "accumulate": 2, "optimizer": {"name": "sgd"}},
        "execution": {"device": "cpu"},
    }
    command = [sys.executable, "-P", ROOT / "workflow/scripts/trace.py", "--experiment", "e", "--arm", arm]
    command += ["--settings", json.dumps(settings), "--batch-size", "16", "--data", folder / "data"]
    command += ["--output", folder / arm, "--module-root", folder, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def cnn(folder) -> Path:
    done = start(folder, "cnn", "builtin:cnn", "--processes", "auto", "--memory-mb", "4000")
    assert done.returncode == 0, done.stderr
    return folder / "cnn"


@pytest.fixture(scope="module")
def failed(folder) -> dict[str, Record]:
    for name in FAILING:
        done = start(folder, name, f"own_nets:{name}")
        assert done.returncode == 0, done.stderr
    return {name: Record.read(folder / name / "record.json") for name in FAILING}


def events_of(path: Path) -> list[dict]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(gzip.decompress(path.read_bytes()), parse_constant=refuse)["traceEvents"]


@pytest.mark.parametrize("mode", MODES)
def test_perfetto_opens_the_trace(cnn, mode):
    """What its reader of the JSON format asks for: complete events that nest on named threads."""
    events = events_of(cnn / f"{mode}.json.gz")
    whole = [event for event in events if event["ph"] == "X"]
    assert len(whole) > 50
    named = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["ph"] == "M" and event["name"] == "thread_name"
    }
    for event in whole:
        assert event["name"] and named[event["pid"], event["tid"]]
        assert math.isfinite(event["ts"]) and event["ts"] >= 0
        assert math.isfinite(event["dur"]) and event["dur"] >= 0
    for thread in named:
        own = [event for event in whole if (event["pid"], event["tid"]) == thread]
        open_until: list[float] = []
        for event in sorted(own, key=lambda event: (event["ts"], -event["dur"])):
            while open_until and open_until[-1] <= event["ts"]:
                open_until.pop()
            ends = event["ts"] + event["dur"]
            assert not open_until or ends <= open_until[-1] + 1e-3, "it ends after what it began in"
            open_until.append(ends)
    steps = [event for event in whole if event["name"].startswith("ProfilerStep#")]
    assert len(steps) == 5
    assert all(b["ts"] >= a["ts"] + a["dur"] for a, b in pairwise(sorted(steps, key=lambda e: e["ts"])))


def test_the_record_has_what_the_traces_show(cnn):
    record = Record.read(cnn / "record.json")
    assert (record.stage, record.arm, record.outcome, record.message) == ("trace", "cnn", "completed", None)
    assert record.metrics == {}, "no comparison can take a number from here"
    assert record.environment.device.type == "cpu"
    traces = {mode: Traced.model_validate(record.details[mode]) for mode in MODES}
    for mode, one in traces.items():
        assert one.file == f"{mode}.json.gz"
        assert (one.sha256, one.bytes) == (sha256_file(cnn / one.file), (cnn / one.file).stat().st_size)
        assert one.kernels.kind == "operators" and one.kernels.steps == 5
    names = {mode: {kernel.name for kernel in one.kernels.kernels} for mode, one in traces.items()}
    assert "aten::mkldnn_convolution" in names["inference"]
    assert "aten::convolution_backward" in names["training"] - names["inference"]
    assert (traces["inference"].images, traces["training"].images) == (16, 16)
    largest = {shape.split(", ")[0] for k in traces["inference"].kernels.kernels for shape in k.shapes}
    assert "16×1×8×8" in largest, "the batch size asked for"
    (update,) = (k for k in traces["training"].kernels.kernels if k.name == "Optimizer.step#SGD.step")
    assert update.calls == 1, "one update for two batches"


@pytest.mark.parametrize("name", FAILING)
def test_an_arm_that_cannot_be_traced_is_a_result(folder, failed, name):
    outcome, words, kept = FAILING[name]
    record = failed[name]
    assert record.outcome == outcome
    assert words in record.message
    assert [mode for mode in MODES if record.details[mode] is not None] == kept
    assert sorted(path.name for path in (folder / name).glob("*.gz")) == [f"{mode}.json.gz" for mode in kept]


def test_a_crossed_bound_is_a_result_and_leaves_no_trace_of_an_earlier_one(folder, cnn):
    (folder / "large").mkdir()
    for mode in MODES:
        (folder / "large" / f"{mode}.json.gz").write_bytes((cnn / f"{mode}.json.gz").read_bytes())
    done = start(folder, "large", "own_nets:lasting", "--memory-mb", "30")
    assert done.returncode == 0, done.stderr
    record = Record.read(folder / "large" / "record.json")
    assert record.outcome == "out_of_memory" and "bound of 30 MiB" in record.message
    assert {path.name for path in (folder / "large").iterdir()} == {"attempt.json", "record.json", ".lock"}


def test_two_at_once_wait_for_each_other(folder):
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: start(folder, "twice", "builtin:mlp"), range(2)))
    assert [done.returncode for done in both] == [0, 0]
    record = Record.read(folder / "twice" / "record.json")
    assert record.outcome == "completed"
    for mode in MODES:
        assert record.details[mode]["sha256"] == sha256_file(folder / "twice" / f"{mode}.json.gz")


def test_where_nothing_can_be_written_the_job_fails_and_not_the_arm(folder):
    (folder / "file").write_text("")
    done = start(folder, "file/x", "builtin:mlp")
    assert done.returncode == 1 and "trace: file/x: " in done.stderr


def test_data_that_are_not_there_are_no_result(folder):
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "own_nets.py").write_text(NETS)
    done = start(folder / "elsewhere", "mlp", "builtin:mlp")
    assert done.returncode == 1
    assert "trace: mlp: " in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "elsewhere" / "mlp" / "record.json").exists()
