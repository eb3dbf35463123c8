"""Shadow traffic for real: what the candidate gets, and that nothing it does reaches a user.

The control is nginx's own `mirror`, with which the same candidate does reach them.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fronted import Fronted, Load, user_digest
from test_routing import NEEDS_NGINX

from assay.release.routing.access import AccessReader
from assay.release.routing.nginx import NginxFront
from assay.release.routing.shadower import Shadower

pytestmark = [pytest.mark.integration, NEEDS_NGINX]


@pytest.fixture
def fronted(tmp_path: Path) -> Iterator[Fronted]:
    with Fronted(tmp_path, NginxFront) as fronted:
        fronted.front.start(fronted.plan(0.0))
        shadower = Shadower(fronted.layout)
        shadower.ensure()
        yield fronted
        shadower.stop()


def copy(fronted: Fronted, share: float) -> None:
    content = {"share": share, "address": fronted.parts["candidate"].address}
    path = fronted.layout.shadow
    path.with_suffix(".new").write_text(json.dumps(content))
    path.with_suffix(".new").replace(path)


def shadows(fronted: Fronted) -> list[dict[str, str]]:
    path = fronted.folder / "candidate.shadows"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_shadows(fronted: Fronted) -> None:
    deadline = time.monotonic() + 30
    while not shadows(fronted):
        assert time.monotonic() < deadline, "no copy came"
        fronted.ask("someone")
        time.sleep(0.1)


def test_the_candidate_gets_copies_and_says_nothing_to_users(fronted: Fronted) -> None:
    for _ in range(5):
        assert fronted.ask("someone").role == "stable"
    assert shadows(fronted) == []
    copy(fronted, 1.0)
    wait_for_shadows(fronted)
    [first, *_] = shadows(fronted)
    assert (first["x-assay-shadow"], first["x-assay-route"], first["x-assay-assigned"]) == (
        "1",
        "shadow",
        "candidate",
    )
    assert first["authorization"] == "Bearer someone" and first["x-assay-user"] == user_digest("someone")
    reader, found = AccessReader(fronted.layout.shadow_log), []
    deadline = time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        found += reader.read()
    assert (found[0].route, found[0].assigned, found[0].user) == (
        "shadow",
        "candidate",
        user_digest("someone"),
    )
    assert [(a.role, a.status) for a in found[0].attempts] == [("candidate", 200)]
    asked = {access.request_id for access in fronted.reader.read()}
    assert found[0].request_id in asked and {a.assigned for a in fronted.reader.read()} <= {"stable"}
    copy(fronted, 0.0)
    deadline = time.monotonic() + 30
    before = -1
    while before != (before := len(shadows(fronted))):
        assert time.monotonic() < deadline
        time.sleep(1.5)
        fronted.ask("someone")


def test_failures_of_copies_are_seen(fronted: Fronted) -> None:
    fronted.behave("candidate", "500")
    copy(fronted, 1.0)
    wait_for_shadows(fronted)
    fronted.parts["candidate"].kill()
    assert {fronted.ask("someone").status for _ in range(5)} == {200}
    reader, statuses = AccessReader(fronted.layout.shadow_log), set()
    deadline = time.monotonic() + 30
    while statuses != {500, None}:
        assert time.monotonic() < deadline, statuses
        statuses |= {access.attempts[0].status for access in reader.read()}
        time.sleep(0.05)
    assert reader.damaged == 0


def answered(fronted: Fronted, count: int) -> float:
    """Seconds for as many requests on each of four connections."""
    with Load(fronted.routing.port) as load:
        load.more(2)
        began = time.monotonic()
        load.more(count)
        took = time.monotonic() - began
    assert load.failed() == []
    return took


def test_a_shadow_that_hangs_slows_no_user_where_a_mirror_would(
    fronted: Fronted, monkeypatch: pytest.MonkeyPatch
) -> None:
    fronted.behave("candidate", "slow 0.5")
    quiet = min(answered(fronted, 20) for _ in range(2))
    copy(fronted, 1.0)
    wait_for_shadows(fronted)
    # With each request waiting for its copy, 20 of them on a connection would take 10 s.
    shadowed = min(answered(fronted, 20) for _ in range(3))
    assert shadowed < 5 * quiet + 2
    render = NginxFront.render
    mirror = (
        "mirror /_mirror; proxy_pass http://assay_$assay_assigned;",
        "location = /_mirror { internal; proxy_pass http://assay_candidate/predict; }\n        location = /predict {",
    )
    monkeypatch.setattr(
        NginxFront,
        "render",
        lambda self, plan: (
            render(self, plan)
            .replace("proxy_pass http://assay_$assay_assigned;", mirror[0])
            .replace("location = /predict {", mirror[1])
        ),
    )
    fronted.front.apply(fronted.plan(0.0))
    assert answered(fronted, 20) > 5 * quiet + 2


def test_a_shadower_that_is_killed_or_stopped_slows_no_user(fronted: Fronted) -> None:
    copy(fronted, 1.0)
    wait_for_shadows(fronted)
    shadower = Shadower(fronted.layout)
    first = shadower.running()
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    answered(fronted, 50)
    os.kill(first, signal.SIGKILL)
    answered(fronted, 20)
    assert shadower.ensure() != first
    before = len(shadows(fronted))
    deadline = time.monotonic() + 30
    while len(shadows(fronted)) == before:
        assert time.monotonic() < deadline, "no copy came after it was started again"
        fronted.ask("someone")
        time.sleep(0.1)
    counts = shadower.counts()
    assert counts is not None and counts.received >= 0
