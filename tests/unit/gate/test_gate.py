"""The gate's decisions: each is reached, and each refusal is tripped."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest_gate import GOOD, METRICS, moved

from assay.cli import main
from assay.comparison import statistics
from assay.gate import command
from assay.gate.decide import one_sided, session_test
from assay.gate.model import Gate
from assay.gate.run import gate

Side = Callable[..., Path]


def outcome(found: Gate, name: str = "accuracy") -> tuple[str, str]:
    case = next(case for case in found.cases if case.name == name)
    return case.outcome, case.sentence


# --- decisions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "decision", "code"),
    [(0.0, "pass", 0), (0.03, "pass", 0), (-0.002, "pass", 0), (-0.03, "worse", 3)],
)
def test_a_shift_is_judged_against_the_margin(side: Side, by: float, decision: str, code: int) -> None:
    wobble = {"accuracy": [a + 0.001 * (-1) ** i for i, a in enumerate(moved(GOOD, by)["accuracy"])]}
    found = gate(candidate=side("candidate", wobble), baseline=side("baseline"))
    assert (found.decision, found.exit_code) == (decision, code)
    assert outcome(found)[0] == decision
    assert found.violations == []


def test_noise_is_undecided_and_the_user_says_what_that_means(side: Side) -> None:
    noisy = {"accuracy": [0.80, 0.99, 0.85, 0.99, 0.83, 0.99]}
    sides = {"candidate": side("candidate", noisy), "baseline": side("baseline")}
    assert (gate(**sides).decision, gate(**sides).exit_code) == ("inconclusive", 4)
    assert gate(**sides, inconclusive="pass").exit_code == 0
    assert gate(**sides, inconclusive="fail").exit_code == 3
    assert "neither shown to be worse by more than 1 percentage points" in outcome(gate(**sides))[1]


def test_too_few_seeds_decide_nothing_and_the_gate_says_how_many_it_takes(side: Side) -> None:
    worse = {"accuracy": [0.5] * 4}
    found = gate(
        candidate=side("candidate", worse, seeds=4),
        baseline=side("baseline", {"accuracy": GOOD["accuracy"][:4]}, seeds=4),
    )
    assert found.decision == "inconclusive"
    assert "at least 5 pairs" in outcome(found)[1]


def test_without_a_margin_only_better_passes(side: Side) -> None:
    bare = [{"name": "accuracy"}]
    sides = {"baseline": side("baseline", metrics=bare)}
    same = gate(candidate=side("candidate", moved(GOOD, 0.0), metrics=bare), **sides)
    assert same.decision == "inconclusive" and "--margin accuracy=" in outcome(same)[1]
    assert gate(candidate=side("candidate", moved(GOOD, 0.01), metrics=bare), **sides).decision == "pass"
    assert gate(candidate=side("candidate", moved(GOOD, -0.01), metrics=bare), **sides).decision == "worse"


def test_a_margin_from_the_command_line_replaces_the_experiments(side: Side) -> None:
    sides = {"candidate": side("candidate", moved(GOOD, -0.03)), "baseline": side("baseline")}
    assert gate(**sides).decision == "worse"
    found = gate(**sides, margins={"accuracy": 0.1})
    assert found.decision == "pass" and "the margin of accuracy is 0.1" in found.notes[0]
    with pytest.raises(ValueError, match="--margin loss: the experiment does not judge it"):
        gate(**sides, margins={"loss": 0.1})


def test_a_margin_that_lets_everything_pass_is_refused() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"lets everything pass.*write 2% as accuracy=0\.02"):
        command._margin("accuracy=2")
    assert command._margin("latency_ms=2") == ("latency_ms", 2.0)
    assert command._margin("accuracy=0.02") == ("accuracy", 0.02)


def test_the_same_weights_pass_without_a_margin(side: Side) -> None:
    options = {"metrics": [{"name": "accuracy"}], "change": {"weights": "a" * 64}}
    found = gate(candidate=side("candidate", **options), baseline=side("baseline", **options))
    assert found.decision == "pass" and "same weights" in outcome(found)[1]


def test_runs_that_diverge_never_pass(side: Side) -> None:
    def lost(count: int) -> Gate:
        numbers: dict[str, Any] = {"accuracy": [None] * count + GOOD["accuracy"][count:]}
        return gate(candidate=side("candidate", numbers), baseline=side("baseline"))

    assert lost(1).decision == lost(2).decision == "inconclusive"
    assert "diverged" in outcome(lost(2))[1]
    assert lost(6).decision == "worse" and outcome(lost(6), "completed")[0] == "worse"


def test_several_metrics_share_the_rate_of_false_alarms(side: Side) -> None:
    """p = 1/32, of five seeds, is one of two chances: Holm holds it back."""
    metrics = [{"name": name, "margin": 0.001} for name in ("accuracy", "loss")]
    first, loss = GOOD["accuracy"][:5], [0.5, 0.4, 0.5, 0.4, 0.5]
    sides = {
        "candidate": side(
            "candidate", {"accuracy": [a - 0.03 for a in first], "loss": loss[::-1]}, metrics=metrics, seeds=5
        ),
        "baseline": side("baseline", {"accuracy": first, "loss": loss}, metrics=metrics, seeds=5),
    }
    found = gate(**sides)
    case = next(case for case in found.cases if case.name == "accuracy")
    assert case.p_worse == pytest.approx(1 / 32) and case.p_worse_adjusted == pytest.approx(2 / 32)
    assert case.outcome == "inconclusive" and "Holm" in case.sentence


@pytest.mark.parametrize(
    ("looks", "spending", "by", "decision"),
    [
        (None, "obrien-fleming", -0.03, "worse"),
        ([6, 12], "obrien-fleming", -0.03, "inconclusive"),
        ([6, 12], "obrien-fleming", 0.0, "inconclusive"),
        ([6, 12], "pocock", -0.03, "worse"),
        ([6, 12], "pocock", 0.0, "pass"),
    ],
)
def test_looks_share_the_error_rate(
    side: Side, looks: list[int] | None, spending: str, by: float, decision: str
) -> None:
    """Six pairs of one sign have p = 1/64: after six of twelve seeds O'Brien and Fleming's spending allows 0.006, Pocock's 0.03."""
    comparison = {"resamples": 1000} | ({"looks": looks, "spending": spending} if looks else {})
    options = {"settings": {"comparison": comparison}}
    found = gate(
        candidate=side("candidate", moved(GOOD, by), **options), baseline=side("baseline", **options)
    )
    assert found.decision == decision
    assert any("after 6 of 12 seeds" in note for note in found.notes) == (looks is not None)
    lost = gate(
        candidate=side("lost", {"accuracy": [None] * 6}, **options), baseline=side("baseline", **options)
    )
    assert outcome(lost, "completed")[0] == ("inconclusive" if spending != "pocock" and looks else "worse")


