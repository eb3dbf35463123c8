"""What the ramp does with what it sees: goes on, holds, turns back; and a person's word."""

import errno
from pathlib import Path
from typing import Any

import pytest
from made_world import NEW, OLD, World, controller, release, ticks

from assay.release.ramp import orders
from assay.release.ramp.controller import BLIND_SECONDS, Controller
from assay.release.ramp.journal import Journal
from assay.release.ramp.orders import Order
from assay.release.ramp.parts import Look, Real, Running
from assay.release.ramp.room import is_full
from assay.release.ramp.state import State
from assay.release.schema import Release

WAIT = Look("wait", ("latency: not yet",), users=10_000, requests=10_000, seconds_to_decide=240.0)


def begun(world: World, made: Release | None = None) -> Controller:
    built = controller(world, made)
    built.begin(OLD, NEW, "a test")
    return built


def until(world: World, built: Controller, phase: str, step: int | None = None) -> None:
    for _ in range(400):
        ticks(world, built, most=1)
        if (built.state.phase, built.state.step) == (phase, step):
            return
    raise AssertionError(f"stays in {built.state.phase}, step {built.state.step}: {built.progress}")


def order(world: World, what: Order, at: int | None = None) -> None:
    orders.place(world.layout, what, by="ada", reason="because", at=at)


def events(world: World) -> list[str]:
    return [line.event for line in Journal(world.layout).lines()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "r")


def test_inconclusive_holds_after_its_time_and_never_promotes(world: World) -> None:
    made = release(
        ramp={"steps": [{"share": 0.5, "users": 1, "least_seconds": 1, "most_seconds": 20}, {"share": 1.0}]}
    )
    world.look = lambda state: WAIT if state.phase == "step" else Look("go_on", users=9, requests=900)
    built = begun(world, made)
    until(world, built, "step", 0)
    ticks(world, built, most=400)
    assert (built.state.phase, built.state.step) == ("step", 0)
    assert built.state.held is not None
    assert built.state.held.startswith("undecided after 20 s: latency: not yet")
    assert built.progress.seconds_to_decide == 240.0
    assert events(world).count("hold") == 1
    order(world, "resume")
    ticks(world, built, most=20)
    assert built.state.held is None
    ticks(world, built, most=400)
    assert "undecided after 40 s" in str(built.state.held), "a person gave it its time once more"
    order(world, "promote")
    ticks(world, built, most=1)
    assert (built.state.phase, built.state.step) == ("step", 1)
    last = Journal(world.layout).lines()[-1]
    assert (last.by, last.reason) == ("ada", "ada: because (without waiting for the judge)")


def test_time_that_a_person_gave_a_step_is_not_the_next_one_s(world: World) -> None:
    step = {"users": 1, "least_seconds": 1, "most_seconds": 20}
    made = release(ramp={"shadow": {"share": 0}, "steps": [{"share": 0.5, **step}, {"share": 1.0, **step}]})
    world.look = lambda state: WAIT
    built = begun(world, made)
    until(world, built, "step", 0)
    ticks(world, built, most=100)
    order(world, "resume")
    ticks(world, built, most=1)
    order(world, "promote")
    until(world, built, "step", 1)
    ticks(world, built, most=100)
    assert str(built.state.held).startswith("undecided after 20 s")


def test_a_promotion_goes_round_no_preflight(world: World) -> None:
    world.findings = ["golden outputs differ by 3.2"]
    built = begun(world, release(ramp={"shadow": {"share": 0}, "steps": [{"share": 1.0}]}))
    order(world, "promote")
    ticks(world, built, most=1)
    assert events(world)[:2] == ["preflight", "ignored"]
    assert ticks(world, built).phase == "rolled_back"
    assert max(world.applied, default=0) == 0


@pytest.mark.parametrize("real", [Real(0.0, 1.0, early=False), Real(0.0, 0.0, early=True)])
def test_who_has_or_sees_the_candidate_too_early_does_not_while_something_is_amiss(
    world: World, real: Real
) -> None:
    """A version that is down holds up what exposes more, and not what exposes less."""
    world.dead.add("stable")
    world.real = real
    built = begun(world)
    ticks(world, built, most=1)
    assert world.real == Real(0.0, 0.0, early=False)


def test_each_phase_lasts_its_time(world: World) -> None:
    steps = [{"share": share, "users": 1, "least_seconds": 5} for share in (0.5, 1.0)]
    shadow = {"share": 1.0, "requests": 1, "least_seconds": 4}
    built = begun(world, release(ramp={"shadow": shadow, "steps": steps, "bake_seconds": 7}))
    until(world, built, "shadow")
    lasted, began = [], world.seconds
    for phase, step in (("step", 0), ("step", 1), ("bake", None), ("retire", None)):
        until(world, built, phase, step)
        lasted.append(world.seconds - began)
        began = world.seconds
    for seconds, least in zip(lasted, (4, 5, 5, 7), strict=True):
        assert least - 0.01 <= seconds < least + 1, lasted


