"""Time and energy to a target accuracy: read from records, and never from those runs alone that reached it."""

import csv
from collections.abc import Callable
from typing import Any

import pytest

from assay.comparison.target import NOT_REACHED

Make = Callable[..., Any]
METRICS = ("target_reached", "train_seconds_to_target", "train_energy_to_target")
FLAT = [0.7] * 6


def told(
    record: dict[str, Any], accuracies: list[float], seconds: float, joules: float | None = None
) -> None:
    """As a training leaves it: each epoch took as long as the others."""
    record["details"] = {
        "history": [{"epoch": i, "validation_accuracy": a} for i, a in enumerate(accuracies)],
        "epoch_ends_s": [seconds * (i + 1) for i in range(len(accuracies))],
        "epoch_energy_j": None if joules is None else [joules] * len(accuracies),
    }


@pytest.fixture
def aimed(make: Make) -> Callable[..., Any]:
    """aimed(mlp=epochs by seed, cnn=…): the epoch, from 1, in which each run reaches 90%; None: never."""

    def build(
        *names: str, target: float | None = 0.9, joules: float | None = 50.0, **epochs: list[int | None]
    ) -> Any:
        metrics = [{"name": name} for name in names or ("accuracy", *METRICS)]
        made = make(
            {"accuracy": dict.fromkeys(epochs, FLAT)},
            metrics=metrics,
            comparison={"target_accuracy": target},
        )
        for arm, found in epochs.items():
            for seed, epoch in enumerate(found):
                curve = [0.5 if epoch is None or i + 1 < epoch else 0.9 for i in range(10)]
                pace = 2.0 + 0.1 * seed
                made.edit(arm, seed, "train", lambda record, c=curve, p=pace: told(record, c, p, joules))
        return made

    return build


def contrasts(comparison: Any) -> dict[str, Any]:
    return {metric.name: metric.contrasts[0] for metric in comparison.metrics}


def test_where_all_reach_it_time_and_energy_are_compared(aimed: Callable[..., Any]) -> None:
    made = aimed(mlp=[4] * 6, cnn=[2, 2, 2, 2, 2, 3])
    comparison = made.compare()
    found = contrasts(comparison)
    seconds, energy = found["train_seconds_to_target"], found["train_energy_to_target"]
    assert seconds.pairs == energy.pairs == 6
    assert seconds.differences["0"] == pytest.approx(-0.693, abs=1e-3), "2 epochs against 4"
    assert energy.estimate == pytest.approx(0.5 ** (5 / 6) * 0.75 ** (1 / 6))
    times = next(metric for metric in comparison.metrics if metric.name == "train_seconds_to_target").arms
    assert times["mlp"].values["1"] == pytest.approx(4 * 2.1)
    assert times["cnn"].centre is not None
    assert found["target_reached"].estimate == 0


def test_the_first_epoch_at_or_above_the_target_counts(aimed: Callable[..., Any]) -> None:
    made = aimed(mlp=[4] * 6, cnn=[2] * 6)
    curve = [0.5, 0.95, 0.5, 0.5, 0.99]
    made.edit("cnn", 0, "train", lambda record: told(record, curve, 3.0))
    times = made.compare().metrics[2].arms["cnn"].values
    assert times["0"] == 6.0


def test_seeds_that_miss_it_are_not_left_out(aimed: Callable[..., Any]) -> None:
    """The cnn is faster wherever it gets there: told from those seeds alone, it would be better."""
    comparison = aimed(mlp=[8] * 6, cnn=[2, 2, 2, 2, None, None]).compare()
    found = contrasts(comparison)
    for name in METRICS[1:]:
        assert (found[name].verdict, found[name].pairs, found[name].estimate) == ("inconclusive", 0, None)
        assert f"no value for cnn at seed 4, 5 ({NOT_REACHED})" in found[name].sentence
        assert "would be a selection" in found[name].sentence
    arms = {metric.name: metric.arms for metric in comparison.metrics}
    times = arms["train_seconds_to_target"]["cnn"]
    assert times.values["4"] is None and times.values["0"] == 4.0
    assert (times.n, times.centre, times.interval, times.deviation) == (4, None, None, None), (
        "a mean over those that got there would be a selection too"
    )
    assert arms["train_seconds_to_target"]["mlp"].centre is not None
    reached = found["target_reached"]
    assert (reached.pairs, reached.estimate) == (6, pytest.approx(-1 / 3))
    assert arms["target_reached"]["cnn"].centre == pytest.approx(4 / 6)


