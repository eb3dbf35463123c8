"""Orders from the command line reach a controller that runs, and stay for one that does not."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from made_world import NEW, OLD, World, controller, release, ticks

from assay.cli import main
from assay.holding import hold
from assay.release.ramp.controller import Controller
from assay.release.ramp.journal import Journal
from assay.release.ramp.parts import Look, PartError
from assay.release.ramp.registry_part import RegistryPart
from assay.release.ramp.start import Options
from assay.release.registry.store import FolderBackend, Place, Registry

FIRST, SECOND = "1" * 16, "2" * 16
"""Versions of a registry."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "releases" / "digits")
    world.look = lambda state: Look("wait", ("not yet",), users=1, requests=1)
    world.layout.folder.mkdir(parents=True)
    world.layout.resolved.write_text(yaml.safe_dump(release().model_dump(mode="json")))
    monkeypatch.chdir(tmp_path)
    return world


@contextmanager
def driven(world: World) -> Iterator[Controller]:
    """A controller that goes round, as `assay release start` has it."""
    built = controller(world)
    built.begin(OLD, NEW, "a test")

    def run() -> None:
        while not built.stopping.is_set():
            world.seconds += 0.3
            built.tick()
            time.sleep(0.005)

    with hold(world.layout.lock):
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield built
        finally:
            built.stopping.set()
            thread.join()


