"""Verdicts from records on disk: every rule, and what breaks it."""

import csv
import json
from collections.abc import Callable
from typing import Any

import pytest

from assay.comparison.model import Comparison, Contrast
from assay.records import RecordError

Make = Callable[..., Any]

MLP = [0.968, 0.967, 0.970, 0.966, 0.969, 0.968]
CNN = [0.987, 0.985, 0.989, 0.986, 0.984, 0.990]
NOISE = [0.004, -0.003, 0.002, -0.002, 0.001, -0.003]


def shifted(*differences: float) -> list[float]:
    return [value + difference for value, difference in zip(MLP, differences, strict=True)]


def only(comparison: Comparison, metric: int = 0) -> Contrast:
    (contrast,) = comparison.metrics[metric].contrasts
    return contrast


def test_better_by_hand(make: Make) -> None:
    comparison = make({"accuracy": {"mlp": MLP, "cnn": CNN}}).compare()
    contrast = only(comparison)
    assert comparison.valid
    assert contrast.verdict == "better"
    assert contrast.estimate == pytest.approx(sum(CNN) / 6 - sum(MLP) / 6)
    assert contrast.differences["3"] == pytest.approx(0.02)
    assert contrast.test is not None
    assert (contrast.test.p, contrast.test.p_adjusted, contrast.test.minimum_p) == (0.03125,) * 3
    assert contrast.interval is not None
    assert contrast.interval.low is not None
    assert 0.0165 < contrast.interval.low < contrast.estimate < contrast.interval.high < 0.021
    assert contrast.probability_better is not None
    assert contrast.probability_better.value == 1
    assert comparison.headline == contrast.sentence
    assert contrast.sentence == (
        "cnn recognises better than mlp: top-1 accuracy 98.7% against 96.8%, +1.9 percentage points "
        "(95% interval +1.7 to +2.0; p = 0.031 from 6 seeds)."
    )


def test_swapping_arms_negates(make: Make) -> None:
    values = {
        "accuracy": {"mlp": MLP, "cnn": CNN},
        "loss": {"mlp": [0.2] * 6, "cnn": [0.2 + x for x in NOISE]},
    }
    made = make(values, metrics=[{"name": "accuracy", "margin": 0.001}, {"name": "loss"}])
    first = made.compare()
    settings = made.experiment.model_dump(mode="json") | {"baseline": "cnn"}
    (made.folder / "experiment.yaml").write_text(json.dumps(settings))
    second = made.compare()
    for a, b in zip(
        (m.contrasts[0] for m in first.metrics), (m.contrasts[0] for m in second.metrics), strict=True
    ):
        assert {a.verdict, b.verdict} in ({"better", "worse"}, {"inconclusive"}, {"equivalent"})
        assert a.estimate == pytest.approx(-b.estimate)
        assert (a.interval.low, a.interval.high) == pytest.approx((-b.interval.high, -b.interval.low))
        assert (a.test, a.equivalence) == (b.test, b.equivalence)
        assert a.effect_size.value == pytest.approx(-b.effect_size.value)
        assert a.probability_better.value == pytest.approx(1 - b.probability_better.value)


def test_lower_is_better_for_a_loss(make: Make) -> None:
    made = make(
        {"loss": {"mlp": [0.10, 0.11, 0.12, 0.10, 0.11, 0.09], "cnn": [0.05, 0.06, 0.04, 0.05, 0.07, 0.05]}}
    )
    contrast = only(made.compare())
    assert contrast.verdict == "better"
    assert contrast.sentence.startswith(
        "cnn has a lower loss than mlp: cross-entropy 0.053 nats against 0.105 nats"
    )


def test_a_direction_of_ones_own(make: Make) -> None:
    made = make({"accuracy": {"mlp": MLP, "cnn": CNN}}, metrics=[{"name": "accuracy", "direction": "lower"}])
    contrast = only(made.compare())
    assert contrast.verdict == "worse"
    assert contrast.sentence.startswith("cnn is worse in top-1 accuracy than mlp:")
    assert contrast.probability_better.value == 0


def test_five_seeds_cannot_conclude(make: Make) -> None:
    contrast = only(make({"accuracy": {"mlp": MLP[:5], "cnn": CNN[:5]}}).compare())
    assert contrast.verdict == "inconclusive"
    assert contrast.test.p == 0.0625
    assert "at least 6 seeds" in contrast.sentence
    assert contrast.needed.further == 1


@pytest.mark.parametrize("seeds", [1, 2])
def test_very_few_seeds(make: Make, seeds: int) -> None:
    contrast = only(make({"accuracy": {"mlp": MLP[:seeds], "cnn": CNN[:seeds]}}).compare())
    assert contrast.verdict == "inconclusive"
    assert contrast.interval.low is None
    assert contrast.interval.reason
    assert contrast.effect_size.value is None
    assert (
        f"at least 6 seeds to reach p ≤ 0.05, and there {'is 1' if seeds == 1 else 'are 2'}"
        in contrast.sentence
    )


def test_equal_arms_without_margin_are_undecided(make: Make) -> None:
    contrast = only(make({"accuracy": {"mlp": MLP, "cnn": MLP}}).compare())
    assert contrast.verdict == "inconclusive"
    assert (contrast.estimate, contrast.test.p, contrast.needed) == (0, 1, None)


def test_equal_arms_with_margin_are_equivalent(make: Make) -> None:
    made = make({"accuracy": {"mlp": MLP, "cnn": MLP}}, metrics=[{"name": "accuracy", "margin": 0.005}])
    contrast = only(made.compare())
    assert contrast.verdict == "equivalent"
    assert contrast.equivalence.p == 1 / 64
    assert "0.5 percentage points, is ruled out" in contrast.sentence


def test_a_difference_below_the_margin_is_said_both_ways(make: Make) -> None:
    made = make(
        {"accuracy": {"mlp": MLP, "cnn": shifted(0.001, 0.0005, 0.0015, 0.001, 0.0008, 0.0012)}},
        metrics=[{"name": "accuracy", "margin": 0.005}],
    )
    contrast = only(made.compare())
    assert contrast.verdict == "equivalent"
    assert contrast.significant
    assert contrast.within_margin
    assert "There is a difference, but by less than the margin that matters" in contrast.sentence


def test_a_difference_beyond_the_margin_is_better(make: Make) -> None:
    made = make({"accuracy": {"mlp": MLP, "cnn": CNN}}, metrics=[{"name": "accuracy", "margin": 0.005}])
    contrast = only(made.compare())
    assert (contrast.verdict, contrast.within_margin) == ("better", False)


def test_noise_is_inconclusive_and_says_what_it_takes(make: Make) -> None:
    contrast = only(
        make({"accuracy": {"mlp": MLP, "cnn": shifted(0.01, 0.005, -0.003, 0.007, 0.002, 0.004)}}).compare()
    )
    assert contrast.verdict == "inconclusive"
    assert contrast.needed.towards == "difference"
    assert contrast.needed.pairs == 6 + contrast.needed.further > 6
    assert f"{contrast.needed.further} more (power 80%" in contrast.sentence


# --- several hypotheses ---------------------------------------------------------------------------------


def test_six_seeds_decide_two_metrics_in_order(make: Make) -> None:
    loss = {"mlp": [0.2] * 6, "cnn": [0.1, 0.11, 0.12, 0.1, 0.09, 0.1]}
    comparison = make({"accuracy": {"mlp": MLP, "cnn": CNN}, "loss": loss}).compare()
    assert [only(comparison, i).verdict for i in (0, 1)] == ["better", "better"]


