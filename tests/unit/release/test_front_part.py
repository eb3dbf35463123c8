"""The front as the controller has it, without one: what it takes for done, and files that are damaged."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from made_world import release

from assay.release.layout import Layout
from assay.release.observations import Role
from assay.release.ramp.front_part import FrontPart
from assay.release.ramp.identity import Identity
from assay.release.ramp.processes import Supervised, version_of
from assay.release.ramp.state import Wanted
from assay.release.routing.front import Standing
from assay.release.routing.plan import Plan
from assay.release.routing.shadower import Shadower


@dataclass
class Fake:
    """Does what it is told, and writes its plan as a front does."""

    folder: Path
    plan: Plan | None = None

    def active(self) -> int | None:
        return None if self.plan is None else self.plan.generation

    def owns(self, generation: int) -> bool:
        return True

    def confirm(self) -> Standing | None:
        return None if self.plan is None else Standing(self.plan.generation, self.plan.share, False, 1)

    def start(self, plan: Plan) -> None:
        self.plan = plan
        self.written.parent.mkdir(parents=True, exist_ok=True)
        self.written.write_text(json.dumps(plan.__dict__))

    def rotate(self, size: int, keep: int) -> None:
        """It has no log."""

    @property
    def written(self) -> Path:
        assert self.plan is not None
        return self.folder / "generations" / str(self.plan.generation) / "plan.json"


@dataclass
class Addresses(Supervised):
    """Of versions that run."""

    known: dict[Role, str | None] = field(default_factory=dict)

    def address(self, role: Role) -> str | None:
        return self.known[role]


class Identified(Identity):
    """Runs, and where."""

    where = "127.0.0.1:3"

    @property
    def address(self) -> str | None:
        return self.where

    def ensure(self) -> None:
        """It does."""


class Running(Shadower):
    """A process that is there."""

    def running(self) -> int | None:
        return 1

    def stop(self) -> None:
        """It stays."""


@pytest.fixture
def part(tmp_path: Path) -> FrontPart:
    layout = Layout(tmp_path / "r")
    layout.shadow.parent.mkdir(parents=True)
    made = release()
    services = Addresses(layout, known={"stable": "127.0.0.1:1", "candidate": "127.0.0.1:2"})
    front = Fake(layout.front)
    return FrontPart(made, front, services, Identified(made, layout), Running(layout))  # type: ignore[arg-type]


WANTED = Wanted(stable="old", candidate="new", share=0.1)


def current(part: FrontPart) -> bool:
    real = part.real()
    assert real is not None
    return real.current


@pytest.mark.parametrize("what", ["stable", "candidate", "identity"])
def test_a_front_that_sends_where_nobody_is_any_more_is_not_as_wanted(part: FrontPart, what: str) -> None:
    part.apply(WANTED, 1)
    assert current(part)
    services = part.services
    assert isinstance(services, Addresses)
    if what == "identity":
        part.identity.where = "127.0.0.1:33"  # type: ignore[attr-defined]
    else:
        services.known[what] = "127.0.0.1:22"  # type: ignore[index]
    assert not current(part)
    part.apply(WANTED, 1)
    assert current(part) and part.front.active() == 2
    part.apply(WANTED, 1)
    assert part.front.active() == 2, "what is as wanted is left alone"
    if what != "identity":
        services.known[what] = None  # type: ignore[index]
        assert current(part), "what is gone for a moment comes back where it was"


@pytest.mark.parametrize("content", ["[]", "null", '"text"', "3", "{"])
def test_a_file_that_is_damaged_is_one_that_is_not_there(part: FrontPart, content: str) -> None:
    part.apply(WANTED, 1)
    front = part.front
    assert isinstance(front, Fake)
    front.written.write_text(content)
    part.services.layout.shadow.write_text(content)
    assert not current(part)
    assert part._shadow() == 0.0
    part.apply(WANTED, 1)
    assert current(part) and front.active() == 2
    (part.services.layout.folder / "bundle.json").write_text(content)
    assert version_of(part.services.layout.folder) is None
