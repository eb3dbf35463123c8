"""The controller is killed before and after everything that it does; another one goes on, and nothing is lost."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from made_world import NEW, OLD, Killed, World, controller, release, through_crashes, ticks

from assay.release.layout import Layout
from assay.release.ramp import orders
from assay.release.ramp.journal import Journal, JournalError, Line
from assay.release.ramp.parts import Look
from assay.release.ramp.state import State

PHASES = ["preflight", "shadow", "step", "step", "step", "step", "bake", "retire", "promoted"]


def entered(world: World) -> list[tuple[str, int | None]]:
    """Phases and steps in the order of the journal, each once."""
    seen: list[tuple[str, int | None]] = []
    for line in Journal(world.layout).lines():
        key = (line.state.phase, line.state.step)
        if not seen or seen[-1] != key:
            seen.append(key)
    return seen


def promoted(world: World, state: State) -> None:
    assert state.phase == "promoted"
    assert [phase for phase, _ in entered(world)] == PHASES
    assert [step for phase, step in entered(world) if phase == "step"] == [0, 1, 2, 3]
    assert world.real is not None
    assert world.real.share == 0
    assert world.services == {"stable": "new", "candidate": None}
    assert world.named == "new"
    lines = Journal(world.layout).lines()
    assert world.records == {line.number: line.event for line in lines}
    assert world.applied[-1] == 0
    grown = [share for share in dict.fromkeys(world.applied) if share > 0]
    assert grown == [0.01, 0.1, 0.5, 1.0]


def rolled_back(world: World, state: State) -> None:
    assert state.phase == "rolled_back"
    assert world.real is not None
    assert (world.real.share, world.real.shadow, world.real.early) == (0, 0, False)
    assert world.services == {"stable": "old", "candidate": None}
    assert world.named == "old"


def at_step(step: int) -> Callable[[State], Look]:
    def look(state: State) -> Look:
        if state.phase == "step" and state.step == step:
            return Look("rollback", ("too many errors",), users=10)
        return Look("go_on", ("as good",), users=10_000, requests=10_000)

    return look


def test_without_a_crash_it_is_promoted(tmp_path: Path) -> None:
    world = World(tmp_path / "r")
    promoted(world, through_crashes(world))
    assert world.passed > 60


@pytest.mark.parametrize("part", range(4))
def test_killed_once_at_any_point_it_is_promoted(tmp_path: Path, part: int) -> None:
    whole = World(tmp_path / "whole")
    through_crashes(whole, seconds=1.1)
    for point in range(1 + part, whole.passed + 1, 4):
        world = World(tmp_path / str(point), kill_at={point})
        promoted(world, through_crashes(world, seconds=1.1))


@pytest.mark.parametrize("step", [0, 3])
def test_killed_once_at_any_point_a_bad_one_is_turned_back(tmp_path: Path, step: int) -> None:
    whole = World(tmp_path / "whole", look=at_step(step))
    through_crashes(whole, seconds=1.1)
    for point in range(1, whole.passed + 1):
        world = World(tmp_path / str(point), kill_at={point}, look=at_step(step))
        rolled_back(world, through_crashes(world, seconds=1.1))
        assert max(world.applied) == [0.01, 0.1, 0.5, 1.0][step]


@pytest.mark.parametrize("seed", range(6))
def test_killed_again_and_again_it_comes_to_the_same(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    points = {point for point in range(1, 3000) if chance.random() < 0.2}
    world = World(tmp_path / "r", kill_at=points, look=at_step(2) if seed % 2 else World.look)
    state = through_crashes(world, seconds=1.1, most=3000)
    (rolled_back if seed % 2 else promoted)(world, state)


def test_an_order_that_a_crash_interrupts_is_taken_once(tmp_path: Path) -> None:
    for point in range(1, 40):
        world = World(tmp_path / str(point))
        built = controller(world)
        built.begin(OLD, NEW, "a test")
        ticks(world, built, most=10)
        assert built.state.phase == "step"
        step = built.state.step
        orders.place(world.layout, "pause", by="ada", reason="lunch", at=None)
        world.kill_at = {world.passed + point}
        try:
            ticks(world, built, most=1)
        except Killed:
            built = controller(world)
            assert built.resume()
        world.kill_at = set()
        ticks(world, built, most=3)
        lines = Journal(world.layout).lines()
        assert [line.event for line in lines].count("pause") == 1
        assert (built.state.paused, built.state.step) == (True, step)
        assert not list(world.layout.orders.glob("*.json"))


def test_the_time_in_a_step_survives_a_crash_and_the_wall_clock_does_not_count(tmp_path: Path) -> None:
    slow = release(ramp={"shadow": {"share": 0}, "steps": [{"share": 1.0, "users": 1, "least_seconds": 100}]})
    world = World(tmp_path / "r")
    built = controller(world, slow)
    built.begin(OLD, NEW, "a test")
    ticks(world, built, most=60, seconds=1.0)
    before = built.progress.elapsed
    assert 50 < before < 62
    assert built.progress.users == 10_000
    again = controller(world, slow)
    world.seconds += 500_000
    assert again.resume()
    assert before - 1.1 <= again.progress.elapsed <= before
    assert again.progress.users == 10_000
    ticks(world, again, most=2, seconds=400_000)
    assert again.progress.elapsed < before + 25, "time in which nobody looked does not count"
    assert again.state.phase == "step"


def test_a_state_that_is_lost_or_damaged_is_made_from_the_journal(tmp_path: Path) -> None:
    for damage in (b"", b"{", b'{"state": 3}', b"\xff"):
        world = World(tmp_path / f"r{len(damage)}")
        built = controller(world)
        built.begin(OLD, NEW, "a test")
        ticks(world, built, most=12)
        world.layout.state.write_bytes(damage)
        again = controller(world)
        assert again.resume()
        assert again.state == built.state
        assert json.loads(world.layout.state.read_text())["state"]["phase"] == built.state.phase


def test_a_cut_line_never_took_effect_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path / "r")
    built = controller(world)
    built.begin(OLD, NEW, "a test")
    ticks(world, built, most=12)
    journal = Journal(Layout(world.folder))
    last = journal.last()
    with world.layout.journal.open("ab") as file:
        file.write(b'{"number": 99, "sta')
    assert journal.last() == last
    assert journal.open() == last
    assert world.layout.journal.read_bytes().endswith(b"}\n")
    content = world.layout.journal.read_text().splitlines()
    world.layout.journal.write_text("\n".join([content[0], "{}", *content[2:]]) + "\n")
    with pytest.raises(JournalError, match=r"journal\.jsonl:2: damaged"):
        journal.open()
    world.layout.journal.write_text("\n".join([content[0], *content[2:]]) + "\n")
    with pytest.raises(JournalError, match="it is numbered 3"):
        journal.open()


def test_what_is_wanted_is_on_the_disk_before_it_is_done(tmp_path: Path, synced: dict[Path, bytes]) -> None:
    world = World(tmp_path / "r")
    built = controller(world)
    for _ in range(2):
        built.begin(OLD, NEW, "a test") if built._last is None else ticks(world, built, most=12)
        assert synced[world.layout.journal] == world.layout.journal.read_bytes()
    assert world.folder in synced


def test_lines_are_whole_in_the_file(tmp_path: Path) -> None:
    world = World(tmp_path / "r")
    through_crashes(world)
    for text in world.layout.journal.read_text().splitlines():
        assert Line.model_validate_json(text).state.release == "digits"
