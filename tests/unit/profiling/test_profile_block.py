"""Blocks of real visits, each a process, on a small store."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from assay.config.arm import Arm
from assay.config.schema import Data, Profile
from assay.data.prepare import prepare
from assay.isolation.supervisor import Bounds
from assay.profiling.block import profile_block
from assay.records import Record

ROOT = Path(__file__).parents[3]
QUICK = {
    "batch_sizes": [1, 4],
    "seconds": 0.02,
    "warmup_seconds": 0.0,
    "min_samples": 10,
    "training_steps": 0,
    "width": None,
    "largest_batch": {"enabled": False},
    # Bounds that hold whoever computes beside this test.
    "gates": {"cpu_contention": 1.0, "cpu_throttled": 1000.0},
}
NETS = """
import os
import tempfile
import time
import torch

class Net(torch.nn.Module):
    def __init__(self, classes, act):
        super().__init__()
        self.layer = torch.nn.Linear(64, classes)
        self.act = act

    def forward(self, images):
        scores = self.layer(images.flatten(1))
        return scores if images.device.type == "meta" else self.act(scores)

def end(scores):
    os._exit(7)

def slow(scores):
    time.sleep(0.05)
    return scores

def exhausted(scores):
    if len(scores) == 1:
        raise MemoryError("no more")
    return scores

def plain(num_classes):
    return Net(num_classes, lambda scores: scores)

def slower(num_classes):
    return Net(num_classes, slow)

def crashing(num_classes):
    return Net(num_classes, end)

def littering(num_classes):
    print("left", tempfile.mkstemp()[1])
    return plain(num_classes)

def not_finite(num_classes):
    return Net(num_classes, lambda scores: scores * float("nan"))

def hungry(num_classes):
    return Net(num_classes, exhausted)

def jump(scores):
    # 3 GiB from 200 images on: more than any bound here, and nothing that smaller batches foretell.
    return scores + torch.ones(3 * 2**28)[:1] * 0 if len(scores) >= 200 else scores

def jumping(num_classes):
    return Net(num_classes, jump)

def greedy(scores):
    # 4 MiB an image.
    return scores + torch.ones(len(scores), 2**20)[:, :1] * 0

def growing(num_classes):
    return Net(num_classes, greedy)

def at_most_64(scores):
    if len(scores) > 64:
        raise RuntimeError("at most 64 images")
    return scores

def killed(scores):
    if len(scores) > 64:
        os.kill(os.getpid(), 9)
    return scores

def dying(num_classes):
    return Net(num_classes, killed)

def picky(num_classes):
    return Net(num_classes, at_most_64)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    prepare(Data(source="digits"), folder / "data", module_roots=[])
    (folder / "own_nets.py").write_text(NETS)
    return folder


def profile(
    folder: Path,
    output: Path,
    sources: dict[str, str],
    block: int = 0,
    bounds: Bounds = Bounds(),  # noqa: B008
    **options,
) -> dict[str, Record]:
    execution = {"device": "cpu"}
    profile_block(
        experiment="e",
        block=block,
        arms={
            name: Arm.model_validate({"model": {"source": source}, "execution": execution})
            for name, source in sources.items()
        },
        profile=Profile.model_validate(QUICK | options),
        data=folder / "data",
        output=output,
        module_roots=[folder],
        telemetry=0.02,
        bounds=bounds,
    )
    return {name: Record.read(output / name / "record.json") for name in sources}


@pytest.fixture(scope="module")
def block(folder, tmp_path_factory):
    """A block with a quick and a slow arm, without training steps."""
    output = tmp_path_factory.mktemp("block")
    sources = {"quick": "builtin:mlp", "slow": "own_nets:slower"}
    return output, profile(folder, output, sources, block=1)


NOT_MEASURED = (
    *("training_", "loaded_training", "largest_batch"),
    *("reserved_memory_mb", "gpu_memory_mb", "flops_utilization", "compile_s"),
)
"""Without training steps and search, on a CPU, eagerly."""