def test_a_shadow_that_stays_undecided_is_held(world: World) -> None:
    shadow = {"share": 1.0, "requests": 5, "least_seconds": 1, "most_seconds": 20}
    world.look = lambda state: Look("go_on", requests=4)
    built = begun(world, release(ramp={"shadow": shadow, "steps": [{"share": 1.0}]}))
    ticks(world, built, most=100)
    assert built.state.phase == "shadow"
    assert str(built.state.held).startswith("undecided after 20 s: 4 of 5 copies answered")


def test_while_the_stable_version_is_down_the_ramp_waits(world: World) -> None:
    """Who would answer for the candidate?"""
    built = begun(world)
    until(world, built, "step", 0)
    world.dead.add("stable")
    ticks(world, built, most=100)
    assert (built.state.step, built.progress.trouble) == (0, ["stable: down"])
    assert built.progress.elapsed < 1
    world.dead.clear()
    assert ticks(world, built).phase == "promoted"


def test_what_is_kept_warm_ends_when_nobody_is_sent_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = begun(world)
    seen = []
    monkeypatch.setattr(built.parts.services, "retire", lambda: seen.append(built.state.phase))
    ticks(world, built)
    assert set(seen) == {"promoted"}


def test_a_front_that_sends_where_nobody_is_any_more_is_told_anew(world: World) -> None:
    built = begun(world)
    until(world, built, "step", 1)
    world.real = Real(0.1, 0.0, early=True, current=False)
    ticks(world, built, most=1)
    assert world.real == Real(0.1, 0.0, early=True)


def test_another_version_in_the_candidate_s_place_is_no_candidate(world: World) -> None:
    built = begun(world)
    until(world, built, "step", 1)
    world.broken["candidate"] = "cannot be swapped"
    world.services["candidate"] = "other"
    until(world, built, "rolling_back")
    assert "has been down or not ready for 2" in built.state.reason


