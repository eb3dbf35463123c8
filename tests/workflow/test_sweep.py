"""Tuning in the workflow: what runs, in which settings, and what a change runs again."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
from project import TINY, Project, copy_project

from assay.comparison.model import Comparison
from assay.config.estimate import estimate
from assay.config.load import load
from assay.records import Record
from assay.sweep.model import Selected, Trials

pytestmark = pytest.mark.xdist_group("sweep")

RATE = "training.optimizer.learning_rate"
SWEPT: dict[str, Any] = deepcopy(TINY) | {
    "factors": ["model"],
    "training": {"epochs": 1, "batch_size": 128},
    # What the profile measures is no matter here: a busy machine has it repeat nothing.
    "profile": TINY["profile"] | {"gates": {"repeats": 0}},  # type: ignore[operator]
    "sweep": {"trials": 2, "space": {RATE: {"log_uniform": [0.001, 0.3]}}},
}
RESULT = {"resolve_experiment": 1, "compare": 1, "report": 1, "archive": 1}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished experiment that was tuned first."""
    project = copy_project(tmp_path_factory.mktemp("tuned"))
    project.write(SWEPT)
    planned = project.planned()
    assert planned == estimate(load(project.folder / "tiny.yaml"), project.folder / "results").jobs
    assert (planned["train_trial"], planned["select_settings"], planned["train"]) == (4, 2, 4)
    project.run()
    return project


@contextmanager
def written(project: Project, sweep: dict[str, Any] | None = None, **changes: Any) -> Iterator[None]:
    project.write(SWEPT | {"sweep": SWEPT["sweep"] | (sweep or {})} | changes)
    try:
        yield
    finally:
        project.write(SWEPT)


def test_the_comparison_runs_in_the_selected_settings_at_fresh_seeds(tuned: Project) -> None:
    comparison = Comparison.read(tuned.results / "comparison" / "comparison.json")
    assert comparison.valid, comparison.violations
    for arm in ("mlp", "cnn"):
        folder = tuned.results / "sweep" / arm
        selected, trials = Selected.read(folder / "selected.json"), Trials.read(folder / "trials.json")
        assert selected.score == max(trial.score or 0 for trial in trials.trials)
        assert {run.seed for trial in trials.trials for run in trial.runs} == {1000}
        for seed in (0, 1):
            for stage in ("train", "evaluate"):
                record = Record.read(tuned.results / f"runs/{arm}/seed-{seed}/{stage}/record.json")
                assert record.spec == selected.settings
        profiled = Record.read(tuned.results / f"profile/block-0/{arm}/record.json")
        assert "learning_rate" not in profiled.spec["training"]["optimizer"], "it changes no cost"
    assert not list((tuned.results / "sweep").rglob("evaluate")), "no trial is evaluated"
    assert not list((tuned.results / "sweep").rglob("*.safetensors")), "and none keeps its weights"
    page = (tuned.results / "report" / "index.html").read_text()
    assert "no trial saw the test split" in page and "figure-tuning-budget" in page


def test_what_reruns_what(tuned: Project) -> None:
    assert tuned.planned() == {}
    again = {"train_trial": 2, "select_settings": 2, "train": 4, "evaluate": 4}
    with written(tuned, {"trials": 3}):
        assert tuned.planned() == RESULT | again, "the trials before stay, and the profile"
    with written(tuned, {"arms": {"cnn": {RATE: {"log_uniform": [0.001, 0.2]}}}}):
        one_arm = {"train_trial": 2, "select_settings": 1, "train": 2, "evaluate": 2}
        assert tuned.planned() == RESULT | one_arm, "the other arm stays"
    with written(
        tuned, training={"epochs": 1, "batch_size": 128, "optimizer": {"name": "sgd", "learning_rate": 0.07}}
    ):
        assert tuned.planned() == RESULT, "the rate is tuned: what the file says is of no account"
    with written(tuned, {"space": {RATE: {"log_uniform": [0.001, 0.3]}, "training.batch_size": [128, 64]}}):
        planned = tuned.planned()
        assert planned["profile"] == 1 and planned["trace"] == 2, "they wait for the selection now"
    with written(tuned, {"equal_budgets": False}):
        assert tuned.planned() == RESULT
    lost = tuned.results / "sweep/mlp/trial-1/seed-1000/train/record.json"
    aside = lost.rename(lost.with_name("aside"))
    planned = tuned.planned()
    aside.rename(lost)
    assert (planned["train_trial"], planned["select_settings"]) == (1, 1)
    assert tuned.planned() == {}


