"""A noise floor measured in earnest, and one that a planted disturbance widens."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import pytest
from project import TINY, Project, copy_project

from assay.comparison.floor import NoiseFloor
from assay.comparison.model import Comparison, Contrast
from assay.config.estimate import estimate
from assay.config.load import load

pytestmark = pytest.mark.xdist_group("noise")

NETS = """
import re
import time
from pathlib import Path

import torch


def disturbed():
    '''Whether this is a visit of the second self, which answers more slowly where a file is there.'''
    if not Path("disturbed").exists() or b"profiling.visit" not in Path("/proc/self/cmdline").read_bytes():
        return False
    logs = Path("logs/tiny/noise/profile").glob("*.log")
    log = max(logs, key=lambda path: path.stat().st_mtime_ns)
    return re.findall(r"visit \\d of \\d: (\\S+)", log.read_text())[-1] == "quick-again"


class Net(torch.nn.Module):
    def __init__(self, outputs, inputs, pause):
        super().__init__()
        self.layer, self.pause = torch.nn.Linear(inputs, outputs), pause + 0.12 * disturbed()

    def forward(self, images):
        if not self.training:
            time.sleep(self.pause)
        return self.layer(images.flatten(1))


def net(num_classes, in_channels, image_size, pause=0.02):
    return Net(num_classes, in_channels * image_size**2, pause)
"""

NOISY = deepcopy(TINY) | {
    "arms": {"quick": {"model": {"source": "nets:net"}}, "slow": {"model": {"source": "nets:net", "options": {"pause": 0.04}}}},
    "seeds": 3,
    "training": {"epochs": 1, "batch_size": 256, "optimizer": {"name": "sgd", "learning_rate": 0.05}},
    # With three blocks the least p is 0.25.
    "comparison": {"confidence": 0.7},
    "noise": {"enabled": True},
    "profile": {
        "blocks": 3,
        "batch_sizes": [1],
        "warmup_seconds": 0.02,
        "seconds": 0.3,
        "min_samples": 5,
        "training_steps": 0,
        "gates": TINY["profile"]["gates"],
    },
}  # fmt: skip
METRICS = {"metrics": ["latency_ms", "accuracy"]}
AGAIN = "quick-again"


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished experiment with its noise floor, on a machine that nothing disturbs on purpose."""
    project = copy_project(tmp_path_factory.mktemp("noisy"))
    (project.folder / "nets.py").write_text(NETS)
    project.write(NOISY | METRICS)
    planned = project.planned()
    assert planned == estimate(load(project.folder / "tiny.yaml"), project.folder / "results").jobs
    assert (planned["train"], planned["train_again"], planned["profile_again"]) == (6, 3, 3)
    project.run()
    return project


@contextmanager
def settings(project: Project, **changes: object) -> Iterator[None]:
    project.write(NOISY | METRICS | changes)
    try:
        yield
    finally:
        project.write(NOISY | METRICS)


def floor_of(project: Project) -> NoiseFloor:
    return NoiseFloor.read(project.results / "noise" / "floor.json")


def latency_of(project: Project) -> Contrast:
    comparison = Comparison.read(project.results / "comparison" / "comparison.json")
    return next(metric for metric in comparison.metrics if metric.name == "latency_ms").contrasts[0]


def test_a_second_run_and_no_copy(noisy: Project) -> None:
    floor = floor_of(noisy)
    assert floor.valid, floor.violations
    assert floor.identical_weights == 3, "on a CPU the same run gives the same bits"
    accuracy, latency = floor.quantity("accuracy"), floor.quantity("latency_ms")
    assert accuracy is not None and latency is not None
    assert (accuracy.floor, accuracy.pairs) == (0, 3)
    assert latency.floor is not None and 0 < latency.floor < 0.5 and latency.differing == 3
    runs = [noisy.results / path for path in ("runs/quick/seed-0/train", f"noise/runs/{AGAIN}/seed-0/train")]
    first, second = (json.loads((run / "record.json").read_text()) for run in runs)
    assert first["batches_sha256"] == second["batches_sha256"] and first["started"] != second["started"]
    assert all((run / "log.jsonl").exists() for run in runs)
    page = (noisy.results / "report" / "index.html").read_text()
    assert "quick against itself, measured as two arms are" in page


def test_beyond_the_floor_it_is_told(noisy: Project) -> None:
    slower = latency_of(noisy)
    assert (slower.verdict, slower.beyond_floor) == ("worse", True), slower.sentence