def test_records_hold_every_measurement_with_its_samples(block):
    for name, record in block[1].items():
        assert (record.stage, record.arm, record.block, record.outcome) == ("profile", name, 1, "completed")
        metrics = record.metrics
        assert {"latency_ms@1", "latency_ms@4", "throughput@1", "throughput@4"} < set(metrics)
        training = metrics["training_throughput"]
        assert (training.unit, training.value, training.samples) == ("samples/s", None, None)
        for metric, one in metrics.items():
            if "_p9" not in metric:  # as many as the samples of a busy machine support
                assert one.value is None if metric.startswith(NOT_MEASURED) else one.value > 0, metric
        assert len(metrics["latency_ms@1"].samples) == metrics["latency_ms@1"].count >= 20
        assert metrics["latency_ms"] == metrics["latency_ms@1"]
        assert metrics["throughput"] == metrics["throughput@4"]
        assert len(metrics["peak_memory_mb"].samples) == len(metrics["cold_start_s"].samples) == 2
        assert record.environment.device.type == "cpu"
    assert block[1]["slow"].metrics["parameters"].value == 64 * 10 + 10
    assert block[1]["slow"].metrics["flops"].value == 2 * 64 * 10


def test_a_slower_model_is_measured_slower_and_no_faster_than_it_is(block):
    quick, slow = (block[1][name].metrics for name in ("quick", "slow"))
    assert slow["latency_ms"].value >= 50 > quick["latency_ms"].value
    assert slow["throughput"].value <= 4 / 0.05 < quick["throughput"].value


def test_each_visit_is_a_process_of_its_own_in_counterbalanced_order(block):
    details = {name: record.details for name, record in block[1].items()}
    assert details["quick"]["order"] == ["slow", "quick", "quick", "slow"]
    visits = {name: one["visits"] for name, one in details.items()}
    assert [one["position"] for one in visits["slow"]] == [0, 3]
    assert [one["position"] for one in visits["quick"]] == [1, 2]
    assert len({one["pid"] for both in visits.values() for one in both} - {os.getpid()}) == 4
    for one in visits["quick"]:
        assert {"load", "steal_s", "throttled_s", "cpu_mhz", "temperature_c"} <= set(one["before"])
        assert one["started"] < one["finished"]
        confidence = one["inference_ms"]["1"]["confidence"]
        assert confidence is None or confidence >= 0.95, "null where a busy machine left too few samples"


