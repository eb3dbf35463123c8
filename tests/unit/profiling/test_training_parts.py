"""Where the time of a training step goes, on a real store and a real network."""

import time

import pytest
import torch

from assay.config.arm import Arm
from assay.config.schema import Data, Profile
from assay.data.batches import Batches
from assay.data.prepare import prepare
from assay.data.store import open_store
from assay.profiling.exchange import Result, Timings
from assay.profiling.measured import metrics
from assay.profiling.subject import Subject
from assay.profiling.training import MeasuredTraining
from assay.profiling.training_parts import PARTS

torch.set_num_threads(1)
CPU = torch.device("cpu")
PLANTED = 0.03
"""Seconds: long beside what a busy machine takes for the rest of a step."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    prepare(Data(source="digits"), folder, module_roots=[])
    return open_store(folder)


class SlowLoader(Batches):
    def _gather(self, indices):
        time.sleep(PLANTED)
        return super()._gather(indices)


def measured(store, kind=Batches, **training) -> tuple[MeasuredTraining, Batches]:
    settings = {"batch_size": 32, **training}
    arm = Arm.model_validate(
        {
            "model": {"source": "builtin:mlp"},
            "training": settings,
            "augmentation": {"crop_padding": 1, "mixup": 0.2},
            "execution": {"device": "cpu"},
        }
    )
    subject = Subject(arm, store, [], CPU)
    profile = Profile(training_steps=40, width=None)
    manifest = store.manifest
    batches = kind(store.split("train"), batch_size=32, device=CPU, mean=manifest.mean, std=manifest.std)
    return MeasuredTraining(subject, profile), batches


def test_parts_of_each_step_sum_to_the_whole_of_it(store) -> None:
    training, batches = measured(store, accumulate=2, clip_norm=1.0, ema_decay=0.9)
    steps = training.with_loading(batches)
    assert steps.images == 64
    assert list(steps.parts) == [part for part in PARTS if part != "transfer"], "nothing travels to a CPU"
    for number, whole in enumerate(steps.whole.samples):
        assert sum(one.samples[number] for one in steps.parts.values()) == pytest.approx(whole, abs=1e-5)
    assert len(steps.whole.samples) == steps.whole.summary.count == 40


def test_a_slow_loader_is_waited_for_and_nothing_else_grows(store) -> None:
    found = {}
    for kind in (Batches, SlowLoader):
        training, batches = measured(store, kind)
        steps = training.with_loading(batches)
        found[kind] = {name: one.summary.median for name, one in steps.parts.items()}
        without = training.without_loading().summary.median
        assert without < 1e3 * PLANTED, "without loading, no loader is waited for"
    grown = {name: found[SlowLoader][name] - found[Batches][name] for name in found[Batches]}
    assert grown.pop("wait") >= 1e3 * PLANTED * 0.95
    assert all(more < 1e3 * PLANTED / 4 for more in grown.values()), grown


class Slow(torch.nn.Module):
    """Passes on what it gets, and takes its time in one direction."""

    def __init__(self, direction: str) -> None:
        super().__init__()
        self.direction = direction

    def forward(self, images):
        if self.direction == "forward":
            time.sleep(PLANTED)
        elif images.requires_grad:
            images.register_hook(lambda gradient: time.sleep(PLANTED))
        return images


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_slow_pass_shows_in_its_own_part(store, direction) -> None:
    training, batches = measured(store)
    step = training._step
    step.called = torch.nn.Sequential(step.model, Slow(direction))
    steps = training.with_loading(batches)
    medians = {name: one.summary.median for name, one in steps.parts.items()}
    assert medians.pop(direction) >= 1e3 * PLANTED
    assert max(medians.values()) < 1e3 * PLANTED / 2, medians


def test_a_transfer_is_told_where_batches_travel(store) -> None:
    training, _ = measured(store)
    manifest = store.manifest
    batches = Batches(
        store.split("train"), batch_size=32, device=CPU, mean=manifest.mean, std=manifest.std, resident=False
    )
    steps = training.with_loading(batches)
    assert list(steps.parts) == list(PARTS)


def test_an_absent_part_is_null_in_the_record_and_not_zero(store) -> None:
    training, batches = measured(store)
    steps = training.with_loading(batches)
    arm = training._subject.arm
    result = Result(inference_ms={1: Timings.of([1.0])}, loaded_training=steps)
    found = metrics([result], arm, Profile(batch_sizes=[1]), completed=True)
    assert found["training_transfer_ms"].value is None
    assert found["training_wait_ms"].value > 0
    assert found["loaded_training_throughput"].value == pytest.approx(
        32 / found["training_step_ms"].value * 1e3
    )


def test_a_split_smaller_than_a_batch_counts_what_there_is(store) -> None:
    training, _ = measured(store, batch_size=5000)
    steps = training.with_loading()
    assert steps.images == len(store.split("train")) < 5000


def test_first_step_is_told_by_the_wall(store) -> None:
    training, _ = measured(store)
    assert 0 < training.first() < 300