def test_what_reruns_what(noisy: Project) -> None:
    assert noisy.planned() == {}
    template = noisy.folder / "src/assay/reporting/templates/report.html.j2"
    before = template.read_text()
    template.write_text(before.replace("Noise floor", "The noise floor"))
    assert noisy.planned() == {"report": 1, "archive": 1}
    template.write_text(before)
    result = {"resolve_experiment": 1, "compare": 1, "report": 1, "archive": 1}
    with settings(noisy, noise={"enabled": False}):
        assert noisy.planned() == result
        assert noisy.planned("results/tiny/noise/floor.json") == {
            "resolve_experiment": 1,
            "find_noise_floor": 1,
        }
    with settings(noisy, noise={"enabled": True, "blocks": 4}):
        assert noisy.planned() == result | {"profile_again": 1, "find_noise_floor": 1}
    with settings(noisy, noise={"enabled": True, "arm": "slow"}):
        assert noisy.planned()["train_again"] == 3
    arms = deepcopy(NOISY["arms"]) | {"slow": {"model": {"source": "nets:net", "options": {"pause": 0.05}}}}
    with settings(noisy, arms=arms):
        planned = noisy.planned()
        assert planned["profile"] == 3 and "profile_again" not in planned, (
            "another arm's settings are no matter of its"
        )
    lost = noisy.results / f"noise/profile/block-1/{AGAIN}/record.json"
    aside = lost.rename(lost.with_name("aside"))
    assert noisy.planned() == {
        "profile_again": 1,
        "find_noise_floor": 1,
        "compare": 1,
        "report": 1,
        "archive": 1,
    }
    aside.rename(lost)
    assert noisy.planned() == {}


def test_an_edited_floor_stops_the_comparison(noisy: Project) -> None:
    path = noisy.results / "noise" / "floor.json"
    before = path.read_text()
    path.write_text(re.sub(r'"floor": 0\.\d+', '"floor": 0.0001', before))
    done = noisy.snakemake("results/tiny/comparison/comparison.json")
    assert done.returncode != 0 and "is not what its records give" in done.stdout + done.stderr + noisy.logs()
    path.write_text(before)
    noisy.run()


def test_a_disturbance_of_one_self_widens_the_floor(noisy: Project) -> None:
    """The second self answers more slowly while a file is there."""
    quiet = floor_of(noisy).quantity("latency_ms")
    for path in sorted((noisy.results / "noise" / "profile").rglob("record.json")):
        path.unlink()
    (noisy.folder / "disturbed").touch()
    noisy.run()
    (noisy.folder / "disturbed").unlink()
    disturbed = floor_of(noisy).quantity("latency_ms")
    assert (
        quiet is not None
        and disturbed is not None
        and quiet.floor is not None
        and disturbed.floor is not None
    )
    assert disturbed.floor > 1 > quiet.floor and disturbed.told_apart
    slower = latency_of(noisy)
    assert slower.verdict == "inconclusive" and slower.beyond_floor is False
    assert "within the noise floor" in slower.sentence and "quick may differ from itself" in slower.sentence
    assert noisy.planned() == {}


def test_a_training_that_is_not_reproducible_has_a_floor(project: Project) -> None:
    """Of the model's own making: it drops units by random numbers that no seed decides."""
    (project.folder / "nets.py").write_text(
        "import os\nimport torch\n\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, inputs, outputs):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(inputs, outputs)\n"
        "        self.own = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), 'big'))\n\n"
        "    def forward(self, images):\n"
        "        images = images.flatten(1)\n"
        "        if self.training:\n"
        "            images = images * (torch.rand(images.shape, generator=self.own) > 0.5)\n"
        "        return self.layer(images)\n\n"
        "def net(num_classes, in_channels, image_size):\n"
        "    return Net(in_channels * image_size**2, num_classes)\n"
    )
    arms = {"own": {"model": {"source": "nets:net"}}, "mlp": {"model": {"source": "builtin:mlp"}}}
    project.write(
        deepcopy(TINY)
        | {"arms": arms, "seeds": 3, "profile": {"enabled": False}, "metrics": ["accuracy", "loss"]}
    )
    assert "Noise floor of tiny: own against itself" in project.run("results/tiny/noise/floor.json")
    floor = floor_of(project)
    loss = floor.quantity("loss")
    assert loss is not None and floor.valid and floor.identical_weights == 0
    assert loss.floor is not None and loss.floor > 0 and loss.differing == 3
    assert not list(project.results.glob("runs/mlp/*")), "the other arm is no matter of it"
