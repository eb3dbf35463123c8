"""The alert rules of gray releases by `promtool test rules`: each trips, at its time and not before, and is silent when all is well."""

from pathlib import Path

import pytest
import yaml
from rule_cases import MONITORING, PROMTOOL, Trip, promtool, rules_of

RULES = MONITORING / "release.yml"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(PROMTOOL is None, reason="install prometheus, which brings promtool"),
]

HERE = {"instance": "here:9911", "job": "assay-release"}
OWN = HERE | {"release": "digits"}
CANDIDATE = OWN | {"role": "candidate"}


def named(metric: str, **labels: str) -> str:
    own = HERE if metric == "up" else OWN | labels
    inner = ",".join(f'{name}="{value}"' for name, value in own.items())
    return f"{metric}{{{inner}}}"


FAILED = named("assay_release_attempts_total", role="candidate", outcome="failed")
READY = named("assay_release_version_ready", role="candidate")
PHASE = named("assay_release_phase", phase="step")
CONTROLLER, OVER = named("assay_release_controller_up"), named("assay_release_over")
FRONT, HELD, FULL, SPLIT = (
    named(f"assay_release_{name}") for name in ("front_up", "held", "disk_full", "split_wrong")
)
DRIFT = named("assay_release_warnings", kind="drift")
DROPPED = named("assay_serving_log_lines_total", role="candidate", outcome="dropped")
USABLE, CHANGED, ROTATION = (
    named(f"assay_serving_keys_{name}", role="candidate", file="jwks")
    for name in ("usable", "changed_timestamp_seconds", "rotation_seconds")
)
USERS = named("assay_release_requests_total", role="stable", outcome="failed")
HEALTHY = {
    named("assay_release_attempts_total", role="candidate", outcome="ok"): "0+100x80",
    named("assay_release_attempts_total", role="stable", outcome="ok"): "0+900x80",
    FAILED: "0+4x80",  # 3.8%: what the judge weighs, not a burst
    named("assay_release_requests_total", role="stable", outcome="ok"): "0+900x80",
    named("assay_release_requests_total", role="stable", outcome="refused"): "0+9x80",
    USERS: "0x80",
    READY: "1x80",
    FRONT: "1x80",
    CONTROLLER: "1x80",
    OVER: "0x80",
    HELD: "0x80",
    FULL: "0x80",
    SPLIT: "0x80",
    PHASE: "1x80",
    DRIFT: "0x80",
    named("assay_release_warnings", kind="judge"): "1x80",
    DROPPED: "0x80",
    named("assay_serving_log_lines_total", role="candidate", outcome="written"): "0+100x80",
    USABLE: "1x80",
    CHANGED: "0x80",
    ROTATION: "2000x80",
    named("up"): "1x80",
}
"""Twenty minutes of a step, a value each 15 s."""
TRIPS = {
    "errors": Trip(
        HEALTHY | {FAILED: "0x20 0+25x60"},
        "AssayCandidateErrors",
        "5m",
        "8m",
        CANDIDATE,
        "digits: the candidate failed 100 times within a minute",
    ),
    "users": Trip(
        HEALTHY | {USERS: "0x20 1x60"},
        "AssayUserErrors",
        "5m",
        "5m30s",
        OWN,
        "digits: users had failed answers, 1 within a minute",
    ),
    "not ready": Trip(
        HEALTHY | {READY: "1x20 0x60"},
        "AssayVersionNotReady",
        "5m15s",
        "6m",
        CANDIDATE,
        "digits: the candidate version is down or not ready",
    ),
    "front": Trip(
        HEALTHY | {FRONT: "1x20 0x60"},
        "AssayFrontDown",
        "5m15s",
        "6m",
        OWN,
        "digits: the front takes no connection: no user has an answer",
    ),
    "controller": Trip(
        HEALTHY | {CONTROLLER: "1x20 0x60"},
        "AssayControllerDown",
        "5m30s",
        "6m",
        OWN,
        "digits: no controller runs: nobody would turn a bad candidate back",
    ),
    "rolled back": Trip(
        {name: text for name, text in HEALTHY.items() if name != PHASE}
        | {named("assay_release_phase", phase="rolled_back"): "_x20 1x60", OVER: "0x20 1x60"},
        "AssayReleaseRolledBack",
        "4m30s",
        "6m",
        OWN,
        "digits: the candidate was turned back",
    ),
    "held": Trip(
        HEALTHY | {HELD: "0x20 1x60"},
        "AssayReleaseHeld",
        "10m",
        "11m",
        OWN,
        "digits: waits for a person to decide",
    ),
    "disk": Trip(
        HEALTHY | {FULL: "0x20 1x60"},
        "AssayReleaseDiskFull",
        "5m30s",
        "6m",
        OWN,
        "digits: no room on the disk: the share is held, and log lines are lost",
    ),
    "split": Trip(
        HEALTHY | {SPLIT: "0x20 1x60"},
        "AssaySplitWrong",
        "5m30s",
        "6m",
        OWN,
        "digits: users come to the versions otherwise than the split says; nothing can be compared",
    ),
    "drift": Trip(
        HEALTHY | {DRIFT: "0x20 2x60"},
        "AssayDrift",
        "5m",
        "5m30s",
        OWN,
        "digits: inputs or predictions have drifted",
    ),
    "dropped": Trip(
        HEALTHY | {DROPPED: "0x20 7x60"},
        "AssayLogLinesDropped",
        "5m",
        "5m30s",
        CANDIDATE,
        "digits: the candidate version dropped lines of its prediction log",
    ),
    "keys cannot be used": Trip(
        HEALTHY | {USABLE: "1x20 0x60"},
        "AssayKeysUnusable",
        "6m",
        "7m",
        CANDIDATE | {"file": "jwks"},
        "digits: the candidate version cannot use its file of keys (jwks)",
    ),
    "keys are too old": Trip(
        HEALTHY | {ROTATION: "300x80"},
        "AssayKeysStale",
        "6m",
        "7m",
        CANDIDATE | {"file": "jwks"},
        "digits: the keys of the candidate version (jwks) are 7m 0s old",
    ),
    "exporter": Trip(
        {named("up"): "1x20 0x60"},
        "AssayReleaseExporterDown",
        "5m30s",
        "7m",
        HERE,
        "The exporter of releases at here:9911 does not answer: no other alert of a release can fire",
    ),
}
SILENT = {
    "a healthy step": HEALTHY,
    "few errors, though most": HEALTHY
    | {FAILED: "0x20 3x60", named("assay_release_attempts_total", role="candidate", outcome="ok"): "0x80"},
    "not ready for a moment": HEALTHY | {READY: "1x20 0 1x59"},
    "a disk that was full for a moment": HEALTHY | {FULL: "0x20 1 0x59"},
    "held, and decided in time": HEALTHY | {HELD: "0x20 1x19 0x41"},
    "promoted, and the controller has ended": HEALTHY | {CONTROLLER: "0x80", OVER: "1x80"},
    "drift that a finished release had": HEALTHY | {DRIFT: "1x80", OVER: "1x80"},
    "a file that was half written for a moment": HEALTHY | {USABLE: "1x20 0x2 1x58"},
    "keys that were written anew in time": HEALTHY | {ROTATION: "900x80", CHANGED: "0x39 580x40"},
    "old keys of which no rotation was promised": {
        name: text for name, text in HEALTHY.items() if name != ROTATION
    },
    "no release": {named("up"): "1x80"},
}


def test_every_alert_trips_in_its_time_and_no_other_does(tmp_path: Path) -> None:
    done = promtool(tmp_path, RULES.read_text(), RULES, TRIPS, SILENT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {trip.alert for trip in TRIPS.values()} == set(rules_of(RULES)), "an alert without a test"


@pytest.mark.parametrize("expression", ["vector(1) < 0", "vector(1)"], ids=["never", "always"])
def test_a_rule_that_never_or_always_fires_is_seen(expression: str, tmp_path: Path) -> None:
    broken = yaml.safe_load(RULES.read_text())
    for rule in broken["groups"][0]["rules"]:
        rule["expr"] = expression
    done = promtool(tmp_path, yaml.safe_dump(broken), RULES, TRIPS, SILENT)
    assert done.returncode == 1
    assert all(f"alertname: {alert}," in done.stdout + done.stderr for alert in rules_of(RULES))


def test_every_rule_says_what_to_do() -> None:
    for alert, rule in rules_of(RULES).items():
        assert rule["labels"]["severity"] in {"warning", "critical"}, alert
        assert len(rule["annotations"]["runbook"]) > 40 and rule["annotations"]["summary"], alert