def test_an_undecided_metric_stops_those_after_it(make: Make) -> None:
    loss = {"mlp": [0.2] * 6, "cnn": [0.1, 0.11, 0.12, 0.1, 0.09, 0.1]}
    comparison = make({"accuracy": {"mlp": MLP, "cnn": shifted(*NOISE)}, "loss": loss}).compare()
    second = only(comparison, 1)
    assert second.test.p == 0.03125 < 0.05 < second.test.p_adjusted
    assert second.verdict == "inconclusive"
    assert "top-1 accuracy stands before it" in second.sentence
    assert second.needed is None


def test_costs_are_a_family_of_their_own(make: Make) -> None:
    comparison = make(
        {
            "accuracy": {"mlp": MLP, "cnn": shifted(*NOISE)},
            "latency_ms": {"mlp": [1.0, 1.1, 0.9, 1.0, 1.05, 1.02], "cnn": [2.5, 2.6, 2.4, 2.5, 2.55, 2.4]},
        }
    ).compare()
    assert [only(comparison, i).verdict for i in (0, 1)] == ["inconclusive", "worse"]


def test_two_arms_share_the_level(make: Make) -> None:
    comparison = make({"accuracy": {"mlp": MLP, "cnn": CNN, "big": CNN}}).compare()
    for contrast in comparison.metrics[0].contrasts:
        assert contrast.verdict == "inconclusive"
        assert contrast.test.p_adjusted == 0.0625
        assert "at least 7 seeds to reach p ≤ 0.025" in contrast.sentence


def test_many_arms_have_a_short_headline(make: Make) -> None:
    arms = {"mlp": MLP} | {f"arm{i}": CNN for i in range(5)}
    assert (
        make({"accuracy": arms}).compare().headline
        == "Of 5 arms against mlp in top-1 accuracy: 5 inconclusive."
    )


# --- ratios and counts ----------------------------------------------------------------------------------


def test_ratios_by_hand(make: Make) -> None:
    comparison = make(
        {"latency_ms": {"mlp": [1.0, 2.0, 4.0, 1.0, 2.0, 4.0], "cnn": [2.0, 4.0, 8.0, 3.0, 6.0, 12.0]}}
    ).compare()
    contrast = only(comparison)
    assert contrast.estimate == pytest.approx(6**0.5)
    assert comparison.metrics[0].arms["mlp"].centre == pytest.approx(2)
    assert contrast.verdict == "worse"
    assert contrast.sentence.startswith(
        "cnn answers more slowly than mlp: latency, smallest batch 4.90 ms against 2.00 ms, "
        "\N{MULTIPLICATION SIGN}2.45"
    )


def test_a_constant_difference_is_a_difference(make: Make) -> None:
    contrast = only(make({"peak_memory_mb": {"mlp": [100.0] * 6, "cnn": [110.0] * 6}}).compare())
    assert contrast.verdict == "worse"
    assert contrast.interval.low is None
    assert "+10.0% (the same at every block; p = 0.031 from 6 blocks)" in contrast.sentence


def test_a_relative_margin_is_symmetric(make: Make) -> None:
    values = {"mlp": [100.0, 101, 99, 100, 102, 98], "cnn": [103.0, 104, 101, 103, 106, 101]}
    metrics = [{"name": "latency_ms", "margin": 0.05}]
    assert only(make({"latency_ms": values}, metrics=metrics).compare()).verdict == "equivalent"
    swapped = {"cnn": values["cnn"], "mlp": values["mlp"]}
    assert only(make({"latency_ms": swapped}, metrics=metrics).compare()).verdict == "equivalent"


def test_ratio_of_zero_is_refused(make: Make) -> None:
    contrast = only(make({"latency_ms": {"mlp": [1.0] * 6, "cnn": [1.0, 0.0, 1, 1, 1, 1]}}).compare())
    assert contrast.verdict == "inconclusive"
    assert "cnn has latency, smallest batch at or below zero" in contrast.sentence


