"""A front with two versions and an identity service behind it, all of them real processes."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ports import free_port

from assay.release.layout import Layout
from assay.release.observations import Access
from assay.release.routing.access import AccessReader
from assay.release.routing.front import Front
from assay.release.routing.plan import Plan
from assay.release.schema import Limits, Routing
from assay.release.security.salt import user_digest as digest_of
from assay.release.server.group import KEEP_ALIVE_SECONDS

HERE = Path(__file__).parent
PATIENCE = 180.0
"""For what is only a matter of time, on a machine that is busy with other things."""
KEPT_SECONDS = 300.0
"""For which the front certainly keeps who somebody is: half of what the identity service says."""
SALT = "00112233445566778899aabbccddeeff"


@dataclass
class Answer:
    status: int
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def role(self) -> str:
        return str(self.body["role"])

    def got(self, header: str) -> str | None:
        """What the version got."""
        value = self.body["headers"].get(header.lower())
        return None if value is None else str(value)


class Part:
    """One of the servers, in a process of its own."""

    def __init__(self, folder: Path, name: str, app: str, **variables: str) -> None:
        self.name, self._app, self._folder = name, app, folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        paths = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src")])
        self._environment = os.environ | {"PYTHONPATH": paths} | variables
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "versions", self._app, str(self.port), str(KEEP_ALIVE_SECONDS)]
        with (self._folder / f"{self.name}.log").open("a") as log:
            self.process = subprocess.Popen(
                command,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, (self._folder / f"{self.name}.log").read_text()
            assert time.monotonic() < deadline, f"{self.name} does not start"
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Fronted:
    """`ask` goes through the front; `observed` is what its log says."""

    def __init__(self, folder: Path, kind: type[Front], limits: Limits | None = None, **routing: Any) -> None:
        self.folder = folder
        self.layout = Layout(folder / "release")
        self.layout.folder.mkdir()
        self.layout.salt.write_text(SALT + "\n")
        self.layout.salt.chmod(0o600)
        self.routing = Routing(port=free_port(), **routing)
        # A version that stands still for some seconds is not what is tested, but where it is said so.
        self.limits = limits or Limits(timeout_seconds=30)
        self.front = kind(self.layout, self.routing, self.limits)
        self.parts: dict[str, Part] = {}
        for role in ("stable", "candidate"):
            self.behave(role, "good")
            variables = {"ROLE": role, "BEHAVIOUR": str(folder / f"{role}.behaviour")}
            if role == "stable":
                variables["COPIES"] = str(self.layout.shadow_queue)
            self.parts[role] = Part(folder, role, "version", **variables)
        self.parts["identity"] = Part(folder, "identity", "identity", SALT=SALT, ASKED=str(folder / "asked"))
        self._generation = self._since = 0
        self.reader = AccessReader(self.layout.access)
        self.known: dict[str, float] = {}
        """Until when the front knows whom (`monotonic`); to be cleared where it starts anew."""

    def plan(self, share: float, **changes: Any) -> Plan:
        self._generation += 1
        addresses = {role: part.address for role, part in self.parts.items()}
        return Plan(**({"generation": self._generation, "share": share} | addresses | changes))

    def behave(self, role: str, how: str) -> None:
        path = self.folder / f"{role}.behaviour"
        path.with_suffix(".new").write_text(how)
        path.with_suffix(".new").replace(path)

    def ask(
        self, user: str | None = None, body: bytes = b"{}", path: str = "/predict", **headers: str
    ) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if user is not None:
            given["Authorization"] = f"Bearer {user}"
        scheme = "https" if self.routing.tls else "http"
        url = f"{scheme}://127.0.0.1:{self.routing.port}{path}"
        request = urllib.request.Request(url, data=body, headers=given)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                text = answer.read()
                return Answer(answer.status, json.loads(text) if text else {}, lowered(answer.headers))
        except urllib.error.HTTPError as error:
            text = error.read()
            body = json.loads(text) if text.startswith(b"{") else {}
            return Answer(error.code, body, lowered(error.headers))

    def acquaint(self, *users: str) -> None:
        """Until the front has kept who they are: where the identity service is late, who asks is nobody for once."""
        for user in users:
            deadline = time.monotonic() + PATIENCE
            while self.known.get(user, 0.0) < time.monotonic():
                assert time.monotonic() < deadline, f"{user} is never known"
                before, until = self.asked().count(user), time.monotonic() + KEPT_SECONDS
                said = self.ask(user).got("x-assay-user")
                if said == user_digest(user) and self.asked().count(user) == before:
                    self.known[user] = until

    def requests(self, role: str) -> int:
        """Those that a version has got."""
        path = self.folder / f"{role}.got"
        return path.stat().st_size if path.exists() else 0

    def forget(self) -> None:
        """What the plans before the last one saw: a front answers first and then writes the line, maybe only now."""
        self.reader.skip()
        self._since = self._generation

    def observed(self, count: int, seconds: float = PATIENCE) -> list[Access]:
        """The next `count` requests of the log."""
        found: list[Access] = []
        deadline = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < deadline:
            found += [access for access in self.reader.read() if access.generation >= self._since]
            time.sleep(0.01)
        assert len(found) == count, found
        return found

    def asked(self) -> list[str]:
        path = self.folder / "asked"
        return path.read_text().split() if path.exists() else []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.front.stop(5)
        for part in self.parts.values():
            part.kill()


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in {PATIENCE:.0f} s: {what}"
        time.sleep(0.02)


def lowered(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def user_digest(name: str) -> str:
    return digest_of(SALT.encode(), name)


@dataclass
class Load:
    """Keep-alive connections that ask without a pause, each as one user after another."""

    port: int
    connections: int = 4
    users: int = 50
    answers: list[tuple[float, float, int, str]] = field(default_factory=list)
    """When it was sent, seconds, status (0: the connection broke), role or what went wrong."""
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), daemon=True)
            for number in range(self.connections)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive()

    def until(self, condition: Callable[["Load"], bool], seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not condition(self):
            assert time.monotonic() < deadline, f"not in {seconds} s; {len(self.answers)} answers"
            time.sleep(0.02)

    def more(self, count: int, seconds: float = PATIENCE) -> None:
        """Until as many further requests were answered on each connection."""
        before = len(self.answers)
        self.until(lambda load: len(load.answers) >= before + count * load.connections, seconds)

    def roles(self) -> set[str]:
        return {role for *_, role in self.answers}

    def failed(self) -> list[tuple[float, float, int, str]]:
        return [answer for answer in self.answers if answer[2] != 200]

    def _ask(self, number: int) -> None:
        import http.client

        made = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        count = number
        while not self._over.is_set():
            count += self.connections
            began = time.monotonic()
            sent = time.time()
            try:
                headers = {"Authorization": f"Bearer user{count % self.users}"}
                made.request("POST", "/predict", body=b"{}", headers=headers)
                answer = made.getresponse()
                status, content = answer.status, answer.read()
                role = json.loads(content)["role"] if status == 200 else content.decode()
            except (OSError, http.client.HTTPException, ValueError) as error:
                status, role = 0, repr(error)
                made.close()
            self.answers.append((sent, time.monotonic() - began, status, role))
