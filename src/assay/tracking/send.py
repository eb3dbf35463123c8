"""Sending entries to MLflow, each once, and a note on disk of what is not there yet."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from assay.records import Typed, write_atomically
from assay.tracking.entries import PREFIX, Entry, entries

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER, SENT, PENDING = "tracking", "sent.json", "pending.json"
COMPLETE = f"{PREFIX}complete"
_KEY, _HASH = f"{PREFIX}key", f"{PREFIX}record_sha256"
_METRICS, _PARAMS = 500, 50
"""Of one request; MLflow takes 1,000 and 100."""
_SECRETS = ("PASSWORD", "TOKEN", "SECRET", "KEY")
DEFAULTS = {
    # What MLflow would try for many minutes: the next run sends what this one could not.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # The file store is in maintenance and refuses without it; it is the only local one that needs no database.
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


class SendError(ValueError):
    """The server did not take it. The text holds no secret."""


class Sent(Typed):
    """`sent.json`: what a server has, so that nothing is asked of it again."""

    schema_version: int = 1
    uri: str
    runs: dict[str, tuple[str, str]] = Field(description="By key: hash of the records, and MLflow's run.")


class Pending(Typed):
    """`pending.json`: there as long as something was not sent."""

    schema_version: int = 1
    uri: str
    why: str
    keys: list[str]


def track(results: Path, uri: str, *, again: bool = False) -> int:
    """Send what the server does not have; how many entries were new to it.

    again: ask the server about all of them, whatever was noted here.
    Raises: SendError, after a note of what is not there.
    """
    with _alone(results / FOLDER):
        found = list(entries(results))
        sent = Sent(uri=uri, runs={}) if again else _sent(results, uri)
        left = [entry for entry in found if sent.runs.get(entry.key, ("", ""))[0] != entry.sha256]
        try:
            _send(results, uri, found[-1].tags[f"{PREFIX}experiment"], left, sent)
        except SendError as error:
            keys = [entry.key for entry in left if sent.runs.get(entry.key, ("", ""))[0] != entry.sha256]
            Pending(uri=uri, why=str(error), keys=keys).write(results / FOLDER / PENDING)
            raise
        (results / FOLDER / PENDING).unlink(missing_ok=True)
        return len(left)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two senders at once would make two of each run."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sent(results: Path, uri: str) -> Sent:
    """Nothing for another server, nor where the note is damaged: the server itself is asked then."""
    try:
        found = Sent.model_validate_json((results / FOLDER / SENT).read_bytes())
    except (FileNotFoundError, ValidationError):
        return Sent(uri=uri, runs={})
    return found if found.uri == uri else Sent(uri=uri, runs={})


def _send(results: Path, uri: str, experiment: str, left: list[Entry], sent: Sent) -> None:
    if not left:
        return
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow.exceptions

        client = mlflow.MlflowClient(tracking_uri=_absolute(uri))
        place = _experiment(client, experiment)
        known = _known(client, place, {(entry.key, entry.sha256) for entry in left})
        for entry in left:
            run = known.get(entry.key, {}).get(entry.sha256) or _write(client, place, entry)
            sent.runs[entry.key] = (entry.sha256, run)
            write_atomically(results / FOLDER / SENT, sent.model_dump_json(indent=1).encode() + b"\n")
    except SendError:
        raise
    except Exception as error:  # MLflow's own, requests', urllib3's, the artefact store's
        raise SendError(told(error)) from None


def _absolute(uri: str) -> str:
    return uri if "://" in uri else Path(uri).absolute().as_uri()


def told(error: BaseException, most: int = 300) -> str:
    """An error in one line, without the secrets of the environment."""
    text = " ".join(str(error).split()) or type(error).__name__
    for name, value in os.environ.items():
        if len(value) > 3 and any(word in name.upper() for word in _SECRETS):
            text = text.replace(value, "***")
    return text if len(text) <= most else f"{text[:most]}…"


def _experiment(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise SendError(f"its experiment {name} was deleted; restore it there, or rename this one")
    return str(found.experiment_id)


def _known(client: "MlflowClient", place: str, wanted: set[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Runs that are whole, by key and hash. What an interrupted sender left of those wanted is removed, and sent anew."""
    known: dict[str, dict[str, str]] = {}
    token = None
    while True:
        page = client.search_runs([place], max_results=1000, page_token=token)
        for run in page:
            tags = run.data.tags
            key, digest = tags.get(_KEY, ""), tags.get(_HASH, "")
            if tags.get(COMPLETE) == "true":
                known.setdefault(key, {})[digest] = run.info.run_id
            elif (key, digest) in wanted:
                client.delete_run(run.info.run_id)
        token = page.token
        if not token:
            return known


def _write(client: "MlflowClient", place: str, entry: Entry) -> str:
    from mlflow.entities import Metric, Param, RunTag

    tags: dict[str, Any] = {**entry.tags, COMPLETE: "false"}
    run = client.create_run(place, start_time=entry.started, tags=tags, run_name=entry.key).info.run_id
    params = [Param(name, value) for name, value in entry.params.items()]
    metrics = [Metric(point.name, point.value, entry.ended, point.step) for point in entry.points]
    for start in range(0, len(params), _PARAMS):
        client.log_batch(run, params=params[start : start + _PARAMS])
    for start in range(0, len(metrics), _METRICS):
        client.log_batch(run, metrics=metrics[start : start + _METRICS])
    for path, folder in entry.files:
        log = client.log_artifacts if path.is_dir() else client.log_artifact
        log(run, str(path), folder or None)
    client.set_terminated(run, status=entry.status, end_time=entry.ended)
    client.log_batch(run, tags=[RunTag(COMPLETE, "true")])
    return str(run)