# --- counts and costs ---------------------------------------------------------------------------------------


def test_counts_are_exact(side: Side) -> None:
    metrics = [{"name": "parameters", "margin": 0.1}]

    def at(count: float) -> Gate:
        numbers = {"parameters": [count] * 2}
        return gate(
            candidate=side("candidate", numbers, metrics=metrics, blocks=2),
            baseline=side("baseline", {"parameters": [1000.0] * 2}, metrics=metrics, blocks=2),
        )

    assert at(1100).decision == "pass" and at(900).decision == "pass" and at(1101).decision == "worse"


LATENCY = [{"name": "latency_ms", "margin": 0.05}]


def session(side: Side, who: str, level: float) -> Path:
    values = [level * (1 + 0.001 * (-1) ** i) for i in range(6)]
    return side(who, {"latency_ms": values}, metrics=LATENCY, seeds=1, blocks=6)


def test_costs_of_two_sessions_are_not_a_block(side: Side) -> None:
    """Ten times as slow, in six blocks each, and still: nobody knows how sessions differ."""
    found = gate(candidate=session(side, "candidate", 20), baseline=session(side, "baseline", 2))
    assert found.decision == "inconclusive" and "no block balances" in outcome(found, "latency_ms")[1]


@pytest.mark.parametrize(("level", "decision"), [(2.0, "pass"), (2.1, "inconclusive"), (3.0, "worse")])
def test_sessions_of_the_baseline_tell_how_sessions_differ(side: Side, level: float, decision: str) -> None:
    further = [session(side, f"session-{'x' * i}", cost) for i, cost in enumerate((1.98, 2.02))]
    found = gate(
        candidate=session(side, "candidate", level), baseline=session(side, "baseline", 2), sessions=further
    )
    assert found.decision == decision
    case = found.cases[-1]
    assert (case.way, case.replicates) == ("between sessions", 3)
    assert case.estimate == pytest.approx(level / 2, rel=0.001)


