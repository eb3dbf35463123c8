"""The judge and drift as the controller has them: fed from logs that grow, and taken up by another controller."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_world import NEW, OLD, release

from assay.release.layout import Layout
from assay.release.ramp.drift_part import DriftPart
from assay.release.ramp.judge_part import JudgePart
from assay.release.ramp.processes import Supervised
from assay.release.ramp.state import State, Wanted
from assay.release.routing.split import in_candidate

SALT = "00112233445566778899aabbccddeeff"
ADDRESSES = {"stable": "127.0.0.1:1", "candidate": "127.0.0.1:2"}


class Steady(DriftPart):
    """What drift said, without its logs."""

    said: tuple[str, str] | None = None

    def look(self, state: State) -> tuple[str, str] | None:
        return self.said


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "digits")
    layout.access.parent.mkdir(parents=True)
    layout.salt.write_text(SALT)
    return layout


def line(number: int, share: float = 0.1, route: str = "split", failed: bool = False) -> dict[str, Any]:
    """As a front writes it."""
    user = f"{number:032x}"
    shadow = route == "shadow"
    role = "candidate" if shadow or in_candidate(SALT, user, share) else "stable"
    status = "500" if failed and role == "candidate" else "200"
    return {
        "timestamp": 1000.0 + number * 0.1,
        "request_id": str(number),
        "user": user,
        "assigned": role,
        "route": route,
        "status": int(status),
        "seconds": 0.01,
        "share": share,
        "generation": 1,
        "stable": ADDRESSES["stable"],
        "candidate": ADDRESSES["candidate"],
        "addresses": ADDRESSES[role],
        "statuses": status,
        "times": "0.010",
        "headers": "0.009",
    }


def append(path: Path, *lines: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(one) + "\n" for one in lines)


def part(layout: Layout, said: tuple[str, str] | None = None) -> JudgePart:
    drift = Steady(release(), layout)
    drift.said = said
    return JudgePart(release(), layout, Supervised(layout), drift)


def state(step: int | None = 1) -> State:
    return State(
        release="digits",
        stable=OLD,
        candidate=NEW,
        phase="shadow" if step is None else "step",
        step=step,
        entered=3,
        wanted=Wanted(stable="old", candidate="new", share=0.1),
        reason="",
    )


def test_another_controller_goes_on_where_the_first_one_was(layout: Layout) -> None:
    append(layout.access, *(line(number) for number in range(150)))
    first = part(layout)
    first.look(state())
    assert layout.judge.exists()
    append(layout.access, *(line(number) for number in range(150, 400)))
    append(layout.outcomes, {"timestamp": 1.0, "user": "x", "value": 0.5})
    with layout.outcomes.open("a") as file:
        file.write('no line\n{"half"')
    second = part(layout).look(state())
    layout.judge.unlink()
    whole = part(layout).look(state())
    assert second == whole
    assert second.decision == "wait"
    assert second.users == sum(in_candidate(SALT, f"{number:032x}", 0.1) for number in range(400))


def test_a_memory_that_is_damaged_is_made_from_the_logs(layout: Layout) -> None:
    append(layout.access, *(line(number) for number in range(300)))
    expected = part(layout).look(state())
    layout.judge.write_bytes(b'{"half"')
    assert part(layout).look(state()) == expected


def test_errors_of_users_and_of_copies_turn_back(layout: Layout) -> None:
    append(layout.access, *(line(number, failed=True) for number in range(400)))
    found = part(layout).look(state())
    assert found.decision == "rollback"
    assert "error" in found.reasons[0]
    other = Layout(layout.folder.parent / "other")
    other.access.parent.mkdir(parents=True)
    other.salt.write_text(SALT)
    append(other.shadow_log, *(line(number, route="shadow") for number in range(20)))
    assert part(other).look(state(None)).decision == "go_on"
    append(other.shadow_log, *(line(number, route="shadow", failed=True) for number in range(20, 80)))
    assert part(other).look(state(None)).decision == "rollback", "nobody has seen it, and nobody will"


def test_drift_does_what_the_file_says(layout: Layout) -> None:
    append(layout.access, *(line(number) for number in range(50)))
    assert part(layout, ("warn", "PSI 0.3")).look(state()).decision == "wait"
    found = part(layout, ("rollback", "PSI 0.3")).look(state())
    assert (found.decision, found.reasons) == ("rollback", ("drift: PSI 0.3",))
    found = part(layout, ("pause", "PSI 0.3")).look(state())
    assert (found.decision, found.pause) == ("wait", "drift: PSI 0.3")
