"""What an experiment takes: rules as the workflow has them, time from finished runs alone."""

import re
from pathlib import Path

import pytest

from assay.config.check import noise_cost
from assay.config.document import ROOT
from assay.config.estimate import VISIT_START_SECONDS, estimate, estimate_noise
from assay.config.load import load
from assay.config.schema import Experiment, LargestBatch
from assay.records import Code, Environment, Measurement, Outcome, Record


@pytest.fixture
def experiment() -> Experiment:
    return load(ROOT / "config" / "config.yaml")


def finished(
    results: Path, arm: str, seed: int, seconds: float | None, epochs: int, outcome: Outcome = "completed"
) -> None:
    environment = Environment(host="h", platform="p", python="3", packages={}, cpu="c", cpu_count=1)
    Record(
        stage="train",
        experiment="digits",
        arm=arm,
        seed=seed,
        outcome=outcome,
        started="2026-01-01T00:00:00Z",
        finished="2026-01-01T00:00:01Z",
        code=Code(version="0", sources_sha256="0"),
        environment=environment,
        metrics={"train_seconds": Measurement(unit="s", value=seconds)},
        details={"epochs": epochs},
    ).write(results / "digits" / "runs" / arm / f"seed-{seed}" / "train" / "record.json")


def test_its_jobs_are_the_workflows_rules(experiment: Experiment, tmp_path: Path) -> None:
    files = [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
    rules = {name for file in files for name in re.findall(r"(?m)^rule (\w+):", file.read_text())}
    jobs = estimate(experiment, tmp_path).jobs
    assert set(jobs) <= rules
    assert (jobs["train"], jobs["evaluate"], jobs["profile"]) == (12, 12, experiment.profile.blocks)


def test_time_comes_from_each_arms_finished_runs_by_epoch(experiment: Experiment, tmp_path: Path) -> None:
    epochs = experiment.arms["mlp"].training.epochs
    finished(tmp_path, "mlp", 0, 1.0 * epochs, epochs)
    assert estimate(experiment, tmp_path).training_seconds is None, "nothing tells how long a cnn takes"
    finished(tmp_path, "cnn", 0, 2.0 * 5, 5)  # shorter, under an earlier setting
    finished(tmp_path, "cnn", 1, 900.0, 1, "diverged")
    finished(tmp_path, "cnn", 2, None, epochs)  # taken up again, so its time is not known
    assert estimate(experiment, tmp_path).training_seconds == pytest.approx(6 * epochs * (1 + 2))


def test_a_damaged_record_tells_nothing(experiment: Experiment, tmp_path: Path) -> None:
    finished(tmp_path, "mlp", 0, 1.0, 1)
    finished(tmp_path, "cnn", 0, 1.0, 1)
    (tmp_path / "digits/runs/cnn/seed-0/train/record.json").write_text('{"stage":')
    assert estimate(experiment, tmp_path).training_seconds is None


def test_profile_time_follows_its_settings(experiment: Experiment, tmp_path: Path) -> None:
    profile = experiment.profile.model_copy(
        update={
            "blocks": 3,
            "batch_sizes": [1, 2],
            "seconds": 1.0,
            "warmup_seconds": 0.5,
            "training_steps": 0,
            "largest_batch": LargestBatch(enabled=False),
        }
    )
    plan = estimate(experiment.model_copy(update={"profile": profile}), tmp_path)
    assert plan.profile_seconds == pytest.approx(3 * 2 * 2 * (VISIT_START_SECONDS + 2 * 1.5))
    off = experiment.model_copy(update={"profile": profile.model_copy(update={"enabled": False})})
    assert estimate(off, tmp_path).profile_seconds == 0


def test_the_noise_floor_costs_an_arm_and_its_blocks(tmp_path: Path) -> None:
    asked = load(ROOT / "config" / "config.yaml", overrides={"noise": {"enabled": True, "seeds": 3}})
    plan = estimate_noise(asked, tmp_path)
    assert (plan.arm, plan.trainings, plan.epochs, plan.blocks) == ("mlp", 3, 45, 6)
    assert plan.training_seconds is None
    finished(tmp_path, "mlp", 0, 2.0 * 15, 15)
    assert estimate_noise(asked, tmp_path).training_seconds == pytest.approx(90)
    assert estimate(asked, tmp_path).jobs["profile_again"] == 6
    assert "mlp trained again at 3 seeds (45 epochs in all, about 2 min of work)" in noise_cost(
        estimate_noise(asked, tmp_path)
    )
    unprofiled = load(
        ROOT / "config" / "experiments" / "digits-optimizers.yaml",
        overrides={"noise": {"enabled": True, "blocks": 0}},
    )
    assert "profile_again" not in estimate(unprofiled, tmp_path).jobs