def test_the_test_between_sessions_is_students() -> None:
    from scipy import stats

    levels, own = np.array([0.1, 0.3, 0.2, 0.15]), 0.5
    worse, not_worse, width = session_test(levels, own - levels.mean(), 0.1, 0.05)
    known = stats.t(3, loc=levels.mean(), scale=levels.std(ddof=1) * (1 + 1 / 4) ** 0.5)
    assert worse == pytest.approx(known.sf(own - 0.1)) and not_worse == pytest.approx(1 - worse)
    assert width == pytest.approx(known.interval(0.95)[1] - levels.mean())


def test_an_arm_of_the_same_experiment_is_compared_block_by_block(side: Side, gates: Any) -> None:
    metrics = [*METRICS, *LATENCY]
    slow = {**moved(GOOD, 0.0), "latency_ms": [2.0 + 0.01 * i for i in range(6)]}
    folder = side("candidate", slow, metrics=metrics, blocks=6)
    fast = slow | {"latency_ms": [1.0] * 6}
    gates.Results(folder, metrics, 6, 6, started="2026-01-01T01:00:00Z").write(fast, ("reference",))
    found = gate(candidate=folder, baseline=None)
    assert found.decision == "worse"
    assert [(case.name, case.outcome, case.way) for case in found.cases[1:]] == [
        ("accuracy", "pass", "paired by seed"),
        ("latency_ms", "worse", "paired by block"),
    ]


