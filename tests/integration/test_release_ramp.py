"""A release under load while its parts are killed: users see nothing of it, and the outcome is the right one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow_server import MISSING, Server, named
from ports import free_port

from assay.release.demo.__main__ import release_file, users
from assay.release.demo.models import bundles
from assay.release.demo.users import make_keys
from assay.release.layout import Layout
from assay.release.load import from_mapping
from assay.release.ramp.journal import Journal, Line
from assay.release.ramp.processes import Supervised
from assay.release.ramp.start import stop
from assay.release.registry.store import open_registry
from assay.release.routing.nginx import find_nginx
from assay.release.schema import Release
from assay.release.security.salt import make_salt

ROOT = Path(__file__).parents[2]
PATIENCE = 600


def _has_nginx() -> bool:
    try:
        find_nginx()
    except ValueError:
        return False
    return True


FRONT = "nginx" if _has_nginx() else "python"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return bundles(tmp_path_factory.mktemp("bundles"), "")


@dataclass
class Driven:
    """A release whose controller is a process of its own."""

    release: Release
    layout: Layout
    file: Path
    controller: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        with (self.file.parent / "controller.log").open("ab") as log:
            self.controller = subprocess.Popen(
                [sys.executable, "-P", "-m", "assay.cli", "release", "start", str(self.file), *options],
                stdout=log,
                stderr=log,
                cwd=self.file.parent,
                env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            )

    def kill(self) -> None:
        assert self.controller is not None
        self.controller.kill()
        self.controller.wait()

    def said(self) -> str:
        return (self.file.parent / "controller.log").read_text()

    def lines(self) -> list[Line]:
        return Journal(self.layout).lines()

    def wait(self, until: Callable[[Line], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not any(until(line) for line in self.lines()):
            assert time.monotonic() < deadline, self.said()
            assert self.controller is None or self.controller.poll() in (None, 0, 3), self.said()
            time.sleep(0.05)

    def ended(self) -> int:
        assert self.controller is not None
        return self.controller.wait(PATIENCE)

    def order(self, *words: str) -> None:
        command = [sys.executable, "-P", "-m", "assay.cli", "release", *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        subprocess.run(command, check=True, cwd=self.file.parent, env=environment)


@contextmanager
def driven(
    tmp_path: Path, made: tuple[Path, Path], changes: dict[str, Any] | None = None
) -> Iterator[tuple[Driven, Any]]:
    """changes: sections of the release file in place of the demonstration's."""
    stable, candidate = made
    _, public = make_keys(tmp_path / "keys")
    content = release_file("", tmp_path, FRONT, public, candidate)
    content["versions"]["stable"] = str(stable)
    # What the ramp does is looked at here; a busy machine's latencies are not.
    content["judge"]["latency"] = None
    content |= changes or {}
    content["judge"]["guards"] = {"unready_seconds": 30}
    content["serving"]["limits"] = {"timeout_seconds": 60}
    content["routing"]["port"] = free_port()
    for phase in (content["ramp"]["shadow"], *content["ramp"]["steps"]):
        phase["most_seconds"] = 3000
    release = from_mapping(content, file="made")
    file = tmp_path / "release.yaml"
    file.write_text(yaml.safe_dump(release.model_dump(mode="json")))
    layout = Layout(Path(release.folder) / release.name)
    make_salt(layout.salt)
    found = Driven(release, layout, file)
    with users(release, layout, tmp_path, 40.0) as seen:
        try:
            yield found, seen
        finally:
            if found.controller is not None:
                found.kill()
            stop(layout)


def test_a_controller_that_is_killed_in_every_phase_promotes(tmp_path: Path, made: tuple[Path, Path]) -> None:
    with driven(tmp_path, made) as (release, seen):
        for phase, step in (
            ("preflight", None),
            ("shadow", None),
            ("step", 0),
            ("step", 1),
            ("bake", None),
            ("retire", None),
        ):
            release.start()
            release.wait(
                lambda line, phase=phase, step=step: (line.state.phase, line.state.step) == (phase, step)
            )  # type: ignore[misc]
            release.kill()
            time.sleep(0.5)
        release.start()
        assert release.ended() == 0, release.said()
        saw = seen()
        assert saw["errors"] == 0, saw
        assert len(saw["versions"]) == 2
        phases = [(line.state.phase, line.state.step) for line in release.lines()]
        assert list(dict.fromkeys(phases)) == [
            ("preflight", None),
            ("shadow", None),
            ("step", 0),
            ("step", 1),
            ("step", 2),
            ("bake", None),
            ("retire", None),
            ("promoted", None),
        ]
        registry = open_registry(release.release.registry)
        assert registry.aliases()["champion"] == release.lines()[-1].state.candidate.version
        noted = [(entry.role, entry.reason) for entry in registry.history.read() if entry.event == "serves"]
        assert len(noted) == len(set(noted))
        _keeps_what_it_ended_with(release)


def test_a_candidate_that_is_killed_is_turned_back_and_users_see_nothing(
    tmp_path: Path, made: tuple[Path, Path]
) -> None:
    with driven(tmp_path, made) as (release, seen):
        release.start()
        release.wait(lambda line: line.state.step == 0)
        deadline = time.monotonic() + PATIENCE
        while release.lines()[-1].state.phase == "step":
            assert time.monotonic() < deadline, release.said()
            _kill_all(release.layout, "candidate")
            time.sleep(0.1)
        assert release.ended() == 3, release.said()
        saw = seen()
        assert saw["errors"] == 0, saw
        assert re.search(r"not ready for|down or not ready|errors", release.lines()[-1].reason)


