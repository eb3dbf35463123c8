"""The noise floor from records on disk, and what a comparison makes of it: each rule, and what breaks it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.comparison.floor import NoiseFloor, Quantity
from assay.comparison.floor_wording import measured_text, quantity_note
from assay.comparison.model import Comparison, Contrast
from assay.comparison.terminal import show_noise
from assay.config.repeated import repeated, second_self
from assay.records import RecordError

Make = Callable[..., Any]

MLP = [0.968, 0.967, 0.970, 0.966, 0.969, 0.968]
CNN = [0.987, 0.985, 0.989, 0.986, 0.984, 0.990]
FAST = [10.0, 10.1, 9.9, 10.0, 10.2, 9.8]
SLOW = [value * factor for value, factor in zip(FAST, [1.04, 1.05, 1.06, 1.05, 1.04, 1.06], strict=True)]
JITTER = [value * factor for value, factor in zip(FAST, [1.01, 0.99, 1.0, 1.005, 0.995, 1.0], strict=True)]
HAMPERED = [value * factor for value, factor in zip(FAST, [1.08, 1.09, 1.07, 1.08, 1.1, 1.06], strict=True)]
AGAIN = "mlp-again"


@pytest.fixture
def made(make: Make) -> Any:
    """Two arms; the second one is 5% slower and 2 points more accurate, at every pair."""
    values = {"accuracy": {"mlp": MLP, "cnn": CNN}, "latency_ms": {"mlp": FAST, "cnn": SLOW}}
    return make(values, noise={"enabled": True})


def of(floor: NoiseFloor, name: str) -> Quantity:
    found = floor.quantity(name)
    assert found is not None
    return found


def contrasts(comparison: Comparison) -> list[Contrast]:
    return [metric.contrasts[0] for metric in comparison.metrics]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def edit_all(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    for path in sorted(folder.rglob("record.json")):
        edit(path, change)


def test_the_arm_and_its_second_self(made: Any) -> None:
    floor = made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    assert (floor.arm, floor.again, floor.valid) == ("mlp", AGAIN, True)
    accuracy, latency = of(floor, "accuracy"), of(floor, "latency_ms")
    assert (accuracy.floor, accuracy.differing, accuracy.told_apart) == (0, 0, False)
    assert accuracy.differing_at_most == pytest.approx(0.393, abs=1e-3)
    # Chosen by hand: log ratios of mean -0.00003 and sd 0.0071; 2.5706 * 0.0071 * sqrt(2/6) = 0.0106.
    assert latency.floor == pytest.approx(0.0106, abs=2e-4)
    assert latency.estimate == pytest.approx(1.0, abs=1e-3) and latency.told_apart is False
    assert accuracy.other_seeds == pytest.approx(2.5706 * 0.0014142 * (2 / 6) ** 0.5, rel=1e-3)
    assert latency.other_seeds is None


def test_beyond_the_floor_a_difference_is_told(made: Any) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    comparison = made.compare()
    assert [line.verdict for line in contrasts(comparison)] == ["better", "worse"]
    assert [line.beyond_floor for line in contrasts(comparison)] == [True, True]
    assert comparison.metrics[1].floor is not None and comparison.metrics[1].floor.pairs == 6
    assert not [text for text in comparison.warnings if "noise" in text]


def test_within_the_floor_nothing_is_better_or_worse(made: Any) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, HAMPERED)})
    comparison = made.compare()
    better, slower = contrasts(comparison)
    assert better.verdict == "better", "each number has its own floor"
    assert slower.verdict == "inconclusive" and slower.beyond_floor is False and not slower.significant
    assert slower.test is not None and slower.test.p_adjusted <= 0.05, "the test alone would have told it"
    assert "within the noise floor, 10%: mlp may differ from itself by as much (6 blocks)" in slower.sentence
    assert slower.needed is None, "no number of further pairs mends the machine"
    (warning,) = [text for text in comparison.warnings if "noise" in text]
    assert "mlp and its second self were told apart in latency, smallest batch" in warning


def test_equivalence_stands_within_the_floor(make: Make) -> None:
    close = [value * 1.01 for value in FAST]
    made = make(
        {"latency_ms": {"mlp": FAST, "cnn": close}},
        noise={"enabled": True},
        metrics=[{"name": "latency_ms", "margin": 0.05}],
    )
    made.repeat({}, {"latency_ms": (FAST, HAMPERED)})
    comparison = made.compare()
    (line,) = contrasts(comparison)
    assert line.verdict == "equivalent" and not line.significant
    assert any("margin of latency_ms, 0.05, is below its noise floor" in text for text in comparison.warnings)


def test_without_asking_nothing_changes(make: Make) -> None:
    made = make({"latency_ms": {"mlp": FAST, "cnn": SLOW}})
    made.repeat({}, {"latency_ms": (FAST, HAMPERED)})
    comparison = made.compare()
    assert contrasts(comparison)[0].verdict == "worse" and comparison.metrics[0].floor is None


def test_counts_need_no_floor(make: Make) -> None:
    made = make(
        {"latency_ms": {"mlp": FAST, "cnn": SLOW}, "parameters": {"mlp": [9.0] * 6, "cnn": [7.0] * 6}},
        noise={"enabled": True},
    )
    floor = made.repeat(
        {},
        {
            "latency_ms": (FAST, JITTER),
            "parameters": ([9.0] * 6, [9.0] * 6),
            "model_size_mb": ([1.0] * 6, [1.0] * 6),
        },
    )
    assert floor.quantity("parameters") is None and floor.quantity("model_size_mb") is None
    assert contrasts(made.compare())[1].verdict == "better"


# --- no floor -------------------------------------------------------------------------------------------


def test_asked_for_and_not_there_nothing_is_told(made: Any) -> None:
    with pytest.raises(RecordError, match="no noise floor"):
        made.compare()


@pytest.mark.parametrize("outcome", ["diverged", "failed", "out_of_memory", "interrupted"])
def test_a_second_self_that_failed_leaves_no_floor(made: Any, outcome: str) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    edit(made.folder / f"noise/runs/{AGAIN}/seed-3/train/record.json", lambda r: r.update(outcome=outcome))
    accuracy = of(made.find_floor(), "accuracy")
    assert (
        accuracy.floor is None and accuracy.reason == f"there is no value for {AGAIN} at seed 3 ({outcome})"
    )
    better, slower = contrasts(made.compare())
    assert better.verdict == "inconclusive" and better.beyond_floor is None
    assert (
        "asks for a noise floor and there is none: there is no value for mlp-again at seed 3"
        in better.sentence
    )
    assert slower.verdict == "worse", "costs have theirs"


def test_visits_that_failed_are_told_as_that(made: Any) -> None:
    """They know no device, which is no other one."""
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})

    def fail(record: dict[str, Any]) -> None:
        record.update(outcome="failed", message="it fell", metrics={})
        record["environment"]["device"] = None

    edit_all(made.folder / "noise/profile", fail)
    made.find_floor()
    comparison = made.compare()
    assert contrasts(comparison)[1].verdict == "inconclusive"
    reason = "there is no value for mlp at block 0, 1, 2, 3, 4, 5 (failed)"
    assert f"noise floor: none for latency, smallest batch: {reason}" in comparison.warnings


def test_blocks_that_were_not_valid_are_left_out(made: Any) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    for block in (0, 1):
        for name in ("mlp", AGAIN):
            path = made.folder / f"noise/profile/block-{block}/{name}/record.json"
            edit(path, lambda r: r.update(outcome="invalid", metrics={}))
    latency = of(made.find_floor(), "latency_ms")
    assert (
        latency.pairs == 4 and latency.floor is not None and set(latency.differences) == {"2", "3", "4", "5"}
    )
    edit_all(made.folder / "noise/profile", lambda r: r.update(outcome="invalid", metrics={}))
    latency = of(made.find_floor(), "latency_ms")
    assert latency.floor is None and latency.reason == "no block of it was valid"
    assert contrasts(made.compare())[1].verdict == "inconclusive"


def test_what_was_not_measured_is_null(made: Any) -> None:
    floor = made.repeat({"accuracy": MLP}, {"latency_ms": ([None] * 6, [None] * 6)})
    latency = of(floor, "latency_ms")
    assert (latency.floor, latency.reason) == (None, "it was not measured")
    text = (made.folder / "noise/floor.json").read_text()
    assert '"floor": null' in text
    floor = made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, [0.0, *FAST[1:]])})
    assert of(floor, "latency_ms").reason == "a ratio needs positive values"


def test_numbers_beside_the_judged_ones_have_floors_too(made: Any) -> None:
    floor = made.repeat(
        {"accuracy": MLP, "loss": MLP}, {"latency_ms": (FAST, JITTER), "latency_ms@16": (FAST, JITTER)}
    )
    assert of(floor, "latency_ms@16").floor == of(floor, "latency_ms").floor
    assert of(floor, "latency_ms@16").direction is None
    assert of(floor, "loss").reason == "there is no value for mlp at seed 0, 1, 2, 3, 4, 5 (not measured)"


def test_time_to_a_target_has_a_floor_where_the_target_is_reached(make: Make) -> None:
    made = make(
        {"accuracy": {"mlp": MLP, "cnn": CNN}},
        noise={"enabled": True},
        comparison={"target_accuracy": 0.9},
        metrics=[{"name": "train_seconds_to_target"}],
    )
    made.repeat({"accuracy": MLP}, {})

    def reach(record: dict[str, Any], seconds: float, accuracy: float = 0.95) -> None:
        if record["stage"] == "train":
            record["details"] = {
                "history": [{"epoch": 0, "validation_accuracy": accuracy}],
                "epoch_ends_s": [seconds],
            }

    edit_all(made.folder / "runs", lambda r: reach(r, 10 + 0.1 * r["seed"] + 5 * (r["arm"] == "cnn")))
    edit_all(made.folder / "noise/runs", lambda r: reach(r, 10.3 - 0.1 * r["seed"]))
    floor = of(made.find_floor(), "train_seconds_to_target").floor
    assert floor is not None and 0.01 < floor < 0.1
    assert contrasts(made.compare())[0].verdict == "worse"
    edit(made.folder / f"noise/runs/{AGAIN}/seed-1/train/record.json", lambda r: reach(r, 10, accuracy=0.5))
    lost = of(made.find_floor(), "train_seconds_to_target")
    assert (lost.floor, lost.reason) == (
        None,
        f"there is no value for {AGAIN} at seed 1 (target not reached)",
    )
    assert contrasts(made.compare())[0].verdict == "inconclusive"


def test_few_pairs_tell_no_spread(make: Make) -> None:
    made = make({"latency_ms": {"mlp": FAST[:2], "cnn": SLOW[:2]}}, noise={"enabled": True})
    floor = made.repeat({}, {"latency_ms": (FAST, JITTER)})
    assert of(floor, "latency_ms").reason == "2 pairs tell no spread; it takes 3"


def test_what_the_experiment_leaves_out_is_not_guarded(make: Make) -> None:
    values = {"accuracy": {"mlp": MLP, "cnn": CNN}, "latency_ms": {"mlp": FAST, "cnn": SLOW}}
    made = make(values, noise={"enabled": True, "seeds": 0})
    made.repeat({}, {"latency_ms": (FAST, JITTER)})
    comparison = made.compare()
    assert comparison.metrics[0].floor is None and contrasts(comparison)[0].verdict == "better"
    assert comparison.metrics[1].floor is not None


def test_more_pairs_compared_than_repeated(make: Make) -> None:
    values = {"accuracy": {"mlp": MLP, "cnn": CNN}, "latency_ms": {"mlp": FAST, "cnn": SLOW}}
    made = make(values, noise={"enabled": True, "seeds": 3, "blocks": 4})
    floor = made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    latency, compared = of(floor, "latency_ms"), made.compare().metrics[1].floor
    assert compared is not None and compared.value is not None and latency.floor is not None
    assert compared.pairs == 4 and compared.value < latency.floor, "six pairs average better than four"


# --- a floor that is another's --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda r: r["environment"].update(cpu="another CPU"),
            "CPU of profile/block-0/mlp/record.json is a CPU",
        ),
        (lambda r: r["environment"]["device"].update(name="A100"), "device .* is H100, of the floor A100"),
        (lambda r: r["environment"]["device"].update(driver="999"), "driver .* is 570, of the floor 999"),
        (lambda r: r["environment"].update(image={"sif_sha256": "ff"}), "image .* is none"),
        (lambda r: r["environment"].update(packages={"torch": "1"}), "packages"),
        (lambda r: r["environment"].update(threads=8), "CPU threads .* is 1, of the floor 8"),
        (lambda r: r["code"].update(sources_sha256="f" * 64), "code of the stage"),
        (lambda r: r["details"].update(profile={"seconds": 9}), "settings of the profile"),
    ],
)
def test_a_floor_of_other_circumstances_is_refused(
    made: Any, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    edit_all(made.folder / "noise/profile", change)
    assert made.find_floor().valid, "it is a floor, and another one's"
    comparison = made.compare()
    better, slower = contrasts(comparison)
    assert better.verdict == "better" and slower.verdict == "inconclusive"
    import re

    assert re.search(f"it was measured elsewhere: {words}", slower.sentence), slower.sentence
    assert any("measured elsewhere" in text for text in comparison.warnings)


def test_another_host_of_the_same_kind_is_noted(made: Any) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    edit_all(made.folder / "noise", lambda r: r["environment"].update(host="node2"))
    made.edit_all("mlp", lambda r: r["environment"].update(host="node2"))
    for block in range(6):  # all arms of a block are on one host
        made.edit("cnn", block, "profile", lambda r: r["environment"].update(host="node2"))
    made.find_floor()
    comparison = made.compare()
    assert contrasts(comparison)[1].verdict == "worse"
    assert "noise floor: it was measured on node2, and there are runs on node1" in " ".join(
        comparison.warnings
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["spec"]["training"].update(batch_size=7), "training.batch_size"),
        (lambda r: r.update(data_sha256="f" * 64), "the prepared data"),
        (lambda r: r["environment"]["device"].update(name="A100"), "the device model"),
        (lambda r: r.update(batches_sha256="f" * 64) if r["stage"] == "train" else None, "batches"),
    ],
)
def test_selves_that_are_not_alike_are_no_floor(
    made: Any, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    edit_all(made.folder / "noise/runs", change)
    floor = made.find_floor()
    assert not floor.valid and any(words in text for text in floor.violations)
    assert all(one.floor is None and one.reason in floor.violations for one in floor.quantities)
    assert {line.verdict for line in contrasts(made.compare())} == {"inconclusive"}


def test_a_copied_record_is_no_second_run(made: Any) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    record = json.loads(made.path("mlp", 2).read_text()) | {"arm": AGAIN}
    (made.folder / f"noise/runs/{AGAIN}/seed-2/evaluate/record.json").write_text(json.dumps(record))
    floor = made.find_floor()
    assert not floor.valid and "is a copy of mlp's record and no second run" in floor.violations[0]


def test_an_edited_floor_is_refused(made: Any) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, HAMPERED)})
    edit(made.folder / "noise/floor.json", lambda f: f["quantities"][-1].update(floor=0.0001))
    with pytest.raises(RecordError, match=r"noise/floor\.json: is not what its records give; remove it"):
        made.compare()


def test_rounding_of_another_processor_is_no_edit(made: Any) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    edit(
        made.folder / "noise/floor.json",
        lambda f: f["quantities"][-1].update(floor=f["quantities"][-1]["floor"] * (1 + 1e-13)),
    )
    assert contrasts(made.compare())[1].verdict == "worse"


def test_records_changed_behind_the_floor_are_noticed(made: Any) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, HAMPERED)})
    path = made.folder / f"noise/profile/block-0/{AGAIN}/record.json"
    edit(path, lambda r: r["metrics"]["latency_ms"].update(value=10.0))
    with pytest.raises(RecordError, match="is not what its records give"):
        made.compare()


@pytest.mark.parametrize("content", ["", "{", '{"schema_version": 2}', "[]"])
def test_a_damaged_floor_is_named(made: Any, content: str) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    (made.folder / "noise/floor.json").write_text(content)
    with pytest.raises(
        RecordError, match=r"noise/floor\.json: .*; remove it and run `assay noise FILE` again"
    ):
        made.compare()


# --- words ----------------------------------------------------------------------------------------------


def test_what_a_person_reads(made: Any, capsys: pytest.CaptureFixture[str]) -> None:
    floor = made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    assert measured_text(floor).startswith(
        "6 seeds and 6 blocks, on node1, H100, 2026-01-01 00:00 to 2026-01-01 00:00 UTC"
    )
    assert quantity_note(of(floor, "accuracy")) == "no pair differs; up to 39% of pairs might"
    show_noise(made.folder, width=100)
    text = capsys.readouterr().out
    assert "Noise floor of test: mlp against itself" in text and "1.1%" in text
    assert "accuracy: no pair differs" in text


def test_identical_weights_are_counted(made: Any) -> None:
    made.repeat({"accuracy": MLP}, {"latency_ms": (FAST, JITTER)})
    made.edit_all("mlp", lambda r: r.update(weights_sha256="0" * 64 if r["seed"] != 4 else "1" * 64))
    assert made.find_floor().identical_weights == 5


def test_the_second_name_is_nobody_elses(make: Make) -> None:
    made = make({"accuracy": {"mlp": MLP, "mlp-again": CNN}}, noise={"arm": "mlp"})
    assert second_self(made.experiment) == ("mlp", "mlp-again1")
    long = "a" * 63
    made = make({"accuracy": {long: MLP, "b": CNN}})
    arm, again = repeated(made.experiment).arms
    assert arm == long and again != arm and len(again) <= 63
