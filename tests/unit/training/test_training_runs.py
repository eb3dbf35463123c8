"""Whole runs on real digits: outcomes, pairing, choice of the epoch, precision, log and record."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_runs import MakeRun, arm_of, lines_of, trained, with_training

from assay.data.batches import Batches
from assay.data.store import open_store
from assay.records import Log, RecordError
from assay.training.checkpoint import Checkpoints
from assay.training.folder import Run
from assay.training.loop import Loop
from assay.training.rungs import leave_stopped, take_up

FINITE = {"loss", "accuracy", "throughput_samples_per_sec"}


def test_a_run_learns_and_leaves_what_it_promises(make_run: MakeRun) -> None:
    run = with_training(make_run(), epochs=6)
    record = trained(run)
    assert record.outcome == "completed" and not record.resumed and record.attempts == 1
    assert record.metrics["validation_accuracy"].value > 0.8  # type: ignore[operator]
    assert record.metrics["train_seconds"].value is not None
    assert len(record.details["history"]) == record.details["epochs"] == 6
    assert not run.checkpoint.exists(), "checkpoints go when the run is done"
    weights = load_file(run.output / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values()) and weights


def test_every_line_of_the_log_has_the_fields_of_the_design(make_run: MakeRun) -> None:
    run = make_run()
    trained(run)
    lines = lines_of(run)
    fields = {"step", "loss", "accuracy", "gpu_memory_mb", "throughput_samples_per_sec", "timestamp"}
    identity = {"experiment": "e", "arm": "a", "seed": 0, "stage": "train"}
    for line in lines:
        assert fields <= line.keys() and identity.items() <= line.items()
        assert line["gpu_memory_mb"] is None, "null where there is no GPU, never 0"
    assert [line["event"] for line in lines][:1] == ["started"]
    assert lines[-1]["event"] == "finished"
    epochs = [line for line in lines if line["event"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [0, 1]
    assert all(line[field] is not None for line in epochs for field in FINITE)


def test_a_checkpoint_holds_nothing_that_the_log_does_not_have(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who goes on from a checkpoint does not write its epochs again: killed right after, the log must have them."""
    run = with_training(make_run(), epochs=3, checkpoint_seconds=0.0)
    seen = []
    save = Checkpoints.save

    def looked_at(self: Checkpoints, state: dict[str, Any]) -> None:
        held = [entry["epoch"] for entry in state["position"]["history"]]
        assert [line["epoch"] for line in lines_of(run) if line["event"] == "epoch"] == held
        seen.append(len(held))
        save(self, state)

    monkeypatch.setattr(Checkpoints, "save", looked_at)
    trained(run)
    assert {0, 1, 2} <= set(seen)


def test_arms_are_paired_by_seed_whatever_their_model_draws(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "paired.py").write_text(
        "import random, numpy, torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, n, m):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(n, m)\n"
        "    def forward(self, x):\n"
        "        random.random(), numpy.random.rand(), torch.rand(3)\n"
        "        return self.linear(torch.nn.functional.dropout(x.flatten(1), 0.5, self.training))\n"
        "def net(num_classes, in_channels, image_size):\n"
        "    return Net(in_channels * image_size**2, num_classes)\n"
    )
    augmentation = {"crop_padding": 1, "horizontal_flip": 0.5, "mixup": 0.2}
    arms = {
        "mlp": arm_of(augmentation=augmentation),
        "cnn": arm_of("builtin:cnn", augmentation=augmentation),
        "own": arm_of("paired:net", options={}, augmentation=augmentation),
    }
    records = {
        (name, seed): trained(make_run(name, seed=seed, settings=arm, roots=(tmp_path,)))
        for name, arm in arms.items()
        for seed in (0, 1)
    }
    for seed in (0, 1):
        assert len({records[name, seed].batches_sha256 for name in arms}) == 1
    assert records["mlp", 0].batches_sha256 != records["mlp", 1].batches_sha256
    assert len({record.weights_sha256 for record in records.values()}) == 6


def test_the_same_run_gives_the_same_bits(make_run: MakeRun) -> None:
    settings = arm_of("builtin:cnn", options={"width": 4, "dropout": 0.3}, training={"ema_decay": 0.9})
    first, second = (trained(make_run(name, settings=settings)) for name in ("a", "b"))
    assert first.weights_sha256 == second.weights_sha256


