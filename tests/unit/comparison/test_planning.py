"""`assay plan`: the number of seeds has the power that was wanted, and costs come from the pilot's records."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.cli import main
from assay.comparison.planning import Case, deviation_bound, pairs_needed, power, steps

REPETITIONS = 1000
BASE = [0.90, 0.91, 0.92, 0.90, 0.91, 0.93]
OTHER = [0.91, 0.915, 0.93, 0.912, 0.915, 0.945]


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    try:
        import planning_simulation
    finally:
        sys.path.pop(0)
    return planning_simulation


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        (Case("difference", 1.2, 1.0, 0.05), 0.8),
        (Case("difference", -1.2, 1.0, 0.05), 0.9),
        (Case("difference", 1.2, 1.0, 0.025), 0.8),
        (Case("difference", 1.0, 1.0, 0.05), 0.8),
        (Case("equivalence", 0.0, 1.0, 0.05, 1.2), 0.8),
        (Case("equivalence", 0.2, 1.0, 0.05, 1.0), 0.8),
    ],
)
def test_the_verdict_has_the_power_that_was_planned(
    simulation: ModuleType, case: Case, wanted: float
) -> None:
    """Of data sets that the plan has not seen, through the functions of a comparison; within three standard errors."""
    pairs = pairs_needed(case, wanted)
    assert pairs is not None
    towards = Case(case.goal, abs(case.mean), case.deviation, case.alpha, case.margin)
    slack = 3 * (wanted * (1 - wanted) * (1 / REPETITIONS + 1 / 2000)) ** 0.5
    found = simulation.reached(towards, pairs, "normal", repetitions=REPETITIONS, seed=3)
    assert found >= wanted - slack
    if pairs > case.least:
        fewer = simulation.reached(towards, pairs - 1, "normal", repetitions=REPETITIONS, seed=3)
        assert fewer <= wanted + slack, "one seed fewer would do as well"


def test_the_bound_assures_the_power(simulation: ModuleType) -> None:
    case = Case("difference", 1.0, 1.0, 0.05)
    plain, bound = simulation.assured(case, 10, 0.8, pilots=600, seed=3)
    assert plain <= 0.7, "half of the pilots scatter too little"
    assert bound >= 0.8 - 0.05


def test_the_bound_by_the_chi_square_distribution() -> None:
    from scipy.stats import chi2

    assert deviation_bound(2.0, 6) == pytest.approx(2 * np.sqrt(5 / chi2.ppf(0.2, 5)))


def test_what_no_number_shows() -> None:
    assert power(Case("difference", 5.0, 1.0, 0.05), 5) == 0, "five cannot reach 0.05"
    assert pairs_needed(Case("difference", 0.0, 1.0, 0.05), 0.8) is None
    assert pairs_needed(Case("equivalence", 1.0, 1.0, 0.05, 0.5), 0.8) is None
    assert pairs_needed(Case("difference", 1.0, 0.0, 0.05), 0.8) == 6
    assert pairs_needed(Case("difference", 0.0, 0.0, 0.05), 0.8) is None


def test_simulation_and_approximation_meet() -> None:
    case = Case("difference", 0.17, 1.0, 0.05)
    assert power(case, 300) == pytest.approx(power(case, 301), abs=0.04)


def test_a_table_of_power_is_short() -> None:
    assert steps((6, None), 6) == [6, 8]
    assert len(steps((20_000, 40_000), 6)) <= 14


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["plan", *arguments, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def finished(make: Callable[..., Any], **change: Any) -> Any:
    """A pilot whose trainings took 10 s and 100 J each, on a GPU."""
    made = make({"accuracy": {"a": BASE, "b": OTHER}}, metrics=[{"name": "accuracy", "margin": 0.01}])
    for path in made.folder.glob("runs/*/*/train/record.json"):
        record = json.loads(path.read_text())
        record["metrics"] = {
            "train_seconds": {"unit": "s", "value": 10.0},
            "train_energy": {"unit": "J", "value": 100.0},
        }
        record |= change
        path.write_text(json.dumps(record))
    made.compare()
    return made


def test_from_a_finished_experiment(make: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = plan(capsys, str(finished(make).folder))
    differences = np.array(OTHER) - np.array(BASE)
    assert found["difference"] == pytest.approx(differences.mean())
    assert found["deviation"] == pytest.approx(differences.std(ddof=1))
    assert found["pilot_pairs"] == 6
    assert found["pairs"] == pairs_needed(
        Case("difference", differences.mean(), differences.std(ddof=1), 0.05), 0.8
    )
    assert found["pairs_conservative"] > found["pairs"]
    step = next(step for step in found["table"] if step["pairs"] == found["pairs"])
    assert step["gpu_hours"] == pytest.approx(found["pairs"] * 2 * 10 / 3600)
    assert step["energy_kwh"] == pytest.approx(found["pairs"] * 2 * 100 / 3.6e6)
    # Records of a second each, of a training and an evaluation, two arms; two at once.
    (found,) = plan(capsys, str(finished(make).folder), "--at-once", "2")
    assert found["table"][0]["hours"] == pytest.approx(found["table"][0]["pairs"] * 4 / 2 / 3600)


def test_what_was_not_measured_is_null(make: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    for change in ({"metrics": {}}, {"resumed": True}):
        (found,) = plan(capsys, str(finished(make, **change).folder))
        assert all(step["gpu_hours"] is step["energy_kwh"] is None for step in found["table"]), change
    assert main(["plan", str(finished(make, metrics={}).folder)]) == 0
    assert "not known: GPU hours, kWh" in capsys.readouterr().out


def test_equivalence_takes_the_margin(make: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(finished(make).folder)
    (found,) = plan(capsys, folder, "--for", "equivalence", "--difference", "0")
    assert (found["margin"], found["difference"]) == (0.01, 0)
    (narrower,) = plan(capsys, folder, "--for", "equivalence", "--difference", "0", "--margin", "0.004")
    assert narrower["pairs"] > found["pairs"]
    (none,) = plan(capsys, folder, "--for", "equivalence", "--difference", "0.1")
    assert none["pairs"] is None
    assert "not inside the margin" in none["reason"]


def test_from_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = plan(capsys, "--difference", "0.012", "--deviation", "0.01")
    assert found["pairs"] == pairs_needed(Case("difference", 1.2, 1.0, 0.05), 0.8)
    assert found["pairs_conservative"] is found["pilot_pairs"] is None
    (several,) = plan(capsys, "--difference", "0.012", "--deviation", "0.01", "--arms", "3")
    assert several["alpha"] == 0.025
    assert several["pairs"] > found["pairs"]
    (everyone,) = plan(
        capsys, "--difference", "0.012", "--deviation", "0.01", "--arms", "4", "--contrasts", "all"
    )
    assert everyone["alpha"] == pytest.approx(0.05 / 6) and everyone["pairs"] > several["pairs"]


def test_from_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "results.csv"
    lines = [
        f"{arm},{seed},accuracy,{v}" for arm, vs in (("a", BASE), ("b", OTHER)) for seed, v in enumerate(vs)
    ]
    table.write_text("arm,seed,metric,value\n" + "\n".join(lines) + "\n")
    (found,) = plan(capsys, str(table), "--difference", "0.006")
    assert (found["difference"], found["pilot_pairs"]) == (0.006, 6)
    assert main(["plan", str(table)]) == 0
    assert "b against a in top-1 accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a finished experiment or a table, or tell a guess"),
        (["--difference", "1"], "tell a guess"),
        (["--difference", "1", "--deviation", "0"], "--deviation 0: write a number above 0"),
        (["--difference", "nan", "--deviation", "1"], "--difference nan: write a number"),
        (["--difference", "1", "--deviation", "1", "--power", "80"], "--power 80: write a share"),
        (["--difference", "1", "--deviation", "1", "--for", "equivalence"], "has no margin"),
        (["absent"], "absent: no such folder of results"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_pilot_that_tells_nothing(
    make: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    made = make({"accuracy": {"a": [0.9, 0.8], "b": [0.9, None]}})
    made.compare()
    assert main(["plan", str(made.folder)]) == 2
    assert "3 pairs at least" in capsys.readouterr().err
    assert main(["plan", str(made.folder), "--metric", "loss"]) == 2
    assert "no metric 'loss' was judged" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["plan", "empty"]) == 2
    assert "no such comparison" in capsys.readouterr().err
    assert main(["plan", str(Path(__file__).parents[3] / "config" / "config.yaml")]) == 2
    assert "there is no finished pilot in results/digits" in capsys.readouterr().err


def test_what_looks_are_worth(capsys: pytest.CaptureFixture[str]) -> None:
    guess = ("--difference", "1.2", "--deviation", "1", "--looks", "8,10,12", "--spending", "pocock")
    (found,) = plan(capsys, *guess)
    looks = found["looks"]
    assert looks["decided"] == sorted(looks["decided"])
    assert looks["decided"][-1] == looks["power"] > 0.85
    assert 8 < looks["mean_pairs"] < 11 < looks["mean_pairs_under_null"] <= 12
    assert main(["plan", *guess]) == 0
    assert "looks after 8, 10, 12 (Pocock type spending): power" in capsys.readouterr().out
    for wrong in ("8", "12,8", "8,8", "2,8", "8,x", "8,-9"):
        assert main(["plan", "--difference", "1", "--deviation", "1", "--looks", wrong]) == 2
        assert f"--looks {wrong}: write numbers of seeds" in capsys.readouterr().err


def test_looks_and_equivalence() -> None:
    from assay.comparison.plan_looks import plan_looks
    from assay.comparison.sequential import Schedule

    found = plan_looks(Case("equivalence", 0.0, 1.0, 0.05, 1.2), Schedule((8, 12), "pocock"), repetitions=100)
    assert found.power > 0.7
    assert found.mean_pairs < found.mean_pairs_under_null


def test_an_arm_that_failed_does_not_keep_the_others_from_a_plan(
    make: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    made = make({"accuracy": {"a": BASE, "b": OTHER, "c": [*OTHER[:5], None]}})
    made.compare()
    assert main(["plan", str(made.folder), "--json"]) == 0
    printed = capsys.readouterr()
    assert [one["arm"] for one in json.loads(printed.out)] == ["b"]
    assert "not planned: c in accuracy" in printed.err
    assert "no value for c at seed 5" in printed.err
