"""Results on a real MLflow server, read back through its REST API; one that is down, and one that dies in between."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow_server import MISSING, Server, named

from assay.records import Record
from assay.tracking.send import Pending, SendError, track

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}"),
]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    with Server(tmp_path / "server") as running:
        yield running


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(ROOT / "tests/unit/reporting"))
    from made_results import Made

    made = Made(tmp_path, seeds=3, blocks=1, logs=False, outcomes={("cnn", 2): "diverged"}).make()
    (made / "report" / "tables").mkdir(parents=True)
    (made / "report" / "index.html").write_text("<p>the page</p>")
    (made / "report" / "tables" / "verdict.csv").write_text("a,b\n")
    return made


def check_all(server: Server, results: Path) -> None:
    """Every parameter, metric, tag and file that was to be sent is there, once."""
    from assay.tracking.entries import entries

    found = server.runs("digits")
    wanted = {entry.key: entry for entry in entries(results)}
    assert found.keys() == wanted.keys() and len(found) == 9
    for key, entry in wanted.items():
        data, info = found[key]["data"], found[key]["info"]
        assert named(data["params"]) == dict(entry.params)
        latest = {point.name: point.value for point in sorted(entry.points, key=lambda point: point.step)}
        assert named(data.get("metrics", [])) == pytest.approx(latest)
        tags = named(data["tags"])
        assert entry.tags.items() <= tags.items() and tags["assay.complete"] == "true"
        assert (info["status"], int(info["start_time"]), int(info["end_time"])) == (
            entry.status,
            entry.started,
            entry.ended,
        )
    run = found["runs/mlp/seed-1"]
    history = server.ask(
        f"metrics/get-history?run_id={run['info']['run_id']}&metric_key=epoch.validation_accuracy"
    )
    record = Record.read(results / "runs/mlp/seed-1/train/record.json")
    assert [one["value"] for one in sorted(history["metrics"], key=lambda one: one.get("step", 0))] == [
        line["validation_accuracy"] for line in record.details["history"]
    ]
    path = results / "runs/mlp/seed-1/evaluate/record.json"
    assert server.artefact(run, "evaluate/record.json") == path.read_bytes()
    assert server.artefact(found["verdict"], "report/index.html") == b"<p>the page</p>"
    assert server.artefact(found["verdict"], "report/tables/verdict.csv") == b"a,b\n"


def test_everything_is_there_once(server: Server, results: Path) -> None:
    assert track(results, server.uri) == 9
    check_all(server, results)
    assert track(results, server.uri) == 0
    (results / "tracking" / "sent.json").unlink()
    track(results, server.uri)
    check_all(server, results)


def test_a_server_that_dies_in_between_is_given_the_rest_later(
    server: Server, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    whole, calls = mlflow.MlflowClient.log_artifact, iter(range(1000))

    def dies(*arguments: Any) -> None:
        if next(calls) == 5:
            server.stop()
        whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "log_artifact", dies)
        with pytest.raises(SendError):
            track(results, server.uri)
    pending = Pending.model_validate_json((results / "tracking" / "pending.json").read_bytes())
    assert 0 < len(pending.keys) < 9
    server.start()
    track(results, server.uri)
    check_all(server, results)
    assert not (results / "tracking" / "pending.json").exists()


def test_a_run_is_not_hurt_and_the_same_command_sends_later(server: Server, tmp_path: Path) -> None:
    """`assay run` with a server that is down ends well; again, with nothing to do, and the server has it all."""
    content = yaml.safe_load((ROOT / "tests" / "data" / "tiny.yaml").read_text())
    content |= {
        "tracking": {"mlflow": server.uri},
        "arms": {"mlp": {}, "wide": {"model": {"options": {"hidden": [16]}}}},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_TOKEN": "SECRET-TOKEN"}

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "assay", "run", "tiny.yaml", "--cores", "2"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout
        assert "SECRET-TOKEN" not in done.stdout
        return done.stdout

    server.stop()
    said = run()
    results = tmp_path / "results" / "tiny"
    pending = json.loads((results / "tracking" / "pending.json").read_text())
    assert "sends what is left" in said and len(pending["keys"]) == 7
    trained = (results / "runs/mlp/seed-0/train/record.json").stat().st_mtime_ns

    server.start()
    assert "Nothing to do" in run()
    assert len(server.runs("tiny")) == 7 and not (results / "tracking" / "pending.json").exists()

    content["tracking"] = {"mlflow": "./elsewhere"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(content))
    run()
    assert (results / "runs/mlp/seed-0/train/record.json").stat().st_mtime_ns == trained
    assert (tmp_path / "elsewhere").is_dir()
    texts = [path.read_text(errors="replace") for path in tmp_path.rglob("*.log") if path.is_file()]
    assert texts and not any("SECRET-TOKEN" in text for text in texts)