def test_a_person_turns_back_with_no_controller_and_within_a_second_of_one(
    tmp_path: Path, made: tuple[Path, Path]
) -> None:
    with driven(tmp_path, made) as (release, seen):
        release.start()
        release.wait(lambda line: line.state.step == 0)
        release.kill()
        release.order("rollback", str(release.file), "--reason", "no", "--by", "ada")
        last = release.lines()[-1]
        assert (last.event, last.reason) == ("rolled_back", "ada: no")
        deadline = time.monotonic() + PATIENCE
        while Supervised(release.layout).service("candidate") is not None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        saw = seen()
        assert saw["errors"] == 0, saw


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if MISSING:
        pytest.skip(f"missing: {', '.join(MISSING)}")
    with Server(tmp_path / "server") as running:
        yield running


def test_an_mlflow_server_that_is_killed_under_load(
    tmp_path: Path, made: tuple[Path, Path], server: Server
) -> None:
    """The ramp waits where the alias has to move, whoever drives it then; users do not notice, and the record is whole."""
    with driven(tmp_path, made, {"registry": {"model": "digits", "uri": server.uri}}) as (release, seen):
        release.start()
        release.wait(lambda line: line.state.step == 0)
        server.stop()
        release.wait(lambda line: line.state.phase == "retire")
        _until(release, lambda: "registry: http" in _trouble(release))
        release.kill()
        release.start()
        time.sleep(5)
        assert release.lines()[-1].state.phase == "retire"
        server.start()
        assert release.ended() == 0, release.said()
        saw = seen()
        assert saw["errors"] == 0, saw
        assert _champion(server) == release.lines()[-1].state.candidate.version
        home = tmp_path / "releases" / "registry"
        served = [
            entry
            for entry in open_registry(release.release.registry, home).history.read()
            if entry.event == "serves"
        ]
        phases = {line.event for line in release.lines()} & {"shadow", "step", "bake", "retire", "promoted"}
        assert {entry.reason.split(":")[0] for entry in served} >= phases
        # A change tells the server what it missed; the move of the alias was one.
        tags = named(server.ask("registered-models/get?name=digits")["registered_model"]["tags"])
        assert any("step: " in text for name, text in tags.items() if name.startswith("assay.record."))


def test_an_mlflow_server_that_hangs_holds_up_no_roll_back(
    tmp_path: Path, made: tuple[Path, Path], server: Server
) -> None:
    with driven(tmp_path, made, {"registry": {"model": "digits", "uri": server.uri}}) as (release, seen):
        release.start()
        release.wait(lambda line: line.state.phase == "bake")
        with server.hung():
            release.wait(lambda line: line.state.phase == "retire")
            _until(release, lambda: "registry: " in _trouble(release))
            began = time.monotonic()
            release.order("rollback", str(release.file), "--reason", "no", "--by", "ada")
            release.wait(lambda line: line.event == "rollback")
            assert time.monotonic() - began < 30, "the server's time-outs take longer"
            old = release.lines()[-1].state.stable.version
            _until(release, lambda: Supervised(release.layout).running("stable").version == old)
        assert release.ended() == 3, release.said()
        saw = seen()
        assert saw["errors"] == 0, saw
        assert _champion(server) != release.lines()[-1].state.candidate.version


def _until(release: Driven, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, release.said()
        time.sleep(0.05)


def _trouble(release: Driven) -> str:
    return "; ".join(json.loads(release.layout.state.read_text())["progress"]["trouble"])


def _champion(server: Server) -> str | None:
    """The bundle's version that the alias names, asked of the server itself."""
    model = server.ask("registered-models/get?name=digits")["registered_model"]
    numbers = {one["alias"]: one["version"] for one in model.get("aliases", [])}
    if "champion" not in numbers:
        return None
    version = server.ask(f"model-versions/get?name=digits&version={numbers['champion']}")["model_version"]
    return str(named(version["tags"])["assay.version"])


def _keeps_what_it_ended_with(release: Driven) -> None:
    """With `--stay` what is served is started again, and asking the controller to end leaves it there."""
    release.start("--stay")
    services = Supervised(release.layout)
    before = services.service("stable")
    assert before is not None
    _kill_all(release.layout, "stable")
    deadline = time.monotonic() + PATIENCE
    while not services.running("stable").ready or services.service("stable") == before:
        assert time.monotonic() < deadline, release.said()
        time.sleep(0.1)
    assert release.controller is not None
    release.controller.terminate()
    assert release.ended() == 0, release.said()
    assert services.running("stable").version == release.lines()[-1].state.candidate.version
    assert services.running("candidate").version is None


def _kill_all(layout: Layout, role: str) -> None:
    """Supervisor, master and workers of a role, at once."""
    folder = layout.service(role)
    numbers = []
    for path in [
        folder / "service.json",
        *folder.glob("groups/*/group.json"),
        *folder.glob("groups/*/workers/*.json"),
    ]:
        try:
            said = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        numbers.append(said.get("process", said)["pid"])
    for number in numbers:
        try:
            if "assay" in Path(f"/proc/{number}/cmdline").read_text():
                os.kill(number, signal.SIGKILL)
        except OSError:
            continue