@pytest.mark.parametrize(
    ("count", "margin", "verdict"),
    [(2000, None, "worse"), (500, None, "better"), (1000, None, "equivalent"), (1010, 0.05, "equivalent")],
)
def test_counts_are_compared_exactly(make: Make, count: float, margin: float | None, verdict: str) -> None:
    made = make(
        {"parameters": {"mlp": [1000.0], "cnn": [count]}}, metrics=[{"name": "parameters", "margin": margin}]
    )
    contrast = only(made.compare())
    assert contrast.verdict == verdict
    assert contrast.test is None
    assert contrast.estimate == count / 1000


def test_counts_that_disagree_are_not_compared(make: Make) -> None:
    contrast = only(make({"parameters": {"mlp": [1000.0, 1001.0], "cnn": [5.0, 5.0]}}).compare())
    assert contrast.verdict == "inconclusive"
    assert "The records of mlp disagree: 1,000, 1,001" in contrast.sentence


# --- runs that failed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["train", "evaluate"])
@pytest.mark.parametrize("outcome", ["diverged", "out_of_memory", "failed", "interrupted"])
def test_a_failed_run_is_a_result(make: Make, outcome: str, stage: str) -> None:
    made = make({"accuracy": {"mlp": MLP, "cnn": CNN}})
    made.edit("cnn", 2, stage, lambda record: record.update(outcome=outcome, message="why"))
    comparison = made.compare()
    contrast = only(comparison)
    assert contrast.verdict == "inconclusive"
    assert contrast.pairs == 0
    assert f"no value for cnn at seed 2 ({outcome})" in comparison.headline
    assert comparison.outcomes["cnn"].runs == {"completed": 5, outcome: 1}
    assert comparison.outcomes["mlp"].runs == {"completed": 6}
    assert [(f.arm, f.replicate, f.outcome, f.message) for f in comparison.failures] == [
        ("cnn", 2, outcome, "why")
    ]
    assert comparison.metrics[0].arms["cnn"].values["2"] is None


@pytest.mark.parametrize("stages", [("evaluate",), ("train", "evaluate")])
def test_a_missing_run_is_a_result(make: Make, stages: tuple[str, ...]) -> None:
    made = make({"accuracy": {"mlp": MLP, "cnn": CNN}})
    for stage in stages:
        made.path("mlp", 0, stage).unlink()
    comparison = made.compare()
    assert only(comparison).verdict == "inconclusive"
    assert comparison.outcomes["mlp"].runs == {"missing": 1, "completed": 5}


def test_a_missing_value_is_not_zero(make: Make) -> None:
    contrast = only(make({"accuracy": {"mlp": MLP, "cnn": [*CNN[:5], None]}}).compare())
    assert contrast.verdict == "inconclusive"
    assert "no value for cnn at seed 5" in contrast.sentence


def test_a_metric_that_does_not_exist_stops_none_after_it(make: Make) -> None:
    nothing = {"mlp": [None] * 6, "cnn": [None] * 6}
    comparison = make({"top5_accuracy": nothing, "accuracy": {"mlp": MLP, "cnn": CNN}}).compare()
    assert "not measured in any run" in only(comparison, 0).sentence
    assert only(comparison, 1).verdict == "better"


LATENCIES = {"mlp": [1.0, 1.1, 0.9, 1.0, 1.05, 1.02, 1.01], "cnn": [2.5, 2.6, 2.4, 2.5, 2.55, 2.4, 90.0]}


def invalidate(made: Any, arm: str, block: int) -> None:
    made.edit(arm, block, "profile", lambda record: record.update(outcome="invalid", message="throttling"))


