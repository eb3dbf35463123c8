"""Results to MLflow: a real local store, servers that are not there, and what an experiment file may name."""

import json
import shutil
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ports import free_port

from assay.cli import main
from assay.config.tracking import problem_of_uri
from assay.records import Record
from assay.tracking.command import at_end
from assay.tracking.entries import entries, plain
from assay.tracking.send import Pending, SendError, Sent, told, track

sys.path.insert(0, str(Path(__file__).parents[1] / "reporting"))
from made_results import Made

sys.path.pop(0)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    made = Made(tmp_path, seeds=3, blocks=1, logs=False, outcomes={("cnn", 2): "diverged"}).make()
    (made / "report" / "tables").mkdir(parents=True)
    (made / "report" / "index.html").write_text("<p>the page</p>")
    (made / "report" / "tables" / "verdict.csv").write_text("a,b\n")
    return made


@pytest.fixture
def nobody() -> str:
    """An address at which nothing listens."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


# --- what there is to send --------------------------------------------------------------------------------


def test_every_run_visit_and_the_verdict_is_an_entry(results: Path) -> None:
    found = {entry.key: entry for entry in entries(results)}
    runs = [f"runs/{arm}/seed-{seed}" for arm in ("mlp", "cnn") for seed in range(3)]
    assert list(found) == [*runs, "profile/block-0/mlp", "profile/block-0/cnn", "verdict"]
    run = found["runs/mlp/seed-1"]
    record = Record.read(results / "runs/mlp/seed-1/evaluate/record.json")
    values = {(point.name, point.step): point.value for point in run.points}
    assert values["accuracy", 0] == record.metrics["accuracy"].value
    assert values["epoch.validation_accuracy", 14] < 1
    assert run.params["model.source"] == '"builtin:mlp"' and run.status == "FINISHED"
    visit = {point.name for point in found["profile/block-0/mlp"].points}
    assert "latency_ms.batch_16" in visit and "flops_utilization" not in visit, "not measured is absent"
    assert found["runs/cnn/seed-2"].status == "FAILED"
    assert found["runs/cnn/seed-2"].tags["assay.outcome"] == "diverged"
    assert found["verdict"].tags["assay.verdict.accuracy.cnn"] == "inconclusive"


def test_a_hash_is_of_the_records(results: Path) -> None:
    first = {entry.key: entry.sha256 for entry in entries(results)}
    path = results / "runs/mlp/seed-1/evaluate/record.json"
    path.write_text(path.read_text().replace('"attempts": 1', '"attempts": 2'))
    second = {entry.key: entry.sha256 for entry in entries(results)}
    assert [key for key in first if first[key] != second[key]] == ["runs/mlp/seed-1"]


def test_names_are_such_as_mlflow_takes() -> None:
    assert plain("latency_ms@16") == "latency_ms.batch_16" and plain("a/b:c") == "a_b_c"


# --- a local folder ---------------------------------------------------------------------------------------


def stored(folder: Path, name: str = "digits") -> dict[str, Any]:
    import mlflow

    client = mlflow.MlflowClient(folder.as_uri())
    place = client.get_experiment_by_name(name)
    assert place is not None
    runs = client.search_runs([place.experiment_id], max_results=100)
    keys = [run.data.tags["assay.key"] for run in runs]
    assert len(keys) == len(set(keys)), "an entry is there twice"
    return dict(zip(keys, runs, strict=True))


def test_a_local_folder_has_each_entry_once(results: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert track(results, str(store)) == 9
    found = stored(store)
    assert len(found) == 9
    run = found["runs/mlp/seed-1"]
    accuracy = Record.read(results / "runs/mlp/seed-1/evaluate/record.json").metrics["accuracy"].value
    assert run.data.metrics["accuracy"] == accuracy and run.data.params["model.source"] == '"builtin:mlp"'
    assert run.info.status == "FINISHED" and found["runs/cnn/seed-2"].info.status == "FAILED"
    place = Path(found["verdict"].info.artifact_uri.removeprefix("file://"))
    assert (place / "report/index.html").read_text() == "<p>the page</p>"
    assert (place / "comparison/comparison.json").read_bytes() == (
        results / "comparison/comparison.json"
    ).read_bytes()
    assert track(results, str(store)) == 0

    # The note of what was sent is lost, damaged, or of another server: the store itself is asked.
    for change in (Path.unlink, lambda path: path.write_text('{"uri": "'), None):
        if change is None:
            assert track(results, str(store), again=True) == 9
        else:
            change(results / "tracking/sent.json")
            track(results, str(store))
        assert len(stored(store)) == 9
    track(results, str(tmp_path / "other"))
    assert len(stored(tmp_path / "other")) == 9


def test_a_sender_that_dies_leaves_nothing_twice(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    store, count, whole = tmp_path / "store", iter(range(1000)), mlflow.MlflowClient.log_artifact

    def dies(*arguments: Any) -> None:
        if next(count) == 3:
            raise ConnectionError("gone")
        whole(*arguments)

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", dies)
    with pytest.raises(SendError, match="gone"):
        track(results, str(store))
    pending = Pending.model_validate_json((results / "tracking/pending.json").read_bytes())
    assert len(pending.keys) == 8 and pending.keys[-1] == "verdict"
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert track(results, str(store)) == 8
    found = stored(store)
    assert len(found) == 9 and all(run.data.tags["assay.complete"] == "true" for run in found.values())
    assert not (results / "tracking/pending.json").exists()


def test_a_record_that_changed_is_a_run_of_its_own(results: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    track(results, str(store))
    path = results / "runs/mlp/seed-1/evaluate/record.json"
    path.write_text(path.read_text().replace('"attempts": 1', '"attempts": 2'))
    assert track(results, str(store)) == 1
    sent = Sent.model_validate_json((results / "tracking/sent.json").read_bytes())
    assert len(sent.runs) == 9


# --- servers that are not there ---------------------------------------------------------------------------


def test_a_server_that_is_down_is_noted_and_told(
    results: Path,
    nobody: str,
    impatient: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2-secret")
    assert main(["track", str(results), "--mlflow", nobody]) == 1
    said = capsys.readouterr()
    assert nobody in said.err and "sends what is left" in said.err and "hunter2" not in said.err
    pending = json.loads((results / "tracking/pending.json").read_text())
    assert len(pending["keys"]) == 9 and "hunter2" not in json.dumps(pending)


def test_a_server_that_never_answers_holds_nothing_up(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        uri = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        content = yaml.safe_load((results / "experiment.yaml").read_text())
        content["tracking"] = {"mlflow": uri}
        (results / "experiment.yaml").write_text(yaml.safe_dump(content))
        began = time.monotonic()
        problem = at_end(results, seconds=4)
        assert problem is not None and time.monotonic() - began < 300


def test_secrets_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc123xyz")
    assert told(ValueError("denied for\nabc123xyz at host")) == "denied for *** at host"


def test_two_senders_at_once_send_once(results: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(track(results, str(store)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [0, 9] and len(stored(store)) == 9


# --- the experiment file ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("https://user:SECRET@host", "holds credentials"),
        ("https://host/?token=SECRET", "holds credentials"),
        ("sqlite:///mlflow.db", "mlflow server --backend-store-uri"),
        ("databricks://x", "is not known"),
        ("https://", "names no host"),
        ("http://host:port", "is no URI"),
        (" ", "is empty"),
        ("file://host/x", "write `file:///"),
    ],
)
def test_what_is_no_server_is_refused(uri: str, told: str) -> None:
    problem = problem_of_uri(uri)
    assert problem is not None and told in problem and "SECRET" not in problem


@pytest.mark.parametrize(
    "uri", ["http://host:5000", "https://host/path", "./mlruns", "mlruns", "file:///x/y"]
)
def test_servers_and_folders_are_taken(uri: str) -> None:
    assert problem_of_uri(uri) is None


def test_the_file_is_refused_with_its_key_and_without_its_secret(tmp_path: Path) -> None:
    content = yaml.safe_load((Path(__file__).parents[2] / "data/tiny.yaml").read_text())
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(content | {"tracking": {"mlflow": "https://a:SECRET@host"}}))
    with pytest.raises(ValueError, match=r"tracking.*holds credentials") as error:
        from assay.config.load import load

        load(file)
    assert "SECRET" not in str(error.value)


def test_wrong_input_ends_with_2(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ([str(tmp_path / "none")], "is no folder of results"),
        ([str(results)], "names no server"),
        ([str(results), "--mlflow", "sqlite:///x.db"], "mlflow server"),
    ):
        assert main(["track", *words]) == 2
        assert said in capsys.readouterr().err
    shutil.rmtree(results / "runs")
    assert main(["track", str(results), "--mlflow", str(tmp_path / "store")]) == 2
    assert "no record of a run" in capsys.readouterr().err
    (results / "comparison/comparison.json").unlink()
    assert main(["track", str(results), "--mlflow", str(tmp_path / "store")]) == 2


def test_credentials_come_from_the_environment_and_a_refusal_is_told(
    results: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64
    from http.server import BaseHTTPRequestHandler, HTTPServer

    seen: list[str] = []

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"] or "")
            self.send_response(403)
            self.end_headers()
            self.wfile.write(b"not for hunter2-secret")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "someone")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2-secret")
    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(SendError, match="403") as error:
            track(results, f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert seen[0] == "Basic " + base64.b64encode(b"someone:hunter2-secret").decode()
    assert "hunter2" not in str(error.value)
