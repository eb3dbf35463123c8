"""One released version under gunicorn as users reach it, with everything that a release file can ask of them."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519

from assay.release.layout import Layout
from assay.release.schema import Release
from assay.release.security.salt import make_salt
from assay.release.security.signatures import sign
from assay.release.server.files import GroupFiles, Worker, process_of

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "release"))
from tokens_made import AUDIENCE, public_jwk, shared_jwk, token, write_keys

SOURCE = Path(__file__).parents[2] / "src"
PATIENCE = 300.0
T = TypeVar("T")
SUBJECT = "alice.liddell@example.org"
CALLER, SECRET = "client", "the-secret-of-a-caller-0123456789"
SHARED = b"the-shared-key-of-an-issuer-0123456789"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Secured:
    """A release's folder with keys and secrets, and the version that serves from it."""

    def __init__(self, folder: Path, bundle: Path, *, signatures: bool = False, **limits: Any) -> None:
        self.folder, self._bundle = folder, bundle
        self.key = ed25519.Ed25519PrivateKey.generate()
        self.jwks = folder / "jwks.json"
        self.write_keys(public_jwk(self.key, "1"), shared_jwk(SHARED, "shared"))
        callers = folder / "callers"
        callers.write_text(f"{CALLER} {SECRET}\n")
        callers.chmod(0o600)
        serving = {
            "workers": 2,
            "jwt": {"jwks": str(self.jwks), "algorithms": ["EdDSA", "HS256"], "audience": AUDIENCE},
            # Longer than a version takes to start on a busy machine: some requests are signed before.
            "signatures": {"secrets": str(callers), "window_seconds": 900} if signatures else None,
            "limits": limits,
        }
        release = Release.model_validate(
            {"name": "r", "folder": str(folder), "registry": {"model": "digits"}, "serving": serving}
        )
        self.layout = Layout(folder / "r")
        self.salt = make_salt(self.layout.salt)
        self.layout.resolved.write_text(yaml.safe_dump(release.model_dump(mode="json")))
        self.port = 0
        self.taken: list[str] = []
        """One for each sample to which the version gave an answer."""

    def write_keys(self, *keys: dict[str, Any]) -> None:
        write_keys(self.jwks, *keys)

    @property
    def printed(self) -> Path:
        return self.folder / "printed.log"

    def __enter__(self) -> Self:
        self.process, self.port = self.serve("stable")
        return self

    def serve(self, role: str) -> tuple[subprocess.Popen[bytes], int]:
        """Another version of the same release."""
        command = [sys.executable, "-m", "assay.cli", "release", "serve", str(self._bundle)]
        command += ["--release", str(self.layout.folder), "--role", role, "--port", "0"]
        with self.printed.open("a") as printed:
            begin = printed.tell()
            process = subprocess.Popen(
                command, stdout=printed, stderr=printed, env=os.environ | {"PYTHONPATH": str(SOURCE)}
            )

        def port() -> int | None:
            assert process.poll() is None, self.printed.read_text()
            found = re.search(r"http://127\.0\.0\.1:(\d+)", self.printed.read_text()[begin:])
            return int(found[1]) if found else None

        try:
            at = eventually(port)
            eventually(lambda: is_ready(at))
        except BaseException:
            self.end(process, role)
            raise
        return process, at

    def __exit__(self, *_: object) -> None:
        self.end(self.process, "stable")

    def end(self, process: "subprocess.Popen[bytes]", role: str) -> None:
        """Asked first; what outlives that is killed, the workers too, which outlive who started them."""
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            for said in self.layout.service(role).glob("groups/*/*.json"):
                _kill(json.loads(said.read_text()))
            for said in self.layout.service(role).glob("groups/*/workers/*.json"):
                _kill(json.loads(said.read_text())["process"])
            raise

    def token(self, **claims: Any) -> str:
        return token(self.key, **({"sub": SUBJECT} | claims)).decode()

    def headers(self, body: bytes = b"", **claims: Any) -> dict[str, str]:
        """Of a request that is let in."""
        return {
            "Authorization": f"Bearer {self.token(**claims)}",
            "Content-Type": "application/json",
            **sign(CALLER, SECRET.encode(), "POST", "/predict", body),
        }

    def ask(
        self,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        path: str = "/predict",
        method: str = "POST",
        port: int | None = None,
    ) -> Answer:
        """On a connection of its own: any worker may take it."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=PATIENCE)
        body = GOOD if body is None else body
        try:
            connection.request(method, path, body, self.headers(body) if headers is None else headers)
            answer = read(connection)
            if answer.status == 200 and path == "/predict" and port is None:
                self.taken.append("ask")
            return answer
        finally:
            connection.close()

    def raw(self, content: bytes, *, port: int | None = None) -> bytes:
        """What comes back to these bytes, until the server closes or has said a status."""
        with socket.create_connection(("127.0.0.1", port or self.port), timeout=PATIENCE) as connection:
            try:
                connection.sendall(content)
                return connection.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                return b""

    def seen_by_the_model(self) -> int:
        text = self.ask(path="/metrics", method="GET", headers={}, body=b"").body.decode()
        return sum(int(float(line.split()[-1])) for line in text.splitlines() if _SAMPLES.match(line))

    def check(self) -> None:
        """The model has seen no more than was answered. Workers tell with a delay, so that it may still seem less."""
        assert self.seen_by_the_model() <= len(self.taken)

    def settled(self) -> None:
        """It has seen exactly what was answered."""
        eventually(lambda: self.seen_by_the_model() >= len(self.taken))
        time.sleep(1)
        assert self.seen_by_the_model() == len(self.taken)

    def ready(self) -> bool:
        return is_ready(self.port)

    def logged(self) -> list[dict[str, Any]]:
        folder = self.layout.predictions("stable")
        return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in whole_lines(path)]

    def each_worker(self) -> Iterator[int]:
        """While one is given, by its process id, it alone takes connections: the others stand still."""
        pids = [worker.process.pid for worker in self._workers()]
        assert len(pids) > 1
        for pid in pids:
            others = [other for other in pids if other != pid]
            with standing(others):
                yield pid

    def _workers(self) -> list[Worker]:
        groups = self.layout.service("stable").glob("groups/*")
        return [worker for group in groups for worker in GroupFiles(group).living_workers()]


def whole_lines(path: Path) -> list[str]:
    """Of a file that is written to: the last one may be half there."""
    return path.read_text().rpartition("\n")[0].splitlines()


def contents(folder: Path) -> dict[Path, bytes]:
    """Of all files below a folder in which processes write, replace and remove."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                found[path] = path.read_bytes()
    return found


@contextlib.contextmanager
def standing(pids: list[int]) -> Iterator[None]:
    """Processes stopped, and seen to be."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        eventually(lambda: all(" T " in _stat(pid) for pid in pids))
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _stat(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]


def _kill(said: dict[str, Any]) -> None:
    if "pid" in said and process_of(said["pid"]).started == said["started"]:
        os.kill(said["pid"], signal.SIGKILL)


_SAMPLES = re.compile(r"assay_serving_samples(_total)?[ {]")
GOOD = json.dumps({"inputs": [[0] * 64]}).encode()
"""One digit, all black."""


def read(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    content = response.read()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/health/ready")
        return read(connection).status == 200
    except OSError:
        return False
    finally:
        connection.close()


def eventually(condition: Callable[[], T | None]) -> T:
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)
    return found
