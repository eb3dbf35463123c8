"""A real MLflow server on this machine, and its REST API."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ports import free_port

MISSING: list[str] = [] if shutil.which("mlflow") else ["mlflow (make programs)"]
START_SECONDS = 300.0


class Server:
    """Runs, metrics and artefacts below a folder, on a free port, until it is left; may be stopped and started in between."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            *("mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
            *("--artifacts-destination", str(self.folder / "artifacts")),
        ]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True
            )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError((self.folder / "server.log").read_text())
            time.sleep(0.2)

    def stop(self) -> None:
        """With its workers, at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=120)
            self._process = None

    @contextmanager
    def hung(self) -> Iterator[None]:
        """It takes connections and does not answer."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, path: str, **content: Any) -> dict[str, Any]:
        """POST where there is content, else GET."""
        data = json.dumps(content).encode() if content else None
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/{path}", data=data, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=180) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def artefact(self, run: dict[str, Any], path: str) -> bytes:
        url = f"{self.uri}/get-artifact?run_uuid={run['info']['run_id']}&path={path}"
        with urllib.request.urlopen(url, timeout=180) as answer:
            content: bytes = answer.read()
            return content

    def runs(self, experiment: str) -> dict[str, dict[str, Any]]:
        """By Assay's key; one that is there twice is an error."""
        place = self.ask(f"experiments/get-by-name?experiment_name={experiment}")["experiment"]
        found = self.ask("runs/search", experiment_ids=[place["experiment_id"]], max_results=1000).get(
            "runs", []
        )
        keys = [named(run["data"]["tags"])["assay.key"] for run in found]
        assert len(keys) == len(set(keys)), f"twice: {sorted(keys)}"
        return dict(zip(keys, found, strict=True))


def named(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: pair["value"] for pair in pairs}