def test_a_training_that_pauses_where_trials_are_compared_ends_with_the_same_bits(make_run: MakeRun) -> None:
    """In three commands and two folders, killed between two of them, against one."""
    settings = arm_of(
        "builtin:cnn", options={"width": 4, "dropout": 0.3}, training={"epochs": 4, "ema_decay": 0.9}
    )
    whole = trained(make_run("b", settings=settings))
    run = replace(make_run("a", settings=settings), arm="b")
    parts = [replace(run, output=run.output.with_name(f"rung-{end}"), until=end) for end in (1, 3)]
    for part, end in zip(parts, (1, 3), strict=True):
        paused = trained(part)
        assert (paused.outcome, paused.details["epochs"]) == ("pruned", end)
        assert paused.message == f"stopped after {end} of 4 epochs"
        assert paused.details["history"][-1]["epoch"] == end - 1
        best = max(entry["validation_accuracy"] for entry in paused.details["history"])
        assert paused.metrics["validation_accuracy"].value == best, "its score, should it end here"
        assert not load_file(part.output / "model.safetensors"), "and no weights"
    before = paused.batches_sha256
    again = trained(parts[0])
    assert again.details["epochs"] == 1 and again.batches_sha256 != before, (
        "of then, not of the later checkpoint"
    )
    take_up(run, parts[0].output / "record.json")
    record = trained(run)
    assert record.outcome == "completed" and record.resumed
    assert [line["epoch"] for line in lines_of(run) if line["event"] == "epoch"] == [0, 1, 2, 3], (
        "the log is whole"
    )
    lines = lines_of(run)
    take_up(run, parts[0].output / "record.json")
    assert lines_of(run) == lines, "what has gone on is not begun again"
    (run.output / "log.jsonl").write_text('{"of": "other settings"}\n')
    take_up(run, parts[0].output / "record.json")
    assert lines_of(run) == lines_of(parts[0])
    assert (record.weights_sha256, record.batches_sha256) == (whole.weights_sha256, whole.batches_sha256)
    untimed = [[{**entry, "seconds": 0} for entry in one.details["history"]] for one in (record, whole)]
    assert untimed[0] == untimed[1] and not run.checkpoint.exists()


def test_a_trial_that_does_not_go_on_is_what_it_was(make_run: MakeRun) -> None:
    run = make_run()
    part = replace(run, output=run.output.with_name("rung-0"), until=1)
    trained(part)
    assert run.checkpoint.exists()
    assert leave_stopped(run, part.output / "record.json") == 0
    for name in ("record.json", "log.jsonl"):
        assert (run.output / name).read_bytes() == (part.output / name).read_bytes()
    assert not load_file(run.output / "model.safetensors") and not run.checkpoint.exists()
    with pytest.raises(RecordError, match="no such record"):
        leave_stopped(run, part.output / "other.json")


def test_best_epoch_is_chosen_by_validation_and_last_is_last(make_run: MakeRun) -> None:
    history = trained(run := with_training(make_run(), epochs=5)).details["history"]
    best = max(history, key=lambda entry: (entry["validation_accuracy"], -entry["validation_loss"]))
    record = trained(with_training(make_run("best"), epochs=5, select="best"))
    assert record.details["chosen_epoch"] == best["epoch"]
    assert record.metrics["validation_accuracy"].value == best["validation_accuracy"]
    assert trained(with_training(make_run("last"), epochs=5, select="last")).details["chosen_epoch"] == 4
    assert run.output.exists()


def test_a_loss_that_is_not_finite_is_a_result(make_run: MakeRun) -> None:
    settings = arm_of(training={"optimizer": {"name": "sgd", "learning_rate": 1e30}})
    run = make_run(settings=settings)
    record = trained(run)
    assert record.outcome == "diverged" and "loss is" in (record.message or "")
    assert record.metrics["validation_accuracy"].value is None
    assert load_file(run.output / "model.safetensors") == {}
    assert lines_of(run)[-1]["outcome"] == "diverged"