def test_a_block_that_was_not_valid_is_left_out_of_every_number_and_reported(make: Make) -> None:
    """The invalid one for all arms, even where one arm's record had a value."""
    made = make({"latency_ms": LATENCIES})
    invalidate(made, "cnn", 6)
    comparison = made.compare()
    contrast = only(comparison)
    assert (contrast.verdict, contrast.pairs) == ("worse", 6)
    assert set(contrast.differences) == {str(block) for block in range(6)}
    for arm in ("mlp", "cnn"):
        assert "6" not in comparison.metrics[0].arms[arm].values and comparison.metrics[0].arms[arm].n == 6
    alone = make({"latency_ms": {arm: values[:6] for arm, values in LATENCIES.items()}})
    assert only(alone.compare()).estimate == contrast.estimate
    assert comparison.outcomes["cnn"].profiles == {"completed": 6, "invalid": 1}
    assert [(f.arm, f.replicate, f.message) for f in comparison.failures] == [("cnn", 6, "throttling")]


def test_no_valid_block_at_all(make: Make) -> None:
    made = make({"latency_ms": LATENCIES, "accuracy": {"mlp": MLP, "cnn": CNN}})
    for block in range(7):
        for arm in LATENCIES:
            invalidate(made, arm, block)
    comparison = made.compare()
    assert only(comparison).verdict == "inconclusive"
    assert "No profile block was valid" in only(comparison).sentence
    assert only(comparison, 1).verdict == "better"


def test_costs_without_profile(make: Make) -> None:
    made = make(
        {"accuracy": {"mlp": MLP, "cnn": CNN}}, metrics=[{"name": "accuracy"}, {"name": "latency_ms"}]
    )
    assert "does not profile" in only(made.compare(), 1).sentence


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", '"a"'])
def test_a_record_that_is_no_number_is_refused(make: Make, number: str) -> None:
    made = make({"accuracy": {"mlp": MLP, "cnn": CNN}})
    path = made.path("cnn", 1)
    path.write_text(path.read_text().replace("0.985", number))
    with pytest.raises(RecordError, match=r"runs/cnn/seed-1/evaluate/record.json.*accuracy"):
        made.compare()


@pytest.mark.parametrize("key", ["experiment", "arm", "seed", "stage"])
def test_a_record_of_another_run_is_refused(make: Make, key: str) -> None:
    made = make({"accuracy": {"mlp": MLP, "cnn": CNN}})
    other = {"experiment": "other", "arm": "mlp", "seed": 3, "stage": "train"}[key]
    made.edit("cnn", 1, "evaluate", lambda record: record.update({key: other}))
    with pytest.raises(RecordError, match=f"{key}: is {other!r}"):
        made.compare()


# --- files ----------------------------------------------------------------------------------------------


def test_the_files(make: Make) -> None:
    made = make({"accuracy": {"mlp": MLP, "cnn": CNN}, "latency_ms": {"mlp": [1.0] * 6, "cnn": [2.0] * 6}})
    comparison = made.compare()
    folder = made.folder / "comparison"
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparison.json",
        "contract.json",
        "metrics.csv",
    ]
    assert Comparison.read(folder / "comparison.json") == comparison
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert len(rows) == 24
    assert list(rows[0]) == ["arm", "replicate_kind", "replicate", "metric", "value", "unit"]
    assert list(rows[0].values()) == ["mlp", "seed", "0", "accuracy", "0.968", "fraction"]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    made.compare()
    assert before == {path: path.read_bytes() for path in folder.iterdir()}, "not the same twice"


def test_the_script(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    import runpy
    from pathlib import Path

    made = make({"accuracy": {"mlp": MLP, "cnn": CNN}})
    script = runpy.run_path(str(Path(__file__).parents[3] / "workflow" / "scripts" / "compare.py"))
    arguments = ["--experiment-file", str(made.folder / "experiment.yaml"), "--results", str(made.folder)]
    arguments += ["--output", str(made.folder / "comparison")]
    assert script["main"](arguments) == 0
    made.path("cnn", 0).write_text("{")
    assert script["main"](arguments) == 1
    assert "cnn/seed-0/evaluate/record.json" in capsys.readouterr().err
