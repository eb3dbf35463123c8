"""Every undeclared difference in the records makes the comparison invalid; what pairing removes does not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.comparison.model import Contract, Variable
from assay.data.store import Manifest
from assay.records import RecordError, write_atomically

Make = Callable[..., Any]
ACCURACY = {"mlp": [0.9] * 6, "cnn": [0.95] * 6}
COSTS = {"mlp": [1.0] * 6, "cnn": [2.0] * 6}


def contract_of(made: Any) -> dict[str, Variable]:
    made.compare()
    contract = Contract.model_validate_json((made.folder / "comparison" / "contract.json").read_bytes())
    return {variable.name: variable for variable in contract.variables}


def change(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(record: dict[str, Any]) -> None:
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = to

    return apply


VIOLATIONS = {
    "spec.training.epochs": change("spec", "training", "epochs", to=7),
    "spec.execution.precision": change("spec", "execution", "precision", to="bf16"),
    "spec.model.source": change("spec", "model", "source", to="builtin:other"),
    "data.manifest": change("data_sha256", to="1" * 64),
    "packages": change("environment", "packages", "torch", to="2.6.0"),
    "python": change("environment", "python", to="3.13"),
    "image": change("environment", "image", to={"base": "sha256:1"}),
    "code": change("code", "sources_sha256", to="1" * 64),
    "device.name": change("environment", "device", "name", to="A100"),
    "device.type": change("environment", "device", "type", to="cpu"),
    "device.driver": change("environment", "device", "driver", to="560"),
    "device.cuda": change("environment", "device", "cuda", to="12.4"),
    "device.uuid": change("environment", "device", "uuid", to="GPU-2"),
    "threads": change("environment", "threads", to=4),
    "device.memory": change("environment", "device", "memory_mb", to=40960.0),
    "spec.model.image_size": change("spec", "model", "image_size", to=224),
    "spec.training.batch_size": change("spec", "training", "batch_size", to=7),
    "spec.training.optimizer.learning_rate": change("spec", "training", "optimizer", "learning_rate", to=9.0),
    "spec.execution.deterministic": change("spec", "execution", "deterministic", to=False),
    "spec.execution.tf32": change("spec", "execution", "tf32", to=True),
    "spec.execution.channels_last": change("spec", "execution", "channels_last", to=True),
    "spec.execution.compile": change("spec", "execution", "compile", to=True),
    "spec.execution.devices": change("spec", "execution", "devices", to=2),
    "spec.augmentation.horizontal_flip": change("spec", "augmentation", "horizontal_flip", to=0.25),
    "batches": lambda record: record["stage"] != "train" or record.update(batches_sha256="f" * 64),
    "devices": change("details", "ranks", to=[{"device": {"name": "H100"}}] * 2),
    "host.profile": change("environment", "host", to="node2"),
    "blocks.settings": change("details", "profile", to={"seconds": 2.0}),
    "blocks.order": change("details", "order", to=["cnn", "mlp", "mlp", "cnn"]),
    "blocks.gates": change("details", "gates", to=[{"name": "ecc_errors", "status": "held"}]),
    "blocks.validity": change("details", "gates", to=[{"name": "throttling", "status": "tripped"}]),
    "telemetry.profile": change("details", "visits", to=[{"telemetry": None}] * 2),
}
"""By the line that each trips: an undeclared difference that can move a number of one arm and not of the other."""

HARMLESS = {
    "host": ("the host differs", change("environment", "host", to="other")),
    "platform": ("the platform differs", change("environment", "platform", to="other")),
    "code.version": ("Assay's version differs", change("code", "version", to="other")),
    "code.commit": ("the commit differs", change("code", "commit", to="a" * 40)),
    "code.modified": ("whether the code is as committed differs", change("code", "modified", to=True)),
    "cpu.host": ("the CPU model beside the GPU differs", change("environment", "cpu", to="other")),
    "cores": ("the number of cores of a job's own differs", change("environment", "cores", to=[0, 1])),
    "device.uuid.runs": (
        "the GPU of training and evaluation differs",
        lambda r: r["stage"] == "profile" or r["environment"]["device"].update(uuid="GPU-9"),
    ),
    "training.resumed": ("whether a training was resumed differs", change("resumed", to=True)),
    "telemetry.training": ("how a training was watched differs", change("telemetry", to=None)),
    "telemetry.gaps": (
        "the completeness of telemetry differs between arms (train, seed 0): mlp: no gaps; "
        "cnn: more than 10% of samples late",
        lambda r: r["telemetry"] is None or r["telemetry"].update(late=30),
    ),
}
"""Differences that are told and do not bias."""


def test_stages_have_code_of_their_own(make: Make) -> None:
    made = make({"accuracy": ACCURACY, "latency_ms": COSTS})
    for arm in ("mlp", "cnn"):
        for seed in range(len(ACCURACY["mlp"])):
            made.edit(arm, seed, "evaluate", change("code", "sources_sha256", to="2" * 64))
    assert contract_of(made)["code"].status == "equal"
    made.edit("mlp", 0, "evaluate", change("code", "sources_sha256", to="3" * 64))
    assert contract_of(made)["code"].status == "violated"


def test_all_equal_is_valid(make: Make) -> None:
    made = make({"accuracy": ACCURACY, "latency_ms": COSTS})
    lines = contract_of(made)
    assert made.compare().valid
    assert made.compare().warnings == []
    assert lines["spec.model.source"].status == "declared"
    assert lines["spec.model.source"].declared_by == "model"
    assert set(VIOLATIONS) <= set(lines)
    others = {name: line.status for name, line in lines.items() if name != "spec.model.source"}
    assert others.pop("cpu") == "inapplicable", "a GPU computes"
    for name in ("code.commit", "code.modified"):  # not outside a checkout
        assert others.pop(name) == "unknown"
    assert set(others.values()) == {"equal"}, others


@pytest.mark.parametrize("name", VIOLATIONS)
def test_an_undeclared_difference_invalidates(make: Make, name: str) -> None:
    made = make({"accuracy": ACCURACY, "latency_ms": COSTS})
    made.edit_all("cnn", VIOLATIONS[name])
    lines = contract_of(made)
    comparison = made.compare()
    assert lines[name].status == "violated"
    assert lines[name].message in comparison.violations
    assert "cnn" in lines[name].message
    assert not comparison.valid
    assert comparison.headline.startswith("No verdict: the comparison is invalid, because ")
    for metric in comparison.metrics:
        assert {contrast.verdict for contrast in metric.contrasts} == {"inconclusive"}
        assert all(
            contrast.sentence.startswith("No verdict on cnn against mlp") for contrast in metric.contrasts
        )


def test_one_seed_is_enough(make: Make) -> None:
    made = make({"accuracy": ACCURACY})
    made.edit("cnn", 3, "train", VIOLATIONS["packages"])
    comparison = made.compare()
    assert comparison.violations == [
        "the set of packages differs between arms (train, seed 3): "
        "mlp: torch 2.9.1; cnn: torch 2.6.0 or torch 2.9.1"
    ]


def test_unequal_cpus_matter_where_cpus_compute(make: Make) -> None:
    made = make({"accuracy": ACCURACY})
    for arm in ("mlp", "cnn"):
        made.edit_all(arm, change("environment", "device", to={"type": "cpu", "name": "a CPU"}))
    assert made.compare().valid
    made.edit_all("cnn", change("environment", "cpu", to="another CPU"))
    assert contract_of(made)["cpu"].status == "violated"


@pytest.mark.parametrize("name", HARMLESS)
def test_a_difference_that_does_not_bias_is_noted(make: Make, name: str) -> None:
    words, edit = HARMLESS[name]
    made = make({"accuracy": ACCURACY})
    for arm in ("mlp", "cnn"):
        made.edit_all(arm, change("code", "commit", to="0" * 40))
        made.edit_all(arm, change("code", "modified", to=False))
    assert contract_of(made)[name].status == "equal"
    assert made.compare().warnings == []
    made.edit_all("cnn", edit)
    line, comparison = contract_of(made)[name], made.compare()
    assert comparison.valid
    assert line.status == "varies"
    assert line.message in comparison.warnings
    assert line.message.startswith(words)


@pytest.mark.parametrize("name", [*VIOLATIONS, *HARMLESS])
def test_what_both_arms_share_at_a_seed_or_block_is_no_violation(make: Make, name: str) -> None:
    """But for settings, data and what a block was measured by, which are the same everywhere; a tripped gate is one."""
    made = make({"accuracy": ACCURACY, "latency_ms": COSTS})
    edit = VIOLATIONS.get(name) or HARMLESS[name][1]
    for arm in ("mlp", "cnn"):
        for stage in ("train", "evaluate", "profile"):
            made.edit(arm, 2, stage, edit)
    everywhere = name.startswith("spec.") or name in ("data.manifest", "blocks.settings", "blocks.validity")
    assert (contract_of(made)[name].status == "violated") is everywhere


@pytest.mark.parametrize(
    "name", ["device.name", "device.memory", "device.uuid", "device.driver", "devices", "threads"]
)
def test_a_declared_difference_of_the_device_is_told_as_declared(make: Make, name: str) -> None:
    execution = {"device": "cpu", "threads": 4, "devices": 2}
    arms = {"mlp": {"model": {"source": "m:a"}}, "cnn": {"model": {"source": "m:a"}, "execution": execution}}
    made = make({"accuracy": ACCURACY, "latency_ms": COSTS}, arms=arms, factors=["execution"])
    made.edit_all("cnn", VIOLATIONS[name])
    line = contract_of(made)[name]
    assert line.status == "declared" and line.declared_by and line.declared_by.startswith("execution.")
    assert made.compare().valid


def test_blocks_that_are_not_valid_are_told(make: Make) -> None:
    made = make({"latency_ms": {arm: [*values, 1.0] for arm, values in COSTS.items()}})
    for arm in COSTS:
        made.edit(
            arm, 6, "profile", lambda record: record.update(outcome="invalid", message="heat", metrics={})
        )
    line = contract_of(made)["blocks.validity"]
    assert (line.status, line.evidence["cnn"]) == ("varies", ["6 of 7 valid"])
    assert "validity of blocks: 6 left out for all arms, because a gate tripped" in made.compare().warnings
    assert made.compare().valid


def test_blocks_that_nothing_judged_are_unknown_and_said_to_be(make: Make) -> None:
    made = make({"latency_ms": COSTS})
    for arm in COSTS:
        made.edit_all(arm, lambda r: r["stage"] != "profile" or r["details"].update(gates=[]))
    assert contract_of(made)["blocks.validity"].status == "unknown"
    assert "was judged by no gate, for want of telemetry" in " ".join(made.compare().warnings)


@pytest.mark.parametrize(
    "details",
    [{"visits": [3]}, {"visits": [{"telemetry": {}}]}, {"gates": [{}]}, {"ranks": 5}, {"ranks": [5]}],
)
def test_details_that_no_stage_writes_are_refused(make: Make, details: Any) -> None:
    made = make({"accuracy": ACCURACY, "latency_ms": COSTS})
    made.edit("cnn", 0, "profile", change("details", to=details))
    with pytest.raises(RecordError, match=r"block-0/cnn/record\.json: details: not what this stage writes"):
        made.compare()


def test_what_was_odd_about_the_data_stands_with_the_verdict(make: Make) -> None:
    made = make({"accuracy": ACCURACY})
    odd = "1 classes have no test image, e.g. 'two'"
    manifest = Manifest(
        source="folder",
        image_shape=(8, 8, 1),
        classes=["one", "two"],
        mean=[0],
        std=[1],
        splits={},
        warnings=[odd],
    )
    write_atomically(made.folder / "data/manifest.json", manifest.model_dump_json().encode())
    assert made.compare().warnings == [f"data: {odd}"]


def test_what_varies_between_seeds_for_all_arms_is_noted(make: Make) -> None:
    made = make({"accuracy": ACCURACY})
    for arm in ("mlp", "cnn"):
        for stage in ("train", "evaluate"):
            made.edit(arm, 5, stage, VIOLATIONS["device.name"])
    comparison = made.compare()
    assert comparison.valid
    assert comparison.warnings == ["the device model varies between replicates, alike for all arms"]


def test_settings_and_data_must_not_vary_even_alike(make: Make) -> None:
    for name in ("spec.training.epochs", "data.manifest"):
        made = make({"accuracy": ACCURACY})
        for arm in ("mlp", "cnn"):
            made.edit(arm, 5, "train", VIOLATIONS[name])
        assert contract_of(made)[name].status == "violated"


def test_a_declared_difference_is_valid(make: Make) -> None:
    arms = {
        "mlp": {"model": {"source": "builtin:mlp"}},
        "cnn": {"model": {"source": "builtin:mlp"}, "execution": {"device": "cpu", "threads": 2}},
    }
    made = make({"accuracy": ACCURACY}, arms=arms, factors=["execution.device", "execution.threads"])
    for name in ("device.type", "device.name", "threads"):
        made.edit_all("cnn", VIOLATIONS[name])
    lines = contract_of(made)
    assert made.compare().valid
    assert lines["device.name"].declared_by == "execution.device"
    assert lines["threads"].declared_by == "execution.threads"


def test_an_experiment_that_differs_undeclared_is_caught_again(make: Make) -> None:
    arms = {
        "mlp": {"model": {"source": "builtin:mlp"}},
        "cnn": {"model": {"source": "builtin:cnn"}, "training": {"epochs": 3}},
    }
    comparison = make({"accuracy": ACCURACY}, arms=arms).compare()
    assert comparison.violations == ["training.epochs differs and no factor declares it: mlp: 20; cnn: 3"]


def test_batches_must_be_equal_per_seed(make: Make) -> None:
    made = make({"accuracy": ACCURACY})
    made.edit("cnn", 4, "train", change("batches_sha256", to="f" * 64))
    assert contract_of(made)["batches"].status == "violated"
    assert "(train, seed 4)" in made.compare().violations[0]


@pytest.mark.parametrize(
    ("factor", "training", "valid"),
    [
        ("training.batch_size", {"batch_size": 32}, True),
        ("training.epochs", {"epochs": 3}, True),
        ("training.accumulate", {"accumulate": 2}, False),
    ],
)
def test_batches_may_differ_where_a_factor_changes_them(
    make: Make, factor: str, training: Any, valid: bool
) -> None:
    arms = {"mlp": {"model": {"source": "m:a"}}, "cnn": {"model": {"source": "m:a"}, "training": training}}
    made = make({"accuracy": ACCURACY}, arms=arms, factors=[factor])
    for seed in range(6):
        made.edit("cnn", seed, "train", change("batches_sha256", to=f"{seed + 100:064d}"))
    assert made.compare().valid is valid


def test_batches_of_a_run_that_ended_early_are_not_compared(make: Make) -> None:
    made = make({"accuracy": ACCURACY})
    made.edit("cnn", 4, "train", lambda record: record.update(batches_sha256="f" * 64, outcome="diverged"))
    assert made.compare().valid


def test_batches_not_recorded_are_unknown(make: Make) -> None:
    made = make({"accuracy": ACCURACY})
    made.edit("cnn", 4, "train", change("batches_sha256", to=None))
    assert contract_of(made)["batches"].status == "unknown"
    assert any("equality was not checked" in warning for warning in made.compare().warnings)


def test_a_users_file_must_be_one_content(make: Make) -> None:
    made = make({"accuracy": ACCURACY})
    made.edit_all("mlp", change("code", "user_sources", to={"nets.py": "a"}))
    made.edit_all("cnn", change("code", "user_sources", to={"nets.py": "a", "more.py": "b"}))
    assert made.compare().valid
    made.edit("cnn", 2, "train", change("code", "user_sources", to={"nets.py": "c"}))
    assert contract_of(made)["user_sources.nets.py"].status == "violated"


def test_warnings_of_records_are_gathered(make: Make) -> None:
    made = make({"accuracy": ACCURACY})
    made.edit_all("cnn", change("warnings", to=["something odd"]))
    assert "6 records: train of cnn: something odd" in made.compare().warnings


OF_A_GPU = ("device.memory", "device.driver", "device.cuda", "device.uuid", "device.uuid.runs", "cpu.host")
OF_BLOCKS = (
    "device.uuid",
    "host.profile",
    "telemetry.profile",
    "blocks.order",
    "blocks.gates",
    "blocks.settings",
    "blocks.validity",
)


def test_what_is_not_here_does_not_apply_and_what_is_not_told_is_unknown(make: Make, tmp_path: Path) -> None:
    def everywhere(change: Callable[[dict[str, Any]], None]) -> None:
        for path in tmp_path.rglob("record.json"):
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))

    both = {"accuracy": ACCURACY, "latency_ms": COSTS}
    made = make(both)
    everywhere(change("environment", "device", to={"type": "cpu", "name": "c"}))
    found = contract_of(made)
    assert {found[name].status for name in OF_A_GPU} == {"inapplicable"}
    assert (found["cpu"].status, found["blocks.validity"].status) == ("equal", "equal")
    made = make(both)
    everywhere(change("environment", "device", "driver", to=None))
    assert contract_of(made)["device.driver"].status == "unknown"
    for path in tmp_path.glob("profile/*/*/record.json"):
        path.unlink()
    found = contract_of(made)
    assert {found[name].status for name in OF_BLOCKS} == {"unknown"}, "asked for, and not there"
    shutil.rmtree(tmp_path / "profile")
    found = contract_of(make({"accuracy": ACCURACY}))
    assert {found[name].status for name in OF_BLOCKS} == {"inapplicable"}
