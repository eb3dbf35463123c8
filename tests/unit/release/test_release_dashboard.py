"""The dashboard and rules of releases, as far as they can be judged without Grafana: names agree with what is told."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from assay.release.exporter.metrics import METRICS
from assay.release.security.sources import Standing
from assay.release.server.metrics import Metrics

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana/dashboards/release.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]
RULES = (MONITORING / "release.yml").read_text()
METRIC = re.compile(r"\bassay_[a-z0-9_]+\b")
SERVED = Metrics("m", "v", "stable")
SERVED.watch_keys(lambda: {"jwks": Standing(True, 1.0)}, {"jwks": 1.0})
SERVING = set(re.findall(r"^# TYPE (assay_serving_\w+)", SERVED.text().decode(), re.M))
HISTOGRAMS = {
    f"{name}_bucket" for name in (*METRICS, *SERVING) if name.endswith("_seconds") and "_keys_" not in name
}
TOLD = set(METRICS) | SERVING | HISTOGRAMS


@pytest.mark.parametrize("text", [RULES, *(one["expr"] for panel in GRAPHS for one in panel["targets"])])
def test_only_metrics_that_are_told_are_asked_for(text: str) -> None:
    assert set(METRIC.findall(text)) <= TOLD


def test_every_metric_and_alert_is_documented() -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    for name in (*METRICS, *SERVING):
        assert f"`{name}`" in page or name.endswith("_created"), name
    told = {name for name in METRIC.findall(page) if name.startswith(("assay_release_", "assay_serving_"))}
    assert told <= TOLD, "the page names a metric that there is not"
    for alert in re.findall(r"alert: (\w+)", RULES):
        assert f"`{alert}`" in page
    assert {label for _, labels in METRICS.values() for label in labels} <= {
        *("release", "role", "phase", "event", "kind", "outcome"),
    }


def test_panels_have_a_place_of_their_own_and_targets_can_be_told_apart() -> None:
    (source,) = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/assay.yml").read_text())[
        "datasources"
    ]
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    for panel in GRAPHS:
        asked = panel["targets"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 and panel["title"] and panel["description"]
        assert (
            len({one["refId"] for one in asked}) == len({one["legendFormat"] for one in asked}) == len(asked)
        )
        assert all(one["datasource"] == {"type": source["type"], "uid": source["uid"]} for one in asked)


def test_its_one_variable_is_defined_and_used() -> None:
    used = set(re.findall(r"\$([a-z_]+)\b", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"release"}
    assert DASHBOARD["uid"] != json.loads((MONITORING / "grafana/dashboards/assay.json").read_text())["uid"]