def test_a_floor_holds_a_claim_back(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    from assay.comparison.guard import Guard
    from assay.comparison.model import Floor
    from assay.gate import run

    class Wide(Guard):
        def __init__(self, value: float | None) -> None:
            self.value, self.notes = value, []

        def at(self, metric: str, pairs: int) -> Floor:
            return Floor(value=self.value, arm="model", pairs=6, reason=None)

    sides = {"candidate": side("candidate", moved(GOOD, -0.03)), "baseline": side("baseline")}
    for value, decision in ((0.01, "worse"), (0.05, "inconclusive"), (None, "inconclusive")):
        monkeypatch.setattr(run, "_guard", lambda _, value=value: (Wide(value), []))
        found = gate(**sides)
        assert found.decision == decision
    assert "noise floor, which is not known" in outcome(found)[1]


# --- what must be equal -------------------------------------------------------------------------------------

DIFFERENCES: list[tuple[dict[str, Any], str, str | None]] = [
    ({"change": {"data": "1" * 64}}, "the prepared data", None),
    ({"change": {"batches": "1" * 64}}, "training batches", "batches"),
    ({"change": {"packages": {"torch": "2.9.2"}}}, "packages", "packages"),
    ({"change": {"python": "3.13"}}, "Python", "python"),
    ({"change": {"image": {"sif_sha256": "9" * 64}}}, "image", "image"),
    ({"change": {"sources": "1" * 64}}, "code", "code"),
    ({"settings": {"seeds": [1, 2, 3, 4, 5, 6]}}, "seeds", None),
    ({"metrics": [{"name": "accuracy", "margin": 0.5}]}, "metrics, margins, level or looks", "judging"),
]


@pytest.mark.parametrize(("options", "told", "word"), DIFFERENCES, ids=lambda value: str(value)[:40])
def test_an_undeclared_difference_is_refused(
    side: Side, gates: Any, options: dict[str, Any], told: str, word: str | None, tmp_path: Path
) -> None:
    baseline = side("baseline")
    if "settings" in options:
        made = gates.Results(
            tmp_path / "candidate", METRICS, settings=options["settings"], started="2026-01-02T00:00:00Z"
        )
        candidate = made.write({"accuracy": [0.0, *GOOD["accuracy"]]})
    else:
        candidate = side("candidate", **options)
    found = gate(candidate=candidate, baseline=baseline)
    assert (found.decision, found.exit_code, found.cases) == ("refused", 2, [])
    assert told in found.violations[0]
    if word is not None:
        found = gate(candidate=candidate, baseline=baseline, changed=[word])
        assert found.decision == "pass" and any(word in line for line in found.declared)


def test_looks_of_one_side_alone_are_refused(side: Side) -> None:
    looked = {"settings": {"comparison": {"resamples": 1000, "looks": [6, 12]}}}
    found = gate(candidate=side("candidate", **looked), baseline=side("baseline"))
    assert (found.decision, found.exit_code) == ("refused", 2)
    assert "metrics, margins, level or looks" in found.violations[0]


def test_a_device_of_another_model_is_refused_and_another_of_the_same_is_not(side: Side) -> None:
    from assay.records import Device

    def on(**changed: str) -> Path:
        device = {"type": "cuda", "name": "H100", "uuid": "GPU-1", "driver": "570", "cuda": "12.8"}
        return side("candidate", change={"device": Device(**(device | changed))})

    baseline = side("baseline")
    found = gate(candidate=on(name="A100"), baseline=baseline)
    assert found.decision == "refused" and "device model" in found.violations[0]
    assert gate(candidate=on(name="A100"), baseline=baseline, changed=["device"]).decision == "pass"
    assert gate(candidate=on(uuid="GPU-2"), baseline=baseline).decision == "pass"
    assert gate(candidate=on(driver="580"), baseline=baseline, changed=["device.driver"]).decision == "pass"


def test_a_setting_is_declared_by_its_path(side: Side) -> None:
    arm = {"model": {"source": "builtin:mlp", "options": {"width": 99}}}
    arms = {"arms": {"reference": {"model": {"source": "builtin:mlp"}}, "model": arm}}
    sides = {"candidate": side("candidate", settings=arms), "baseline": side("baseline")}
    assert "model.options.width differs and no factor declares it" in gate(**sides).violations[0]
    for word in ("model", "model.options.width"):
        assert gate(**sides, changed=[word]).decision == "pass"
    with pytest.raises(ValueError, match=r"--changed training\.optimiser: is no setting"):
        gate(**sides, changed=["training.optimiser"])


def test_the_users_own_code_is_what_the_gate_asks_about(side: Side) -> None:
    baseline = side("baseline", change={"user_sources": {"net.py": "a" * 64}, "commit": "1" * 40})
    candidate = side("candidate", change={"user_sources": {"net.py": "b" * 64}, "commit": "2" * 40})
    found = gate(candidate=candidate, baseline=baseline)
    assert found.decision == "pass" and "net.py" in found.declared[0]
    assert (found.baseline_commits, found.candidate_commits) == (["1" * 40], ["2" * 40])


def test_a_session_that_is_not_the_baselines_is_refused(side: Side) -> None:
    other = side("session-2", change={"packages": {"torch": "1"}}, started="2026-01-03T00:00:00Z")
    found = gate(candidate=side("candidate"), baseline=side("baseline"), sessions=[other])
    assert found.decision == "refused"


# --- wrong input --------------------------------------------------------------------------------------------


def test_runs_are_not_compared_with_themselves(side: Side) -> None:
    folder = side("baseline")
    with pytest.raises(ValueError, match="holds the same runs"):
        gate(candidate=folder, baseline=folder)


@pytest.mark.parametrize("what", ["missing", "interrupted"])
def test_an_unfinished_side_is_not_judged(side: Side, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    candidate, baseline = side("candidate"), side("baseline")
    record = candidate / "runs/model/seed-3/evaluate/record.json"
    if what == "missing":
        record.unlink()
    else:
        record.write_text(record.read_text().replace('"completed"', '"interrupted"'))
    assert main(["gate", str(candidate), "--baseline", str(baseline)]) == 1
    assert f"seed 3 is {what}" in capsys.readouterr().out


def test_wrong_input_ends_with_2(side: Side, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    candidate, baseline = side("candidate"), side("baseline")
    torn = side("torn")
    (torn / "runs/model/seed-0/train/record.json").write_text('{"stage": "tr')
    (tmp_path / "empty").mkdir()
    for words, told in (
        ([str(tmp_path / "none")], "none: no such file"),
        ([str(tmp_path / "empty")], "no folder of results"),
        ([str(candidate), "--baseline", str(torn)], "torn/runs/model/seed-0/train/record.json"),
        ([str(candidate), "--baseline", str(baseline), "--arm", "nobody"], "has no such arm"),
        ([str(candidate), "--changed", "model"], "need --baseline"),
        ([str(candidate), "--baseline", str(baseline), "--json", "/proc/x/y"], "cannot be written"),
    ):
        assert main(["gate", *words]) == 2
        assert told in capsys.readouterr().err


def test_a_baseline_may_be_an_archive(side: Side, tmp_path: Path) -> None:
    from assay.archive import zipped

    folder = side("baseline")
    files = {
        f"results/gated/{path.relative_to(folder)}": path for path in folder.rglob("*") if path.is_file()
    }
    archive = tmp_path / "gated.crate.zip"
    zipped.write(archive, files)
    found = gate(candidate=side("candidate", moved(GOOD, -0.03)), baseline=archive)
    assert found.decision == "worse" and found.baseline == f"{archive} (model)"
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut off or damaged"):
        gate(candidate=tmp_path / "candidate", baseline=archive)


def test_a_number_that_its_predictions_do_not_give_is_refused(side: Side) -> None:
    candidate, baseline = side("candidate", moved(GOOD, -0.03)), side("baseline")
    record = candidate / "runs/model/seed-0/evaluate/record.json"
    record.write_text(record.read_text().replace('"value":0.87', '"value":0.97'))
    with pytest.raises(ValueError, match=r"metrics\.accuracy: is 0\.97"):
        gate(candidate=candidate, baseline=baseline)


def test_the_p_values_are_those_of_enumeration() -> None:
    worsening = np.array([0.3, -0.1, 0.4, 0.2])
    worse, not_worse = one_sided(worsening, 0.05)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T
    sums = signs @ np.abs(worsening - 0.05)
    seen = (worsening - 0.05).sum()
    assert worse == pytest.approx((sums >= seen - 1e-12).mean())
    assert not_worse == pytest.approx((sums <= seen + 1e-12).mean())
    assert statistics.pairs_for_any_verdict(0.05, sides=1) == 5


def test_the_file_is_whole_and_says_why(side: Side, tmp_path: Path) -> None:
    file = tmp_path / "out" / "gate.json"
    candidate = side("candidate", moved(GOOD, -0.03))
    assert main(["gate", str(candidate), "--baseline", str(side("baseline")), "--json", str(file)]) == 3
    found = json.loads(file.read_text())
    assert Gate.model_validate(found).decision == "worse"
    assert found["headline"] == "Worse: top-1 accuracy."
