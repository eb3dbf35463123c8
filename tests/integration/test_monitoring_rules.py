"""The alert rules by `promtool test rules`: each trips, at its time and not before, and is silent when all is well."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from rule_cases import MONITORING, PROMTOOL, Trip, promtool, rules_of

RULES = MONITORING / "rules.yml"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(PROMTOOL is None, reason="install prometheus, which brings promtool"),
]

RUN = {"experiment": "digits", "arm": "cnn", "seed": "3", "instance": "here:9910", "job": "assay"}
CARD = RUN | {"gpu": "GPU-1"}
BLOCK = {"experiment": "digits", "block": "1", "instance": "here:9910", "job": "assay"}
STAGE = {"experiment": "digits", "stage": "sweep", "instance": "here:9910", "job": "assay"}
HERE = {"instance": "here:9910", "job": "assay"}
HEALTHY = {
    ("assay_run_state", "running"): "1x80",
    ("assay_profile_block_state", "running"): "1x80",
    ("assay_stage_jobs", "diverged"): "2x80",  # a result of a trial's settings
    "assay_run_loss": "2.3-0.01x80",
    "assay_gpu_samples_total": "0+150x80",
    "assay_gpu_throttled_samples_total": "0+5x80",  # 3.3%: below the threshold
    "assay_gpu_lost": "0x80",
    "assay_results_free_bytes": "5e11-1e8x80",
    "assay_results_size_bytes": "1e12x80",
    "up": "1x80",
}
"""Twenty minutes of a run, a value each 15 s. A disk that fills slowly enough is well."""
Values = dict[Any, str]


def labels_of(metric: str) -> dict[str, str]:
    if metric.startswith("assay_gpu"):
        return CARD
    if metric.startswith("assay_stage"):
        return STAGE
    if metric.startswith("assay_profile"):
        return BLOCK
    return RUN if metric.startswith("assay_run") else HERE


def series(values: Values) -> dict[str, str]:
    found = {}
    for key, text in values.items():
        name, state = key if isinstance(key, tuple) else (key, None)
        labels = labels_of(name) | ({"state": state} if state else {})
        if name.startswith("node_"):
            labels = {"file": "/var/lib/x/assay.prom", "instance": "here:9100", "job": "node"}
        inner = ",".join(f'{label}="{value}"' for label, value in labels.items())
        found[f"{name}{{{inner}}}"] = text
    return found


def changed(values: Values, *, without: tuple[Any, ...] = ()) -> Values:
    kept = {key: text for key, text in HEALTHY.items() if key not in without}
    return kept | values


RUNNING = ("assay_run_state", "running")
# By case: what differs from a healthy run, the alert, when it is silent still, when it fires, its labels and its summary.
TRIPS: dict[str, tuple[Values, str, str, str, dict[str, str], str]] = {
    "throttled": (
        changed({"assay_gpu_throttled_samples_total": "0x40 0+30x40"}),
        "AssayGpuThrottled",
        "10m",
        "13m",
        CARD,
        "digits/cnn: GPU GPU-1 throttled in 20% of the last two minutes",
    ),
    "nan": (
        changed({"assay_run_loss": "2.3x20 NaN NaN stale"}),
        "AssayRunDiverged",
        "4m30s",
        "5m30s",
        RUN,
        "digits/cnn, seed 3: the loss is not finite",
    ),
    "infinite": (
        changed({"assay_run_loss": "2.3x20 Inf Inf Inf Inf"}),
        "AssayRunDiverged",
        "4m30s",
        "6m",
        RUN,
        "digits/cnn, seed 3: the loss is not finite",
    ),
    "diverged": (
        changed({("assay_run_state", "diverged"): "_x20 1x60"}, without=(RUNNING, "assay_run_loss")),
        "AssayRunDiverged",
        "4m30s",
        "6m",
        RUN,
        "digits/cnn, seed 3: the loss is not finite",
    ),
    "stalled": (
        changed({("assay_run_state", "stalled"): "_x20 1x60"}, without=(RUNNING,)),
        "AssayRunStalled",
        "5m",
        "6m",
        RUN,
        "digits/cnn, seed 3: nothing was logged for too long",
    ),
    "failed": (
        changed({("assay_run_state", "failed"): "_x20 1x60"}, without=(RUNNING,)),
        "AssayRunFailed",
        "4m30s",
        "6m",
        RUN | {"state": "failed"},
        "digits/cnn, seed 3: failed",
    ),
    "out of memory": (
        changed({("assay_run_state", "out_of_memory"): "_x20 1x60"}, without=(RUNNING,)),
        "AssayRunFailed",
        "4m30s",
        "6m",
        RUN | {"state": "out_of_memory"},
        "digits/cnn, seed 3: out_of_memory",
    ),
    "killed": (
        changed({("assay_run_state", "killed"): "_x20 1x60"}, without=(RUNNING,)),
        "AssayRunFailed",
        "5m",
        "6m",
        RUN | {"state": "killed"},
        "digits/cnn, seed 3: killed",
    ),
    "invalid": (
        changed({("assay_profile_block_state", "invalid"): "_x20 1x60"}),
        "AssayBlockBroken",
        "5m",
        "6m",
        BLOCK | {"state": "invalid"},
        "digits, profile block 1: invalid",
    ),
    "a broken stage": (
        changed({("assay_stage_jobs", "killed"): "_x20 3x60"}),
        "AssayStageBroken",
        "5m",
        "6m",
        STAGE | {"state": "killed"},
        "digits, stage sweep: 3 killed",
    ),
    "lost": (
        changed({"assay_gpu_lost": "0x20 1x60"}),
        "AssayGpuLost",
        "4m30s",
        "6m",
        CARD,
        "digits/cnn: GPU GPU-1 answers no more",
    ),
    "full": (
        changed({"assay_results_free_bytes": "6e10x20 4.9e10x60"}),
        "AssayDiskFilling",
        "5m30s",
        "7m",
        HERE,
        "The file system of the results is full, or will be within four hours",
    ),
    "filling": (
        changed({"assay_results_free_bytes": "3.2e11-1e9x80"}),
        "AssayDiskFilling",
        "4m",
        "10m",
        HERE,
        "The file system of the results is full, or will be within four hours",
    ),
    "down": (
        changed({"up": "1x20 0x60"}),
        "AssayExporterDown",
        "5m30s",
        "7m",
        HERE,
        "Assay's exporter at here:9910 does not answer: no other alert can fire",
    ),
    "old": (
        changed({"node_textfile_mtime_seconds": "0+15x20 300x60"}),
        "AssayTextfileOld",
        "5m",
        "8m",
        {"file": "/var/lib/x/assay.prom", "instance": "here:9100", "job": "node"},
        "/var/lib/x/assay.prom is 3m 0s old: what it tells is no longer so",
    ),
}
SILENT: dict[str, Values] = {
    "a healthy run": HEALTHY,
    "completed": changed({("assay_run_state", "completed"): "_x20 1x60", RUNNING: "1x20 stale"}),
    "interrupted": changed({("assay_run_state", "interrupted"): "_x20 1x60", RUNNING: "1x20 stale"}),
    "stalled for a moment": changed(
        {("assay_run_state", "stalled"): "_x20 1 stale", RUNNING: "1x20 stale 1x50"}
    ),
    "a few throttled samples": changed({"assay_gpu_throttled_samples_total": "0x40 0+30x1 30x40"}),
    "no GPU": changed(
        {}, without=("assay_gpu_samples_total", "assay_gpu_throttled_samples_total", "assay_gpu_lost")
    ),
    "no sample taken": changed(
        {"assay_gpu_samples_total": "10x80", "assay_gpu_throttled_samples_total": "0x80"}
    ),
    "a textfile that is written": changed({"node_textfile_mtime_seconds": "0+15x80"}),
    "nothing runs": {
        "up": "1x80",
        "assay_results_free_bytes": "5e11x80",
        "assay_results_size_bytes": "1e12x80",
    },
}


def as_trips() -> dict[str, Trip]:
    return {
        name: Trip(series(values), alert, before, after, labels, summary)
        for name, (values, alert, before, after, labels, summary) in TRIPS.items()
    }


def tried(folder: Path, text: str) -> "subprocess.CompletedProcess[str]":
    return promtool(
        folder, text, RULES, as_trips(), {name: series(values) for name, values in SILENT.items()}
    )


def test_every_alert_trips_in_its_time_and_no_other_does(tmp_path: Path) -> None:
    done = tried(tmp_path, RULES.read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert {alert for _, alert, *_ in TRIPS.values()} == set(rules_of(RULES)), "an alert without a test"


@pytest.mark.parametrize("expression", ["vector(1) < 0", "vector(1)"], ids=["never", "always"])
def test_a_rule_that_never_or_always_fires_is_seen(expression: str, tmp_path: Path) -> None:
    broken = yaml.safe_load(RULES.read_text())
    for rule in broken["groups"][0]["rules"]:
        rule["expr"] = expression
    done = tried(tmp_path, yaml.safe_dump(broken))
    assert done.returncode == 1
    assert all(f"alertname: {alert}," in done.stdout + done.stderr for alert in rules_of(RULES))


def test_every_rule_says_what_to_do() -> None:
    for alert, rule in rules_of(RULES).items():
        assert rule["labels"]["severity"] in {"warning", "critical"}, alert
        assert len(rule["annotations"]["runbook"]) > 40 and rule["annotations"]["summary"], alert


@pytest.mark.parametrize(
    ("kind", "file"), [("config", "prometheus.yml"), ("rules", "rules.yml"), ("rules", "release.yml")]
)
def test_promtool_accepts_the_files_as_they_are(kind: str, file: str) -> None:
    done = subprocess.run(
        [str(PROMTOOL), "check", kind, str(RULES.with_name(file))], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr
