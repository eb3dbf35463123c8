"""Rules of alerts tried by `promtool test rules`: each trips in its time, and no other does."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).parents[2] / "monitoring"
PROMTOOL = shutil.which("promtool")


@dataclass(frozen=True)
class Trip:
    """What is told, and the alert that follows: silent still at `before`, firing at `after`."""

    series: dict[str, str]
    """Values by name and labels, as promtool writes them; one each 15 s."""
    alert: str
    before: str
    after: str
    labels: dict[str, str]
    summary: str


def rules_of(path: Path) -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(path.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(
    folder: Path, rules_text: str, path: Path, trips: dict[str, Trip], silent: dict[str, dict[str, str]]
) -> "subprocess.CompletedProcess[str]":
    """rules_text: of the rules as they are tried; path: of those whose texts are expected."""
    (folder / "rules.yml").write_text(rules_text)
    cases = [*_tripping(rules_of(path), trips), *_silent(rules_of(path), silent)]
    tests = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": cases}
    (folder / "tests.yml").write_text(yaml.safe_dump(tests))
    command = [str(PROMTOOL), "test", "rules", "tests.yml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


def _case(name: str, series: dict[str, str], checks: list[dict[str, Any]]) -> dict[str, Any]:
    told = [{"series": name, "values": values} for name, values in series.items()]
    return {"name": name, "interval": "15s", "input_series": told, "alert_rule_test": checks}


def _tripping(rules: dict[str, dict[str, Any]], trips: dict[str, Trip]) -> list[dict[str, Any]]:
    found = []
    for name, trip in trips.items():
        rule = rules[trip.alert]
        alert = {
            "exp_labels": trip.labels | rule["labels"],
            "exp_annotations": {"summary": trip.summary, "runbook": rule["annotations"]["runbook"]},
        }
        checks = [
            {"eval_time": trip.before, "alertname": trip.alert, "exp_alerts": []},
            {"eval_time": trip.after, "alertname": trip.alert, "exp_alerts": [alert]},
        ]
        others = [name for name in rules if name != trip.alert]
        checks += [{"eval_time": trip.after, "alertname": other, "exp_alerts": []} for other in others]
        found.append(_case(name, trip.series, checks))
    return found


def _silent(rules: dict[str, dict[str, Any]], silent: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    moments = [
        {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": []}
        for minute in range(20)
        for alert in rules
    ]
    return [_case(name, series, moments) for name, series in silent.items()]
