"""Front, services, registry and judge in memory, which can end the controller before and after whatever it does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from assay.release.layout import Layout
from assay.release.load import EXAMPLE, from_mapping
from assay.release.observations import Role
from assay.release.ramp.controller import Controller
from assay.release.ramp.journal import Journal, Line
from assay.release.ramp.parts import Look, PartError, Parts, Real, Running
from assay.release.ramp.state import State, Version, Wanted
from assay.release.schema import Release

ROOT = Path(__file__).parents[3]
OLD = Version(version="old", folder="bundles/old")
NEW = Version(version="new", folder="bundles/new")


class Killed(BaseException):
    """The controller ends here, as by `kill -9`: nothing of its own cleans up."""


@dataclass
class World:
    """What goes on being there when the controller is gone.

    kill_at: the number of the boundary at which it is killed; boundaries are counted in `passed`.
    """

    folder: Path
    kill_at: set[int] = field(default_factory=set)
    passed: int = 0
    real: Real | None = field(default_factory=lambda: Real(0.0, 0.0, early=False))
    services: dict[Role, str | None] = field(default_factory=lambda: {"stable": "old", "candidate": None})
    dead: set[Role] = field(default_factory=set)
    named: str = "old"
    records: dict[int, str] = field(default_factory=dict)
    applied: list[float] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    look: Callable[[State], Look] = lambda state: Look("go_on", ("as good",), users=10_000, requests=10_000)
    seconds: float = 0.0
    halted: bool = False
    findings: list[str] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        return Layout(self.folder)

    def boundary(self) -> None:
        self.passed += 1
        if self.passed in self.kill_at:
            raise Killed

    def effect(self, what: str, act: Callable[[], None]) -> None:
        self.boundary()
        if what in self.broken:
            raise PartError(self.broken[what])
        act()
        self.check()
        self.boundary()

    def check(self) -> None:
        """No user has the candidate without a line in the journal that says so."""
        last = Journal(self.layout).last()
        if self.real is not None:
            assert last is not None
            assert self.real.share <= max(last.state.wanted.share, 0.0)

    def parts(self) -> Parts:
        return Parts(_Front(self), _Services(self), _Registry(self), _Judge(self))


@dataclass
class _Front:
    world: World

    def real(self) -> Real | None:
        return self.world.real

    def apply(self, wanted: Wanted, number: int) -> None:
        def act() -> None:
            last = Journal(self.world.layout).last()
            assert last is not None
            assert number == last.number
            assert wanted.share == 0 or self.world.services["candidate"] is not None
            self.world.real = Real(wanted.share, wanted.shadow, wanted.early)
            self.world.halted = False
            self.world.applied.append(wanted.share)

        self.world.effect("front", act)

    def halt(self) -> None:
        self.world.halted = True
        if self.world.real is not None:
            self.world.real = Real(0.0, self.world.real.shadow, early=False)

    def halted(self) -> bool:
        return self.world.halted


@dataclass
class _Services:
    world: World

    def running(self, role: Role) -> Running:
        version = None if role in self.world.dead else self.world.services[role]
        return Running(version, ready=version is not None, detail="" if version else "down")

    def serve(self, role: Role, version: Version) -> None:
        self.world.effect(role, lambda: self.world.services.update({role: version.version}))

    def stop(self, role: Role) -> None:
        def act() -> None:
            assert role == "candidate"
            assert self.world.real is not None
            assert self.world.real.share == 0, "users were still sent there"
            self.world.services[role] = None

        self.world.effect("stop", act)

    def retire(self) -> None:
        self.world.effect("retire", lambda: None)


@dataclass
class _Registry:
    world: World

    def make_champion(self, version: str) -> None:
        if self.world.named == version:
            return

        def act() -> None:
            assert self.world.services["stable"] == version, "the alias names what is not served"
            self.world.named = version

        self.world.effect("registry", act)

    def record(self, number: int, timestamp: str, event: str, reason: str, state: State) -> None:
        self.world.effect("record", lambda: self.world.records.update({number: event}))


@dataclass
class _Judge:
    world: World

    def look(self, state: State) -> Look:
        return self.world.look(state)


class KilledJournal(Journal):
    """Written in two parts, with an end possible before, between and after."""

    world: World

    def append(self, line: Line) -> None:
        self.world.boundary()
        try:
            self.world.boundary()
        except Killed:
            self.layout.folder.mkdir(parents=True, exist_ok=True)
            with self.layout.journal.open("ab") as file:
                file.write(line.model_dump_json().encode()[:40])
            raise
        super().append(line)
        self.world.boundary()

    def write_state(self, *given: Any) -> None:
        self.world.boundary()
        super().write_state(*given)
        self.world.boundary()


def release(**changes: Any) -> Release:
    """The example with times that a test can wait for."""
    content = yaml.safe_load((ROOT / EXAMPLE).read_text())
    steps = [{"share": share, "users": 10, "least_seconds": 1} for share in (0.01, 0.1, 0.5, 1.0)]
    shadow = {"share": 1.0, "requests": 5, "least_seconds": 1}
    content["ramp"] = {"shadow": shadow, "steps": steps, "bake_seconds": 2}
    return from_mapping(content | changes, file="made.yaml")


def controller(world: World, made: Release | None = None) -> Controller:
    """A fresh process's controller over what is there."""
    built = Controller(
        made or release(),
        world.layout,
        world.parts(),
        served=lambda state: world.findings,
        clock=lambda: world.seconds,
    )
    journal = KilledJournal(world.layout)
    journal.world = world
    built.journal = journal
    return built


def ticks(world: World, built: Controller, most: int = 400, seconds: float = 0.3) -> State:
    """As time passes."""
    for _ in range(most):
        world.seconds += seconds
        if built.tick():
            return built.state
    return built.state


def through_crashes(
    world: World, made: Release | None = None, seconds: float = 0.3, most: int = 600
) -> State:
    """Start again after every kill, until the release is over."""
    for _ in range(most):
        try:
            built = controller(world, made)
            built.begin(OLD, NEW, "a test")
            return ticks(world, built, seconds=seconds)
        except Killed:
            continue
    raise AssertionError("killed too often")