def test_how_often_it_is_reached_is_a_metric_with_a_verdict(aimed: Callable[..., Any]) -> None:
    reached = contrasts(aimed(*METRICS, mlp=[8] * 6, cnn=[None] * 6).compare())["target_reached"]
    assert (reached.verdict, reached.estimate) == ("worse", -1)
    assert "reaches the target less often than mlp" in reached.sentence


def test_where_nobody_reaches_it_that_is_said(aimed: Callable[..., Any]) -> None:
    found = contrasts(aimed(mlp=[None] * 6, cnn=[None] * 6).compare())
    sentence = found["train_seconds_to_target"].sentence
    assert found["train_seconds_to_target"].verdict == "inconclusive"
    assert NOT_REACHED in sentence and "not measured" not in sentence


def test_a_run_that_shared_its_gpu_has_no_time_and_says_why(aimed: Callable[..., Any]) -> None:
    made = aimed(mlp=[4] * 6, cnn=[2] * 6)

    def shared(record: dict[str, Any]) -> None:
        record["details"]["shared"] = {"gpu": "GPU-a", "place": 0, "runs": 2, "others": 0}

    made.edit("cnn", 3, "train", shared)
    found = contrasts(made.compare())
    for name in METRICS[1:]:
        assert found[name].verdict == "inconclusive"
        assert "no value for cnn at seed 3 (other runs shared its GPU" in found[name].sentence
    assert found["target_reached"].estimate == 0


def test_a_resumed_run_has_no_time_and_says_why(aimed: Callable[..., Any]) -> None:
    made = aimed(mlp=[4] * 6, cnn=[2] * 6)

    def resumed(record: dict[str, Any]) -> None:
        record["resumed"] = True
        record["details"] |= {"epoch_ends_s": None, "epoch_energy_j": None}

    made.edit("cnn", 3, "train", resumed)
    found = contrasts(made.compare())
    assert found["train_seconds_to_target"].verdict == "inconclusive"
    assert "no value for cnn at seed 3 (resumed" in found["train_seconds_to_target"].sentence
    assert found["target_reached"].pairs == 6, "that it got there is known all the same"


def test_energy_needs_a_counter_and_two_seconds(aimed: Callable[..., Any]) -> None:
    found = contrasts(aimed(mlp=[4] * 6, cnn=[2] * 6, joules=None).compare())
    assert "not measured in any run" in found["train_energy_to_target"].sentence
    assert found["train_seconds_to_target"].pairs == 6
    made = aimed(mlp=[4] * 6, cnn=[2] * 6)
    made.edit("cnn", 0, "train", lambda record: told(record, [0.95], 1.5, 50.0))
    found = contrasts(made.compare())
    assert "reached in under 2 s" in found["train_energy_to_target"].sentence
    assert found["train_seconds_to_target"].pairs == 6


def test_a_run_that_failed_has_no_value_of_any(aimed: Callable[..., Any]) -> None:
    made = aimed(mlp=[4] * 6, cnn=[2] * 6)
    made.edit("cnn", 1, "train", lambda record: record.update(outcome="diverged", message="why"))
    for name in METRICS:
        assert "no value for cnn at seed 1 (diverged)" in contrasts(made.compare())[name].sentence


def test_another_target_needs_no_other_record(aimed: Callable[..., Any]) -> None:
    made = aimed(target=0.4, mlp=[4] * 6, cnn=[None] * 6)
    found = contrasts(made.compare())
    assert found["train_seconds_to_target"].pairs == 6
    assert found["train_seconds_to_target"].estimate == pytest.approx(1)


def test_values_stand_in_the_long_table_with_and_without_a_verdict(aimed: Callable[..., Any]) -> None:
    made = aimed(mlp=[4] * 6, cnn=[2, None, 2, 2, 2, 2])
    made.compare()
    with (made.folder / "comparison" / "metrics.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["metric"] == "train_seconds_to_target"]
    assert len(lines) == 12
    assert [line["value"] for line in lines if line["arm"] == "cnn"][:2] == ["4.0", ""]


def test_records_of_an_earlier_version_were_not_measured(aimed: Callable[..., Any]) -> None:
    made = aimed(mlp=[4] * 6, cnn=[2] * 6)
    for seed in range(6):
        for arm in ("mlp", "cnn"):
            made.edit(arm, seed, "train", lambda record: record["details"].pop("epoch_ends_s"))
    assert "not measured in any run" in contrasts(made.compare())["train_seconds_to_target"].sentence
