"""The controller on a disk that is really full (a small one of memory): it holds, can turn back, and goes on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from made_world import NEW, OLD, World, controller, release, ticks

from assay.holding import hold
from assay.release.ramp import orders
from assay.release.ramp.controller import Controller
from assay.release.ramp.journal import Journal, line
from assay.release.ramp.parts import Look
from assay.release.ramp.room import is_full
from assay.release.ramp.state import State
from assay.release.ramp.status import Standing

WELL = Look("wait", ("too few users",), users=1)


def well(state: State) -> Look:
    return WELL


def bad(state: State) -> Look:
    return Look("rollback", ("too many errors",))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("a small disk can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def world(disk: Path) -> World:
    """In its first step, undecided."""
    world = World(disk / "r", look=well)
    built = controller(world)
    built.begin(OLD, NEW, "a test")
    world.look = World.look
    while built.state.phase != "step":
        ticks(world, built, most=1)
    world.look = well
    ticks(world, built, most=5)
    world.layout.resolved.write_text(yaml.safe_dump(release().model_dump(mode="json")))
    return world


def taken_up(world: World) -> Controller:
    built = controller(world)
    assert built.resume()
    ticks(world, built, most=5)
    return built


def fill(world: World) -> Path:
    ballast = world.folder.parent / "ballast"
    with ballast.open("ab", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 4096)
            except OSError as error:
                assert is_full(error)
                return ballast


def share(world: World) -> float:
    assert world.real is not None
    return world.real.share


def test_the_share_is_held_and_it_goes_on_where_there_is_room_again(world: World) -> None:
    built = taken_up(world)
    with hold(world.layout.lock):
        assert not Standing(world.layout).no_room
        before = built.progress.elapsed
        ballast = fill(world)
        world.look = World.look
        ticks(world, built, most=50)
        assert built.state.phase == "step" and share(world) == 0.01
        assert built.progress.elapsed <= before + 1.5, "what nobody could write down does not count"
        told = Standing(world.layout)
        assert told.no_room and "no room on the disk" in told.text() and told.as_dict()["no_room"] is True
        ballast.unlink()
        ticks(world, built, most=3)
        assert not Standing(world.layout).no_room
    assert ticks(world, built).phase == "promoted"
    reasons = [one.reason for one in Journal(world.layout).lines() if one.event == "warning"]
    assert len(reasons) == 1 and reasons[0].startswith("disk: it was full for ")


def test_the_next_controller_does_not_tell_again_that_the_disk_was_full(world: World) -> None:
    built = taken_up(world)
    for _ in range(2):
        ballast = fill(world)
        ticks(world, built, most=20)
        assert not world.layout.room.exists()
        ballast.unlink()
        ticks(world, built, most=20)
        assert world.layout.room.exists()
        built = taken_up(world)
    assert [one.event for one in Journal(world.layout).lines()].count("warning") == 1


def test_a_bad_candidate_is_turned_back_at_once_and_written_down_later(world: World) -> None:
    built = taken_up(world)
    ballast = fill(world)
    ticks(world, built, most=10)
    assert not world.layout.room.exists() and share(world) == 0.01
    world.look = bad
    ticks(world, built, most=1)
    assert share(world) == 0 and world.halted
    # What was decided stays so, whatever is seen later.
    world.look = World.look
    ticks(world, built, most=20)
    assert share(world) == 0
    ballast.unlink()
    assert ticks(world, built).phase == "rolled_back"
    [back] = [one for one in Journal(world.layout).lines() if one.event == "rollback"]
    assert back.reason == "too many errors" and max(world.applied[-2:]) <= 0.01 and share(world) == 0


def test_a_halted_front_is_told(world: World) -> None:
    active = world.layout.front / "active"
    active.mkdir(parents=True)
    (active / "go").touch()
    assert not Standing(world.layout).halted
    (active / "go").unlink()
    told = Standing(world.layout)
    assert told.halted and "halted: everyone has the stable version" in told.text()


def test_a_person_turns_back_on_a_full_disk(world: World) -> None:
    built = taken_up(world)
    ballast = fill(world)
    ticks(world, built, most=10)
    name = orders.place(world.layout, "rollback", by="ada", reason="no", at=None)
    assert (world.layout.orders / f"{name}.json").read_bytes() == b""
    with pytest.raises(OSError, match="No space left"):
        orders.place(world.layout, "pause", by="ada", reason="no", at=None)
    ticks(world, built, most=1)
    assert share(world) == 0
    ballast.unlink()
    assert ticks(world, built).phase == "rolled_back"
    [back] = [one for one in Journal(world.layout).lines() if one.event == "rollback"]
    assert back.by == "a person" and name in back.state.taken
    assert not list(world.layout.orders.iterdir())


@pytest.mark.parametrize("room_first", [False, True])
def test_the_next_controller_knows_that_it_was_turned_back(world: World, room_first: bool) -> None:
    built = taken_up(world)
    ballast = fill(world)
    world.look = bad
    ticks(world, built, most=10)
    assert share(world) == 0
    world.look = World.look
    if room_first:
        ballast.unlink()
    built = controller(world)
    assert built.resume()
    ticks(world, built, most=10)
    assert share(world) == 0
    ballast.unlink(missing_ok=True)
    assert ticks(world, built).phase == "rolled_back"
    assert max(world.applied) == 0.01


def test_a_line_for_which_there_is_no_room_leaves_nothing(world: World) -> None:
    journal = Journal(world.layout)
    last = journal.last()
    assert last is not None
    ballast = fill(world)
    before = world.layout.journal.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        journal.append(line(last.number + 1, "warning", "x" * 8192, "ramp", last.state))
    assert world.layout.journal.read_bytes() == before
    ballast.unlink()
    journal.append(line(last.number + 1, "warning", "x" * 8192, "ramp", last.state))
    assert len(journal.lines()) == last.number + 1


def test_the_lock_is_held_without_room_for_its_holder_s_name(world: World) -> None:
    fill(world)
    other = world.folder / "other.lock"
    with hold(other), pytest.raises(RuntimeError):
        hold(other)