def test_telemetry_has_a_line_before_and_after_each_measurement(block):
    text = (block[0] / "quick" / "telemetry.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    expected = [(e, m) for m in ("inference@1", "inference@4") for e in ("before", "after")]
    marks = [(line["event"], line["measurement"]) for line in lines if "measurement" in line]
    assert marks == expected * 2
    assert [line["visit"] for line in lines if line["event"] == "start"] == [1, 2]
    assert [line["visit"] for line in lines if line["event"] == "end"] == [1, 2]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    samples = [line for line in lines if line["event"] == "sample"]
    assert len(samples) >= 4 and all(line["cpu"]["load"] is not None for line in samples)


FAILING = {
    "crashing": ("failed", "ended with status 7"),
    "not_finite": ("diverged", "not finite"),
    "hungry": ("out_of_memory", "no more"),
}


@pytest.fixture(scope="module")
def mixed(folder, tmp_path_factory):
    """Three arms that cannot be measured and one that can, with a batch larger than the split."""
    sources = {name: f"own_nets:{name}" for name in (*FAILING, "plain")}
    return profile(folder, tmp_path_factory.mktemp("mixed"), sources, batch_sizes=[1, 5000], training_steps=5)


@pytest.mark.parametrize("name", FAILING)
def test_an_arm_that_cannot_be_measured_says_why(mixed, name):
    outcome, words = FAILING[name]
    record = mixed[name]
    assert record.outcome == outcome
    assert words in record.message
    assert {one.value for one in record.metrics.values()} == {None}
    assert len(record.details["visits"]) == 1


def test_the_other_arms_go_on(mixed):
    record = mixed["plain"]
    assert record.outcome == "completed"
    assert len(record.details["visits"]) == 2
    assert record.metrics["throughput"] == record.metrics["throughput@5000"]
    training = record.metrics["training_throughput"]
    assert training.count == len(training.samples) == 10
    assert record.metrics["loaded_training_throughput"].value > 0
    assert min(training.samples) <= training.value <= max(training.samples)
    assert set(record.metrics) == set(mixed["hungry"].metrics)


BOUND_MB = 1400


@pytest.fixture(scope="module")
def searched(folder, tmp_path_factory):
    """Under a bound on memory that a supervisor holds: four arms in search of their largest batch."""
    sources = {name: f"own_nets:{name}" for name in ("jumping", "growing", "picky", "dying")}
    output = tmp_path_factory.mktemp("searched")
    largest = {"enabled": True, "gain": None, "seconds": 3600}
    options = {"batch_sizes": [1, 8], "largest_batch": largest, "seconds": 0.02, "width": 1e-6}
    return profile(folder, output, sources, bounds=Bounds(BOUND_MB, 512), **options)


@pytest.mark.xdist_group("searched")
@pytest.mark.parametrize(("name", "least", "most"), [("jumping", 150, 199), ("growing", 16, 250)])
def test_largest_batch_is_found_within_the_bound_without_a_crash(searched, name, least, most):
    record = searched[name]
    assert record.outcome == "completed", record.message
    first, second = (visit["largest"] for visit in record.details["visits"])
    search = first["search"]
    assert least <= first["size"] == search["size"] == second["size"] <= most
    assert search["limit"] == "memory"
    assert search["bound_mb"] <= 0.8 * BOUND_MB
    assert all(one["memory_mb"] <= search["bound_mb"] for one in search["tried"])
    assert bool(search["refused"]) == (name == "jumping"), "only a jump is not foretold"
    assert second["search"] is None, "the second visit measures what the first one found"
    assert record.metrics["largest_batch"].value == first["size"]
    assert record.metrics["largest_batch_throughput"].value > 0


@pytest.mark.xdist_group("searched")
def test_a_model_that_takes_no_larger_batch_keeps_its_other_numbers(searched):
    record = searched["picky"]
    assert record.outcome == "completed"
    assert record.metrics["largest_batch"].value is None
    assert record.metrics["throughput"].value > 0
    assert any("at most 64 images" in text for text in record.warnings)


@pytest.mark.xdist_group("searched")
def test_a_search_that_ends_the_process_takes_nothing_else_along(searched):
    """As a kernel does that runs out of memory."""
    record = searched["dying"]
    assert record.outcome == "completed"
    assert record.metrics["largest_batch"].value is None
    assert record.metrics["latency_ms"].value > 0 and record.metrics["parameters"].value == 650
    assert any("ended in the search for the largest batch" in text for text in record.warnings)


@pytest.mark.xdist_group("searched")
def test_a_median_that_is_not_known_as_asked_is_reported(searched, block):
    record = searched["growing"]
    assert all(visit["wide"] for visit in record.details["visits"])
    assert any("profile.width" in text for text in record.warnings)
    assert not any("profile.width" in text for text in block[1]["quick"].warnings), "none was asked for"


def test_a_visit_imports_nothing_that_it_does_not_need():
    """Start-up is part of what is measured, and of what a user waits for."""
    heavy = ["scipy", "polars", "sklearn", "matplotlib", "torchvision", "pandas", "torch._dynamo"]
    program = f"import sys, assay.profiling.visit; print([m for m in {heavy} if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert found.stdout.strip() == "[]", found.stderr
    program = "import sys, assay.profiling.block; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert found.stdout.strip() == "False", found.stderr


def test_a_visit_leaves_no_temporary_files_and_loses_no_words(folder, tmp_path, monkeypatch, capfd):
    """It ends without the orderly exit in which PyTorch, and a user's module, would tidy up."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    profile(folder, tmp_path / "output", {"a": "own_nets:littering"})
    said = capfd.readouterr().out
    assert said.count("left /") == 2, "one for each visit"
    assert list(temporary.iterdir()) == []


def test_script_takes_settings_without_those_that_cost_nothing(folder, tmp_path):
    """As the workflow passes them: what is left out takes its default. What an arm cannot do is a result."""
    settings = {
        "arms": {"a": {"model": {"source": "own_nets:hungry"}, "training": {"optimizer": {"name": "sgd"}}}},
        "profile": QUICK,
    }
    command = [sys.executable, ROOT / "workflow/scripts/profile.py", "--experiment", "e", "--block", "0"]
    command += ["--settings", json.dumps(settings), "--output", tmp_path, "--module-root", folder]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}

    def run(data: Path) -> subprocess.CompletedProcess:
        arguments = [*map(str, command), "--data", str(data)]
        return subprocess.run(arguments, capture_output=True, text=True, env=environment)

    assert run(folder / "data").returncode == 0
    record = Record.read(tmp_path / "a" / "record.json")
    assert record.outcome == "out_of_memory"
    assert record.spec == settings["arms"]["a"], "a default that was not asked for is no evidence"
    refused = run(folder / "nowhere")
    assert refused.returncode == 1
    assert "nowhere" in refused.stderr and "Traceback" not in refused.stderr
