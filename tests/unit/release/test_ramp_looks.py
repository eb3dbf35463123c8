"""The judge and drift as the controller has them: fed from logs that grow, and taken up by another controller."""

import dataclasses
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_world import NEW, OLD, release

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from drift_simulation import lines, made_reference

from assay.release.layout import Layout
from assay.release.ramp import drift_part, judge_part
from assay.release.ramp.drift_part import DriftPart
from assay.release.ramp.judge_part import JudgePart
from assay.release.ramp.processes import Supervised
from assay.release.ramp.state import State, Version, Wanted
from assay.release.routing.split import in_candidate
from assay.release.server.metrics import Metrics

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
    append(layout.outcomes, {"timestamp": 1.0, "user": "x", "value": 2.0})
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


@pytest.mark.parametrize("content", [b'{"half"', b"[]", b'"text"', b"null", b"3", b"\xff"])
def test_a_memory_that_is_damaged_is_told_and_made_from_the_logs(layout: Layout, content: bytes) -> None:
    append(layout.access, *(line(number) for number in range(300)))
    expected = part(layout).look(state())
    assert expected.warnings == ()
    layout.judge.write_bytes(content)
    found = part(layout).look(state())
    (told,) = found.warnings
    assert told.startswith(f"memory: {layout.judge}: damaged (")
    assert dataclasses.replace(found, warnings=()) == expected


def predicted(layout: Layout, count: int, begin: int = 0) -> None:
    """What both versions log of as many users each."""
    rng = np.random.default_rng(begin)
    for role in ("stable", "candidate"):
        folder = layout.predictions(role)
        folder.mkdir(parents=True, exist_ok=True)
        append(folder / "worker-1.jsonl", *lines(count, rng, role=role, begin=begin, most=1))  # type: ignore[arg-type]


@pytest.fixture
def bundled(tmp_path: Path) -> State:
    """With a candidate whose bundle has the reference."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    reference = made_reference(np.random.default_rng(0))
    (folder / "reference.json").write_text(reference.model_dump_json())
    return state().model_copy(update={"candidate": Version(version="new", folder=str(folder))})


def drift_memory(layout: Layout) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(layout.drift.read_bytes())
    return found


def test_another_controller_s_drift_goes_on_where_the_first_one_was(
    layout: Layout, bundled: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_part, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(drift_part, "KEPT_SECONDS", 0.0)
    predicted(layout, 70)
    first = DriftPart(release(), layout)
    first.look(bundled)
    kept = layout.drift.read_bytes()
    predicted(layout, 50, begin=1000)
    first.look(bundled)
    expected = drift_memory(layout)
    layout.drift.write_bytes(kept)
    DriftPart(release(), layout).look(bundled)
    assert drift_memory(layout) == expected, "no line is read again, and none is left out"


@pytest.mark.parametrize(
    "content", [b'{"half"', b"[]", b"null", b'{"positions": [], "drift": {}}', b'{"drift": []}', b"\xff"]
)
def test_a_drift_memory_that_is_damaged_is_told_and_made_from_the_logs(
    layout: Layout, bundled: State, content: bytes
) -> None:
    predicted(layout, 70)
    first = DriftPart(release(), layout)
    first.look(bundled)
    assert first.warnings == ()
    expected = drift_memory(layout)
    layout.drift.write_bytes(content)
    again = DriftPart(release(), layout)
    again.look(bundled)
    (told,) = again.warnings
    assert told.startswith(f"memory: {layout.drift}: damaged (")
    assert drift_memory(layout) == expected


def test_positions_that_are_damaged_spoil_the_rest_of_the_memory(layout: Layout, bundled: State) -> None:
    predicted(layout, 70)
    DriftPart(release(), layout).look(bundled)
    expected = drift_memory(layout)
    layout.drift.write_text(json.dumps(expected | {"positions": {"stable": {}}}))
    again = DriftPart(release(), layout)
    again.look(bundled)
    assert drift_memory(layout) == expected and len(again.warnings) == 1


def test_outcomes_of_a_file_that_begins_anew_are_read(layout: Layout) -> None:
    wrong = {"timestamp": 1.0, "user": "x", "value": 2.0}
    append(layout.outcomes, wrong, wrong, wrong)
    one = part(layout)
    assert one.look(state()).evidence["unusable_outcomes"] == 3
    layout.outcomes.unlink()
    append(layout.outcomes, wrong)
    assert one.look(state()).evidence["unusable_outcomes"] == 4


@pytest.mark.usefixtures("site_proxy")
def test_what_the_candidate_tells_of_itself_counts(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own metrics over real HTTP: copies that it answered, and outputs that are no numbers."""
    monkeypatch.setattr(judge_part, "METRICS_SECONDS", 0.0)
    told = Metrics("digits", "new", "candidate")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(told.text())

        def log_message(self, *_: object) -> None:
            """Nothing: the tests' output is theirs."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setattr(Supervised, "address", lambda *_: f"127.0.0.1:{server.server_port}")
        one = part(layout)
        for _ in range(3):
            told.count("ok", 0.003, 0.001, 1)
        found = one.look(state(None))
        assert (found.decision, found.requests) == ("go_on", 3)
        told.count("non_finite", 0.003, 0.001, 1)
        found = one.look(state(None))
        assert (found.decision, found.requests) == ("rollback", 4)
        assert found.reasons[0].startswith("non-finite outputs: 1 ")
    finally:
        server.shutdown()
        server.server_close()
    assert one.look(state(None)).requests is None, "it does not say"


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
