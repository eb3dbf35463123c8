"""The servers that are compared, each started and asked in the way its users do."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networks
import numpy as np
import yaml
from numpy.typing import NDArray

from assay.release.layout import Layout
from assay.release.routing.nginx import NginxFront, find_nginx
from assay.release.routing.plan import Plan
from assay.release.schema import Limits, Release, Routing
from assay.release.security.salt import make_salt
from assay.release.security.service import identity_process
from assay.release.server.files import Service, read_file

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"
WORKERS = 2
JSON, RAW = "application/json", "application/octet-stream"
SECRET = b"a benchmark's secret of more than thirty-two bytes"
_PATIENCE = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Target:
    """Where and how a server is asked."""

    name: str
    port: int
    body: bytes
    headers: dict[str, str]
    ends: list[Callable[[], None]] = field(default_factory=list)

    def ask(self) -> NDArray[np.float32]:
        """The scores for one request. Raises: OSError, ValueError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", "/predict", self.body, self.headers)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        if response.status != 200:
            raise ValueError(f"{self.name}: {response.status}: {content[:300]!r}")
        if response.headers["Content-Type"] == RAW:
            return np.frombuffer(content, "<f4")
        return np.array(json.loads(content)["outputs"], np.float32).ravel()


def started(
    folder: Path, name: str, command: list[str], where: Path = HERE, **variables: str
) -> Callable[[], None]:
    """Start a program; returns what ends it and all that it started."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE)} | variables
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=where, env=environment, stdout=log, stderr=log, start_new_session=True
        )

    def end() -> None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    return end


def until_it_answers(target: Target, expected: NDArray[np.float32]) -> None:
    """Raises: ValueError where it does not, or not with the same scores: another network would be measured."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            scores = target.ask()
            break
        except (OSError, ValueError, http.client.HTTPException) as error:
            if time.monotonic() > until:
                raise ValueError(f"{target.name} does not answer: {error}") from None
            time.sleep(0.2)
    if scores.shape != expected.shape or np.abs(scores - expected).max() > 1e-4:
        raise ValueError(f"{target.name} gives {scores}, not {expected}: this is another network")


def bare(folder: Path, kind: str, body: bytes) -> Target:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "bare:application()", "--workers", str(WORKERS)]
    command += ["--worker-class", "uvicorn_worker.UvicornWorker", "--bind", f"127.0.0.1:{port}"]
    command += ["--no-control-socket", "--log-level", "warning", "--keep-alive", "75"]
    end = started(folder, "bare", command, KIND=kind)
    return Target("Starlette + orjson", port, body, {"Content-Type": JSON}, [end])