def reach_shadow(built: Controller) -> None:
    """An order that was given in preflight means nothing after it."""
    deadline = time.monotonic() + 120
    while built.state.phase != "shadow":
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_persons_word_is_taken_and_kept(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with driven(world) as built:
        reach_shadow(built)
        assert main(["release", "pause", "digits", "--reason", "lunch", "--by", "ada"]) == 0
        assert "pause (shadow): ada: lunch" in capsys.readouterr().out
        assert main(["release", "resume", "--by", "ada"]) == 0
        assert main(["release", "promote", "digits", "--reason", "seen", "--by", "ada"]) == 0
        assert "step 1 of 4 (1% of users): ada: seen (without waiting" in capsys.readouterr().out
        assert main(["release", "rollback", "digits", "--reason", "no", "--by", "ada"]) == 0
        assert "rolling back: ada: no" in capsys.readouterr().out
        assert world.real is not None
        assert world.real.share == 0
        deadline = time.monotonic() + 120
        while Journal(world.layout).lines()[-1].event != "rolled_back" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert main(["release", "pause", "digits"]) == 2
        assert "digits is rolled back: there is nothing to pause" in capsys.readouterr().err
        assert main(["release", "rollback", "digits"]) == 2
    assert main(["release", "status", "--exit-code"]) == 3


def test_an_order_that_means_nothing_now_is_told_and_fails(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.dead.add("candidate")
    with driven(world):
        assert main(["release", "promote", "digits", "--by", "ada"]) == 2
    assert "ada: promote: nothing to do in phase preflight" in capsys.readouterr().err


def test_without_a_controller_an_order_stays(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with driven(world):
        pass
    assert main(["release", "pause", "digits", "--wait", "0"]) == 1
    assert "no controller runs: start it" in capsys.readouterr().out
    assert len(list(world.layout.orders.glob("*.json"))) == 1
    with driven(world) as built:
        deadline = time.monotonic() + 120
        while not built.state.paused and time.monotonic() < deadline:
            time.sleep(0.01)
        assert built.state.paused


def test_without_a_controller_a_roll_back_is_done_from_here(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with driven(world):
        pass
    monkeypatch.setattr("assay.release.ramp.start.parts_of", lambda *_: (world.parts(), None))
    assert main(["release", "rollback", "digits", "--by", "ada"]) == 0
    assert "rolling back from here" in capsys.readouterr().out
    assert Journal(world.layout).lines()[-1].event == "rolled_back"
    assert world.services == {"stable": "old", "candidate": None}


def test_a_roll_back_does_not_wait_for_a_busy_controller(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    halted = []

    class Front:
        def halt(self) -> None:
            halted.append(len(list(world.layout.orders.glob("*.json"))))

    with driven(world):
        pass
    monkeypatch.setattr("assay.release.routing.front.front_of", lambda *_: Front())
    with hold(world.layout.lock):
        assert main(["release", "rollback", "digits", "--wait", "0"]) == 1
    assert halted == [1], "the order was there before, so that no controller takes the halt back"


def test_two_controllers_are_one_too_many(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[3]
    with driven(world):
        assert main(["release", "start", str(root / "config" / "release" / "digits.yaml")]) == 5
    assert "another controller drives this release (process" in capsys.readouterr().err
    with hold(world.layout.lock):
        assert main(["release", "stop", "digits"]) == 5


def test_start_takes_up_what_was_begun(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with driven(world):
        pass
    monkeypatch.setattr("assay.release.ramp.start.parts_of", lambda *_: (world.parts(), None))
    root = Path(__file__).parents[3]
    world.layout.orders.mkdir(exist_ok=True)
    main(["release", "pause", "digits", "--wait", "0"])
    assert main(["release", "start", str(root / "config" / "release" / "digits.yaml"), "--until-held"]) == 4
    said = capsys.readouterr().out
    assert "the release file was changed since the release began" in said
    assert Options() == Options(until_held=False, stay=False, forced=None)


def test_what_was_recorded_is_not_recorded_twice(world: World, tmp_path: Path) -> None:
    place = Place(tmp_path / "registry" / "digits")
    registry = Registry("digits", str(place.folder), place, FolderBackend(place))
    with driven(world) as built:
        reach_shadow(built)
        assert main(["release", "promote", "digits", "--by", "ada"]) == 0
    for _ in range(2):
        part = RegistryPart(registry, "digits")
        for line in Journal(world.layout).lines():
            part.record(line.number, line.timestamp, line.event, line.reason, line.state)
    entries = registry.history.read()
    assert [(entry.role, entry.share) for entry in entries] == [
        ("candidate", 0.0),
        ("stable", 1.0),
        ("candidate", 0.0),
        ("stable", 1.0),
        ("candidate", 0.01),
        ("stable", 0.99),
    ]
    assert entries[-1].reason.startswith("step: ada: no reason given")


def test_who_is_turned_back_serves_nobody_in_the_record(world: World, tmp_path: Path) -> None:
    place = Place(tmp_path / "registry" / "digits")
    registry = Registry("digits", str(place.folder), place, FolderBackend(place))
    built = controller(world)
    built.begin(OLD, NEW, "a test")
    ticks(world, built, most=3)
    world.look = lambda state: Look("rollback", ("errors",))
    assert ticks(world, built).phase == "rolled_back"
    part = RegistryPart(registry, "digits")
    for line in Journal(world.layout).lines():
        part.record(line.number, line.timestamp, line.event, line.reason, line.state)
    entries = [(entry.role, entry.version, entry.share) for entry in registry.history.read()]
    assert entries[-2:] == [("candidate", "new", None), ("stable", "old", 1.0)]


def test_a_folder_that_cannot_be_written_to_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    content = release().model_dump(mode="json") | {"folder": str(tmp_path / "taken")}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(content))
    assert main(["release", "start", str(tmp_path / "r.yaml")]) == 2
    assert f"{tmp_path / 'taken' / 'digits'}: cannot be written to" in capsys.readouterr().err


class _Hanging(FolderBackend):
    """A registry whose server takes connections and does not answer until it is let go."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.answers = threading.Event()

    def aliases(self) -> dict[str, str]:
        assert self.answers.wait(60)
        return super().aliases()


def test_a_registry_that_hangs_holds_up_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path / "registry" / "digits")
    backend = _Hanging(place)
    registry = Registry("digits", "http://somewhere", place, backend)
    for version in (FIRST, SECOND):
        place.version(version).mkdir(parents=True)
        registry.history.append("registered", version)
    part = RegistryPart(registry, "digits")
    for _ in range(3):
        with pytest.raises(PartError, match="has not answered yet"):
            part.make_champion(FIRST)
    assert [thread.name for thread in threading.enumerate()].count("registry") == 1
    # What is wanted changes meanwhile: the new one is asked for when the old request is over.
    with pytest.raises(PartError, match="has not answered yet"):
        part.make_champion(SECOND)
    backend.answers.set()
    _until_champion(part, SECOND)
    assert backend.aliases() == {"champion": SECOND}
    assert [entry.version for entry in registry.history.read() if entry.event == "alias"] == [FIRST, SECOND]


def test_a_registry_that_refuses_says_why_until_it_takes_it(tmp_path: Path) -> None:
    place = Place(tmp_path / "registry" / "digits")
    registry = Registry("digits", "http://somewhere", place, FolderBackend(place))
    part = RegistryPart(registry, "digits")
    for _ in range(3):
        with pytest.raises(PartError, match="has no version"):
            part.make_champion(SECOND)
            time.sleep(0.1)
    place.version(SECOND).mkdir(parents=True)
    registry.history.append("registered", SECOND)
    _until_champion(part, SECOND)
    registry.backend.move("champion", None)
    part.make_champion(SECOND)  # a server is not asked at each of the controller's looks
    assert registry.aliases() == {}


def _until_champion(part: RegistryPart, version: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return part.make_champion(version)
        except PartError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
