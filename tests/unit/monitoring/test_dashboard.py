"""The dashboard's file, as far as it can be judged without Grafana, and that names agree: dashboard, rules, metrics, documents."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from assay.monitoring.metrics import METRICS

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana/dashboards/assay.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]
RULES = (MONITORING / "rules.yml").read_text()
METRIC = re.compile(r"\bassay_[a-z0-9_]+\b")


def expressions() -> list[str]:
    return [target["expr"] for panel in GRAPHS for target in panel["targets"]]


def test_panels_have_a_place_of_their_own():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24 and place["h"] > 0
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_all_ask_the_data_source_that_is_provisioned():
    (source,) = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/assay.yml").read_text())[
        "datasources"
    ]
    wanted = {"type": source["type"], "uid": source["uid"]}
    used = [panel["datasource"] for panel in GRAPHS]
    used += [target["datasource"] for panel in GRAPHS for target in panel["targets"]]
    used += [one["datasource"] for key in ("annotations", "templating") for one in DASHBOARD[key]["list"]]
    assert len(used) > 40 and all(one == wanted for one in used)


def test_training_and_gpu_share_one_time_axis():
    assert DASHBOARD["graphTooltip"] == 1, "one crosshair through all panels"
    assert not [panel for panel in GRAPHS if "timeFrom" in panel or "timeShift" in panel]
    kinds = {panel["type"] for panel in GRAPHS}
    assert kinds == {"stat", "timeseries"}


def test_every_target_can_be_told_apart():
    for panel in GRAPHS:
        references = [target["refId"] for target in panel["targets"]]
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(references)) == len(references) and len(set(legends)) == len(legends), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] and panel["title"]


def test_variables_are_defined_and_chosen_by_labels():
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    used = set(re.findall(r"\$([a-z_]+)\b", text)) - {"__rate_interval", "__all"}
    assert used == defined == {"experiment", "arm", "seed"}


def test_legends_name_labels_that_the_metric_has():
    for panel in GRAPHS:
        for target in panel["targets"]:
            labels = {label for name in METRIC.findall(target["expr"]) for label in METRICS[name][1]}
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert named <= labels, target


@pytest.mark.parametrize("text", [*expressions(), RULES])
def test_only_metrics_that_are_exported_are_asked_for(text):
    assert set(METRIC.findall(text)) <= set(METRICS)


def test_every_metric_is_documented_with_its_labels_few():
    page = (ROOT / "docs/monitoring.md").read_text()
    for name, (text, labels) in METRICS.items():
        assert f"`{name}`" in page, f"{name} is not in docs/monitoring.md"
        assert text.endswith(".") and set(labels) <= {
            "experiment",
            "arm",
            "seed",
            "gpu",
            "state",
            "reason",
            "block",
            "stage",
        }
    told = {
        name for name in METRIC.findall(page) if not name.startswith(("assay_release_", "assay_serving_"))
    }
    assert told <= set(METRICS), "the page names a metric that there is not"
    for alert in re.findall(r"alert: (\w+)", RULES):
        assert f"`{alert}`" in page