_PASSES_ON = """
worker_processes {workers};
pid "{folder}/nginx.pid";
error_log "{folder}/error.log";
events {{}}
http {{
    access_log off;
    client_body_buffer_size 1m;
    client_body_temp_path "{folder}/body";
    proxy_temp_path "{folder}/proxy";
    fastcgi_temp_path "{folder}/fastcgi";
    uwsgi_temp_path "{folder}/uwsgi";
    scgi_temp_path "{folder}/scgi";
    keepalive_requests 1000000;
    upstream server {{ server 127.0.0.1:{to}; keepalive 64; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""


def behind_nginx(folder: Path, target: Target) -> Target:
    """The same server behind an nginx that only passes on: what any front costs."""
    own, port = folder / "passes-on", free_port()
    own.mkdir()
    file = own / "nginx.conf"
    file.write_text(_PASSES_ON.format(workers=WORKERS, folder=own, to=target.port, port=port))
    command = [
        find_nginx(),
        "-p",
        str(own),
        "-c",
        str(file),
        "-e",
        str(own / "error.log"),
        "-g",
        "daemon off;",
    ]
    end = started(folder, "passes-on", command)
    return Target(f"{target.name}, behind nginx", port, target.body, target.headers, [end])


def litserve(folder: Path, kind: str, body: bytes, python: Path) -> Target:
    port = free_port()
    end = started(folder, "litserve", [str(python), "lit.py", kind, str(port), str(WORKERS)])
    return Target("LitServe", port, body, {"Content-Type": JSON}, [end])


def bentoml(folder: Path, kind: str, body: bytes, python: Path) -> Target:
    port = free_port()
    command = [
        str(python),
        "-m",
        "bentoml",
        "serve",
        "bento:Scores",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    end = started(
        folder, "bentoml", command, KIND=kind, BENTOML_HOME=str(folder), BENTOML_DO_NOT_TRACK="True"
    )
    return Target("BentoML", port, body, {"Content-Type": JSON}, [end])


@dataclass
class Assay:
    """A release of one version behind the real front: verified tokens, validation, a line for each prediction, metrics."""

    folder: Path
    bundle: Path
    batch: int = 1
    wait_ms: float = 1.0

    def __enter__(self) -> "Assay":
        import base64

        import jwt

        self.folder.mkdir(parents=True)
        keys = self.folder / "keys.json"
        secret = base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode()
        keys.write_text(json.dumps({"keys": [{"kty": "oct", "kid": "1", "k": secret}]}))
        keys.chmod(0o600)
        claims = {"sub": "somebody", "aud": "benchmark", "exp": int(time.time()) + 86_400}
        self.token = jwt.encode(claims, SECRET, algorithm="HS256", headers={"kid": "1"})
        self.layout = Layout(self.folder / "release")
        identified = {"jwks": str(keys), "algorithms": ["HS256"], "audience": "benchmark"}
        release = Release.model_validate(
            {
                "name": "release",
                "folder": str(self.folder),
                "registry": {"model": "benchmark"},
                "serving": {
                    "workers": WORKERS,
                    "jwt": identified,
                    "batching": {"size": self.batch, "wait_ms": self.wait_ms},
                },
            }
        )
        self.layout.folder.mkdir()
        self.layout.resolved.write_text(yaml.safe_dump(release.model_dump(mode="json")))
        make_salt(self.layout.salt)
        self.port, identity = free_port(), free_port()
        command = [sys.executable, "-m", "assay.cli", "release", "serve", str(self.bundle), "--port", "0"]
        serving = started(self.folder, "serve", [*command, "--release", str(self.layout.folder)])
        command, variables = identity_process(release, f"127.0.0.1:{identity}")
        self._ends = [serving, started(self.folder, "identity", command, **variables)]
        until = time.monotonic() + _PATIENCE
        while (
            service := read_file(self.layout.service("stable") / "service.json", Service)
        ) is None or not service.active:
            if time.monotonic() > until:
                raise ValueError(
                    f"assay release serve does not start: {(self.folder / 'serve.log').read_text()}"
                )
            time.sleep(0.2)
        self.direct = service.port
        self.front = NginxFront(self.layout, Routing(address="127.0.0.1", port=self.port), Limits())
        stable = f"127.0.0.1:{self.direct}"
        self.front.start(Plan(generation=1, share=0.0, stable=stable, identity=f"127.0.0.1:{identity}"))
        return self

    def __exit__(self, *_: Any) -> None:
        if hasattr(self, "front"):
            self.front.stop()
        for end in self._ends:
            end()

    def target(self, name: str, body: bytes, kind: str = JSON, *, direct: bool = False) -> Target:
        headers = {"Content-Type": kind, "Accept": kind, "Authorization": f"Bearer {self.token}"}
        return Target(name, self.direct if direct else self.port, body, headers)


def bodies(kind: str) -> tuple[bytes, bytes, NDArray[np.float32]]:
    """One sample as JSON and as raw float32, and the scores that the network gives for it."""
    import torch

    height, width, channels = networks.KINDS[kind][0]
    values = np.random.default_rng(2).uniform(0, 255, height * width * channels).round(3)
    with torch.inference_mode():
        scores = networks.Served(kind)(torch.tensor(values[None], dtype=torch.float32))
    body = json.dumps({"inputs": [values.tolist()]}, separators=(",", ":")).encode()
    return body, values.astype("<f4").tobytes(), scores.numpy().ravel()


def peer(environment: Path | None, module: str) -> tuple[Path | None, str]:
    """The Python that has a server that Assay is compared with; or None, and why it is left out."""
    if environment is None:
        return None, "name its environment: --peers ENVIRONMENT"
    python = environment / "bin" / "python"
    if not python.exists():
        return None, f"{environment} is no environment"
    found = subprocess.run(
        [str(python), "-c", f"import {module}; getattr({module}, 'service', {module})"],
        capture_output=True,
        text=True,
    )
    if found.returncode:
        return None, f"{python} cannot import it: {(found.stderr.strip().splitlines() or ['?'])[-1]}"
    return python, ""


def find_wrk() -> str:
    """Raises: SystemExit."""
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("install wrk, the load generator, e.g. apt-get install wrk")
    return found