def test_a_candidate_that_cannot_be_served_is_turned_back_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It need not be waited for: it has ended by itself, and said why."""
    built = begun(world)
    refused = Running(None, ready=False, detail="ended: no such model", refused=True)
    running = built.parts.services.running
    monkeypatch.setattr(
        built.parts.services, "running", lambda role: refused if role == "candidate" else running(role)
    )
    ticks(world, built, most=1)
    assert built.state.phase == "rolling_back" and "ended: no such model" in built.state.reason


@pytest.mark.parametrize("have", [None, 0, 9])
def test_too_few_users_are_no_reason_to_go_on(world: World, have: int | None) -> None:
    world.look = lambda state: Look("go_on", users=have, requests=10_000)
    built = begun(world)
    until(world, built, "step", 0)
    ticks(world, built, most=300)
    assert (built.state.phase, built.state.step) == ("step", 0)


def test_too_few_copies_are_no_reason_for_the_first_user(world: World) -> None:
    world.look = lambda state: Look("go_on", users=10_000, requests=4)
    built = begun(world)
    ticks(world, built, most=300)
    assert built.state.phase == "shadow"
    assert set(world.applied) == {0.0}


@pytest.mark.parametrize(("phase", "step"), [("shadow", None), ("step", 0), ("step", 3), ("bake", None)])
def test_the_judge_turns_back_from_anywhere(world: World, phase: str, step: int | None) -> None:
    built = begun(world)
    until(world, built, phase, step)
    world.look = lambda state: Look("rollback", ("errors: 5% against 0.1%",), users=10)
    ticks(world, built, most=1)
    assert built.state.phase == "rolling_back"
    ticks(world, built, most=1)
    assert world.real == Real(0.0, 0.0, early=False)
    assert ticks(world, built).phase == "rolled_back"
    assert built.state.reason == "errors: 5% against 0.1%"
    assert world.services == {"stable": "old", "candidate": None}


@pytest.mark.parametrize(
    ("phase", "step"),
    [
        ("preflight", None),
        ("shadow", None),
        ("step", 1),
        ("bake", None),
        ("retire", None),
        ("promoted", None),
    ],
)
def test_a_person_turns_back_from_anywhere(world: World, phase: str, step: int | None) -> None:
    built = begun(world)
    if phase != "preflight":
        until(world, built, phase, step)
    order(world, "promote")
    order(world, "pause")
    order(world, "rollback")
    ticks(world, built, most=1)
    assert built.state.phase in ("rolling_back", "rolled_back")
    assert ticks(world, built).phase == "rolled_back"
    assert (world.services, world.named) == ({"stable": "old", "candidate": None}, "old")
    assert world.real == Real(0.0, 0.0, early=False)
    assert not list(world.layout.orders.glob("*.json"))


def test_a_pause_stops_steps_but_not_guards(world: World) -> None:
    built = begun(world)
    until(world, built, "step", 1)
    order(world, "pause")
    ticks(world, built, most=300)
    assert (built.state.phase, built.state.step, built.state.paused) == ("step", 1, True)
    order(world, "resume")
    until(world, built, "step", 2)
    order(world, "pause")
    ticks(world, built, most=3)
    world.look = lambda state: Look("rollback", ("down",))
    assert ticks(world, built).phase == "rolled_back"


def test_a_promotion_counts_for_the_step_that_the_person_saw(world: World) -> None:
    world.look = lambda state: WAIT
    built = begun(world)
    until(world, built, "shadow")
    seen = built.number
    order(world, "promote", at=seen)
    order(world, "promote", at=seen)
    ticks(world, built, most=3)
    assert (built.state.phase, built.state.step) == ("step", 0)
    assert events(world)[-1] == "ignored"


def test_a_candidate_that_is_down_is_turned_back_in_seconds(world: World) -> None:
    built = begun(world)
    until(world, built, "step", 1)
    world.dead.add("candidate")
    began = world.seconds
    until(world, built, "rolling_back")
    assert 2 <= world.seconds - began < 3
    assert "not ready for 2" in built.state.reason


def test_a_candidate_that_was_away_for_a_moment_is_not(world: World) -> None:
    built = begun(world)
    until(world, built, "step", 1)
    for _ in range(5):
        world.dead.add("candidate")
        ticks(world, built, most=5)
        world.dead.clear()
        ticks(world, built, most=1)
    assert built.state.phase == "step"


def test_a_candidate_that_never_comes_is_turned_back(world: World) -> None:
    world.dead.add("candidate")
    built = begun(world)
    assert ticks(world, built, seconds=20).phase == "rolled_back"
    assert max(world.applied, default=0) == 0


def test_findings_before_the_first_user_turn_back(world: World) -> None:
    world.findings = ["golden outputs differ by 3.2"]
    built = begun(world)
    assert ticks(world, built).phase == "rolled_back"
    assert built.state.reason == "preflight: golden outputs differ by 3.2"


def test_nobody_has_the_candidate_before_the_earlier_release_has_ended(world: World) -> None:
    world.real = Real(0.0, 0.0, early=False, waits="release last still answers what it has")
    built = begun(world)
    assert ticks(world, built, most=20).phase == "preflight"
    assert built.progress.trouble == ["front: release last still answers what it has"]
    world.real = Real(0.0, 0.0, early=False)
    assert ticks(world, built).phase == "promoted"


def test_one_that_takes_over_has_no_users_in_the_record_before_the_front_is_its_own(world: World) -> None:
    world.real, world.broken = None, {"front": "release last still has it"}
    built = controller(world)
    built.begin(OLD, NEW, "a test", "last")
    ticks(world, built, most=5)
    assert world.records == {} and built.state.predecessor == "last"
    world.broken = {}
    ticks(world, built)
    assert list(world.records)[:1] == [1] and built.state.phase == "promoted"


def test_a_judge_that_fails_never_promotes_and_is_not_trusted_for_long(world: World) -> None:
    def look(state: State) -> Look:
        raise ZeroDivisionError("a bug")

    built = begun(world)
    until(world, built, "step", 0)
    world.look = look
    began = world.seconds
    until(world, built, "rolling_back")
    assert BLIND_SECONDS <= world.seconds - began < BLIND_SECONDS + 2
    assert events(world).count("warning") == 1
    assert "a bug; nobody has looked for 60 s" in built.state.reason


def test_a_front_that_does_not_obey_stops_the_ramp_and_is_asked_again(world: World) -> None:
    built = begun(world)
    until(world, built, "step", 0)
    until(world, built, "step", 1)
    world.broken["front"] = "nginx -t: no"
    world.real = Real(0.01, 0.0, early=True)
    ticks(world, built, most=100)
    assert (built.state.phase, built.state.step) == ("step", 1)
    assert built.progress.elapsed < 1
    assert any("nginx -t: no" in text for text in built.progress.trouble)
    assert events(world).count("warning") >= 1
    del world.broken["front"]
    assert ticks(world, built).phase == "promoted"


def test_a_registry_that_does_not_answer_holds_the_alias_back_and_no_user(world: World) -> None:
    built = begun(world)
    until(world, built, "bake")
    world.broken["registry"] = "no server there"
    until(world, built, "retire")
    ticks(world, built, most=50)
    assert built.state.phase == "retire" and world.named == "old"
    assert world.real == Real(1.0, 0.0, early=True) and world.services["stable"] == "new"
    assert "registry: no server there" in built.progress.trouble
    del world.broken["registry"]
    assert ticks(world, built).phase == "promoted" and world.named == "new"


def test_a_record_that_cannot_be_written_holds_the_ramp_and_no_roll_back(world: World) -> None:
    built = begun(world)
    until(world, built, "step", 0)
    world.broken["record"] = "read-only"
    ticks(world, built, most=100)
    assert built.state.step == 0 and "registry: read-only" in built.progress.trouble
    order(world, "rollback")
    ticks(world, built, most=2)
    assert world.real == Real(0.0, 0.0, early=False)


def test_a_front_that_someone_changed_is_brought_back(world: World) -> None:
    built = begun(world)
    until(world, built, "step", 1)
    world.real = Real(0.9, 0.0, early=True)
    ticks(world, built, most=1)
    assert world.real.share in (0.1, 0.5)
    world.real = None
    world.look = lambda state: Look("rollback", ("x",))
    ticks(world, built, most=3)
    assert world.real is not None
    assert world.real.share == 0


def test_a_warning_is_told_once_and_a_pause_of_the_judge_holds(world: World) -> None:
    values = iter(range(1000))
    world.look = lambda state: Look("wait", warnings=(f"PSI 0.{next(values)} of feature 3",), requests=0)
    built = begun(world)
    ticks(world, built, most=30)
    assert events(world).count("warning") == 1
    again = controller(world)
    assert again.resume()
    ticks(world, again, most=30)
    assert events(world).count("warning") == 1
    world.look = lambda state: Look("wait", pause="predictions drift")
    ticks(world, again, most=2)
    assert again.state.held == "predictions drift"
    order(world, "resume")
    ticks(world, again, most=5)
    assert again.state.held is None, "a person has answered it"
    world.look = lambda state: Look("wait", pause="predictions drift more")
    ticks(world, again, most=2)
    assert again.state.held == "predictions drift more"


def test_orders_that_are_none_are_put_aside(world: World) -> None:
    built = begun(world)
    world.layout.orders.mkdir(parents=True)
    for name, content in (("a", b""), ("b", b"{"), ("c", b'{"order": "explode"}'), ("d", b"\xff")):
        (world.layout.orders / f"{name}.json").write_bytes(content)
    ticks(world, built, most=2)
    assert sorted(path.name for path in world.layout.orders.iterdir()) == [
        f"{name}.refused" for name in "abcd"
    ]
    assert built.state.phase in ("preflight", "shadow")


@pytest.mark.parametrize("changes", [{"shadow": {"share": 0.0}}, {"shadow": {"requests": 0}}])
def test_without_a_shadow_steps_follow_preflight(world: World, changes: dict[str, Any]) -> None:
    built = begun(world, release(ramp={"steps": [{"share": 1.0, "users": 1, "least_seconds": 1}], **changes}))
    until(world, built, "step", 0)
    assert {line.state.phase for line in Journal(world.layout).lines()} == {"preflight", "step"}


def test_every_line_is_told_in_order(world: World) -> None:
    told: list[int] = []
    built = begun(world)
    built.told = lambda line: told.append(line.number)
    ticks(world, built)
    assert told == list(range(2, built.number + 1))


def test_a_front_that_dies_while_a_version_is_swapped_is_started(world: World) -> None:
    built = begun(world)
    until(world, built, "bake")
    world.broken["stable"] = "loads still"
    until(world, built, "retire")
    world.real = None
    ticks(world, built, most=1)
    assert world.real == Real(1.0, 0.0, early=True)
    assert any("stable: serves old still" in text for text in built.progress.trouble)
    del world.broken["stable"]
    assert ticks(world, built).phase == "promoted"


def test_a_release_is_not_over_before_its_candidate_has_ended(world: World) -> None:
    built = begun(world)
    until(world, built, "step", 0)
    order(world, "rollback")
    world.broken["stop"] = "it answers still"
    ticks(world, built, most=5)
    assert world.real == Real(0.0, 0.0, early=False)
    assert not built.tick()
    del world.broken["stop"]
    assert ticks(world, built, most=3).phase == "rolled_back"
    assert built.tick()
    assert world.services["candidate"] is None


def test_a_release_is_not_over_while_its_candidate_answers_what_it_has(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = begun(world)
    until(world, built, "step", 0)
    order(world, "rollback")
    with monkeypatch.context() as patch:
        patch.setattr(built.parts.services, "stop", lambda role: None)
        assert ticks(world, built, most=10).phase == "rolled_back"
        assert not built.tick()
    ticks(world, built, most=2)
    assert built.tick() and world.services["candidate"] is None


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)]
)
def test_a_quota_that_is_used_up_is_a_full_disk(number: int, expected: bool) -> None:
    assert is_full(OSError(number, "")) is expected