def test_memory_that_runs_out_is_a_result(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, n, m):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(n, m)\n"
        "    def forward(self, x):\n"
        "        if self.training:\n"
        "            torch.empty(1 << 50)\n"
        "        return self.linear(x.flatten(1))\n"
        "def net(num_classes, in_channels, image_size):\n"
        "    return Net(in_channels * image_size**2, num_classes)\n"
    )
    record = trained(make_run(settings=arm_of("greedy:net", options={}), roots=(tmp_path,)))
    assert record.outcome == "out_of_memory" and record.metrics["validation_loss"].value is None


def test_a_mistake_in_a_model_is_no_result(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        if self.training:\n"
        "            raise RuntimeError('planted')\n"
        "        return super().forward(x.flatten(1))\n"
        "def net(num_classes, in_channels, image_size):\n"
        "    return Net(in_channels * image_size**2, num_classes)\n"
    )
    run = make_run(settings=arm_of("wrong:net", options={}), roots=(tmp_path,))
    with pytest.raises(RuntimeError, match="planted"):
        trained(run)
    assert not (run.output / "record.json").exists()


@pytest.mark.parametrize(
    "execution",
    [
        {"precision": "bf16"},
        {"channels_last": True},
        {"deterministic": False},
        {"precision": "bf16", "channels_last": True, "deterministic": False},
    ],
    ids=str,
)
def test_other_arithmetic_trains_too(execution: dict[str, object], make_run: MakeRun) -> None:
    record = trained(with_training(make_run(settings=arm_of("builtin:cnn", execution=execution)), epochs=3))
    assert record.outcome == "completed"
    assert record.metrics["validation_accuracy"].value > 0.3  # type: ignore[operator]


def test_every_option_of_the_recipe_trains(make_run: MakeRun) -> None:
    settings = arm_of(
        "builtin:cnn",
        options={"width": 8},
        augmentation={"crop_padding": 1, "random_erasing": 0.2, "cutmix": 1.0},
        training={
            "epochs": 4,
            "batch_size": 32,
            "accumulate": 3,
            "label_smoothing": 0.1,
            "clip_norm": 1.0,
            "ema_decay": 0.9,
            "optimizer": {"name": "adamw", "learning_rate": 0.01},
            "schedule": {"name": "one_cycle"},
        },
    )
    assert trained(make_run(settings=settings)).outcome == "completed"


def loop_of(run: Run, tmp_path: Path, model: nn.Module) -> Loop:
    store = open_store(run.data)

    def batches(split: str) -> Batches:
        manifest = store.manifest
        size = run.settings.training.batch_size
        return Batches(
            store.split(split), batch_size=size, device="cpu", mean=manifest.mean, std=manifest.std
        )  # type: ignore[arg-type]

    return Loop(
        model,
        run.settings,
        seed=run.seed,
        classes=10,
        training=batches("train"),
        validation=batches("validation"),
        checkpoints=Checkpoints(tmp_path / "none", ""),
        log=Log(tmp_path / "log.jsonl", identity={}),
        stop_requested=lambda: False,
    )


@pytest.mark.parametrize("batch_size", [32, 36])
def test_accumulated_steps_are_one_large_step(batch_size: int, make_run: MakeRun, tmp_path: Path) -> None:
    """Without batch statistics: two half batches give the update of their union."""
    weights = []
    for size, accumulate in ((2 * batch_size, 1), (batch_size, 2)):
        training = {"epochs": 1, "batch_size": size, "accumulate": accumulate}
        run = make_run(settings=arm_of(training=training | {"schedule": {"name": "constant"}}))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        loop = loop_of(run, tmp_path, model)
        loop._train_epoch()
        steps = loop.training.steps_per_epoch
        weights.append((model[1].weight.detach().clone(), steps // accumulate, steps % accumulate))
    (large, updates, _), (small, groups, rest) = weights
    if rest == 0 and updates == groups:
        torch.testing.assert_close(large, small)
    else:
        assert loop.position.updates == groups + 1, "the last, smaller group makes an update of its own"


def test_label_smoothing_and_mixed_labels_enter_the_loss(make_run: MakeRun, tmp_path: Path) -> None:
    plain = trained(make_run("plain")).details["history"][-1]["train_loss"]
    smooth = trained(make_run("smooth", settings=arm_of(training={"label_smoothing": 0.3})))
    mixed = trained(make_run("mixed", settings=arm_of(augmentation={"mixup": 1.0})))
    assert smooth.details["history"][-1]["train_loss"] > plain
    assert mixed.details["history"][-1]["train_loss"] > plain