def test_an_edited_selection_is_found_out(tuned: Project) -> None:
    path = tuned.results / "sweep/mlp/selected.json"
    before = path.read_text()
    content = json.loads(before)
    content["settings"]["training"]["optimizer"]["learning_rate"] = 0.5
    path.write_text(json.dumps(content))
    done = tuned.snakemake(
        "results/tiny/comparison/comparison.json", "--rerun-triggers", "mtime", "--allowed-rules", "compare"
    )
    path.write_text(before)
    assert done.returncode == 0, done.stdout + done.stderr
    found = Comparison.read(tuned.results / "comparison" / "comparison.json")
    assert not found.valid and any(
        "selected.json: is not what the trials' records give" in line for line in found.violations
    )
    tuned.run()
    assert Comparison.read(tuned.results / "comparison" / "comparison.json").valid


def test_only_other_settings_are_trained_again(tuned: Project) -> None:
    """One more trial for each arm, worse than the best, and another range for one of them: all trainings are planned,
    and once settings are selected, those that have theirs already are not run."""
    chosen = {arm: tuned.results / "sweep" / arm / "selected.json" for arm in ("mlp", "cnn")}
    before = {arm: path.read_bytes() for arm, path in chosen.items()}
    records = {arm: sorted(tuned.results.glob(f"runs/{arm}/*/*/record.json")) for arm in chosen}
    ran = {arm: [path.read_bytes() for path in paths] for arm, paths in records.items()}
    assert all(len(content) == 4 for content in ran.values())
    with written(tuned, {"trials": 3, "arms": {"cnn": {RATE: {"log_uniform": [0.001, 0.2]}}}}):
        planned = tuned.planned()
        assert (planned["select_settings"], planned["train"], planned["evaluate"]) == (2, 4, 4)
        tuned.run()
        assert chosen["mlp"].read_bytes() == before["mlp"] and chosen["cnn"].read_bytes() != before["cnn"]
        assert [path.read_bytes() for path in records["mlp"]] == ran["mlp"], (
            "nothing is trained again for these"
        )
        settings = Selected.read(chosen["cnn"]).settings
        assert all(Record.read(path).spec == settings for path in records["cnn"])
        assert len(Trials.read(chosen["mlp"].with_name("trials.json")).trials) == 3
        assert not list((tuned.results / "sweep").rglob("*.safetensors"))
        assert Comparison.read(tuned.results / "comparison" / "comparison.json").valid
        assert tuned.planned() == {}


def test_a_bayesian_search_goes_round_by_round_and_on_where_it_was(tuned: Project) -> None:
    target = "results/tiny/sweep/cnn/selected.json"
    folder = tuned.results / "sweep" / "cnn"
    with written(tuned, {"method": "bayesian", "trials": 3, "per_round": 2, "seed": 5}):
        tuned.run(target)
        proposals = [(folder / f"proposed/round-{number}.json").read_bytes() for number in (0, 1)]
        selected = (folder / "selected.json").read_bytes()
        assert tuned.planned(target) == {}
        for path in ("proposed/round-1.json", "selected.json", "trial-2/seed-1000/train/record.json"):
            (folder / path).unlink()
        assert tuned.planned(target) == {"propose_trials": 1, "train_trial": 1, "select_settings": 1}
        tuned.run(target)
        assert [(folder / f"proposed/round-{number}.json").read_bytes() for number in (0, 1)] == proposals
        assert (folder / "selected.json").read_bytes() == selected


def test_a_search_that_stops_trials_and_is_killed_ends_with_the_same(tuned: Project) -> None:
    """Killed once trials are compared, and taken up again: the same selection, from weights that are the same to the bit."""
    target = "results/tiny/sweep/cnn/selected.json"
    folder = tuned.results / "sweep" / "cnn"
    longer = {"epochs": 8, "batch_size": 16, "checkpoint_seconds": 0.1}
    with written(tuned, {"trials": 4, "prune": {"after": [2], "reduction_factor": 2}}, training=longer):
        planned = tuned.planned(target)
        assert (planned["train_trial_to_rung"], planned["prune_trials"], planned["train_trial"]) == (4, 1, 4)
        found = []
        for killed in (False, True):
            shutil.rmtree(folder)
            if killed:
                running = tuned.start(target)
                end = time.monotonic() + 300
                while not (folder / "rungs" / "rung-0.json").exists():
                    assert time.monotonic() < end and running.poll() is None, tuned.output.read_text()
                    time.sleep(0.02)
                os.kill(running.pid, signal.SIGKILL)
                running.wait()
            tuned.run(target)
            trials = [
                Record.read(folder / f"trial-{number}/seed-1000/train/record.json") for number in range(4)
            ]
            found.append(
                [
                    (one.outcome, one.details["epochs"], one.weights_sha256, one.batches_sha256)
                    for one in trials
                ]
            )
            found[-1].append((folder / "selected.json").read_bytes())
        assert found[0] == found[1]
        outcomes = sorted(one[:2] for one in found[0][:4])
        assert outcomes == [("completed", 8), ("completed", 8), ("pruned", 2), ("pruned", 2)]
        assert not list(folder.rglob("checkpoint")) and not list(folder.rglob("*.safetensors"))
        assert tuned.planned(target) == {}
