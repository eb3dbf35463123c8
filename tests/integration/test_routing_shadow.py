"""Shadow traffic for real: what the candidate gets, and that nothing it does reaches a user.

The control is nginx's own `mirror`, with which the same candidate does reach them.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fronted import PATIENCE, Fronted, Load, eventually, user_digest
from test_routing import NEEDS_NGINX

from assay.release.routing.access import AccessReader
from assay.release.routing.nginx import NginxFront
from assay.release.routing.processes import ended
from assay.release.routing.shadower import SECONDS, Counts, Shadower

pytestmark = [pytest.mark.integration, NEEDS_NGINX]


@pytest.fixture
def fronted(tmp_path: Path) -> Iterator[Fronted]:
    with Fronted(tmp_path, NginxFront) as fronted:
        fronted.front.start(fronted.plan(0.0))
        shadower = Shadower(fronted.layout)
        shadower.ensure()
        try:
            fronted.acquaint("someone")
            yield fronted
        finally:
            shadower.stop()


def copy(fronted: Fronted, share: float) -> None:
    content = {"share": share, "address": fronted.parts["candidate"].address}
    path = fronted.layout.shadow
    path.with_suffix(".new").write_text(json.dumps(content))
    path.with_suffix(".new").replace(path)


def shadows(fronted: Fronted) -> list[dict[str, str]]:
    path = fronted.folder / "candidate.shadows"
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def while_asked(fronted: Fronted, condition: Callable[[], object], what: str) -> None:
    """A copy may be lost: another request makes another."""

    def holds() -> bool:
        fronted.ask("someone")
        time.sleep(0.1)
        return bool(condition())

    eventually(holds, what)


def wait_for_shadows(fronted: Fronted) -> None:
    while_asked(fronted, lambda: shadows(fronted), "a copy comes")


def counts(fronted: Fronted) -> Counts:
    return Shadower(fronted.layout).counts() or Counts()


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
    eventually(lambda: found.extend(reader.read()) or found, "its line")
    assert (found[0].route, found[0].assigned, found[0].user) == (
        "shadow",
        "candidate",
        user_digest("someone"),
    )
    assert [(a.role, a.status) for a in found[0].attempts] == [("candidate", 200)]
    asked: dict[str, str] = {}

    def of_whom() -> bool:
        asked.update((access.request_id, access.assigned) for access in fronted.reader.read())
        return found[0].request_id in asked

    eventually(of_whom, "the line of the request that was copied")
    assert set(asked.values()) == {"stable"}
    begun = counts(fronted).left_out
    copy(fronted, 0.0)
    while_asked(fronted, lambda: counts(fronted).left_out > begun, "copies are left out")
    eventually(lambda: nothing_under_way(counts(fronted)), "those before are over")
    before, left_out = len(shadows(fronted)), counts(fronted).left_out
    while_asked(fronted, lambda: counts(fronted).left_out >= left_out + 5, "copies are left out")
    assert len(shadows(fronted)) == before


def nothing_under_way(counts: Counts) -> bool:
    return counts.received == counts.left_out + counts.lost + counts.answered + counts.failed


def test_a_large_body_is_copied_too(fronted: Fronted) -> None:
    copy(fronted, 1.0)

    def came() -> bool:
        assert fronted.ask("someone", body=b"x" * 900_000).role == "stable"
        time.sleep(0.1)
        return "900000" in {shadow["content-length"] for shadow in shadows(fronted)}

    eventually(came, "a large copy comes")
    eventually(lambda: counts(fronted).answered > 0, "it is counted")


def test_failures_of_copies_are_seen(fronted: Fronted) -> None:
    fronted.behave("candidate", "500")
    copy(fronted, 1.0)
    wait_for_shadows(fronted)
    reader, statuses = AccessReader(fronted.layout.shadow_log), set()

    def seen(status: int | None) -> bool:
        statuses.update(access.attempts[0].status for access in reader.read())
        return status in statuses

    while_asked(fronted, lambda: seen(500), "a failure")
    fronted.parts["candidate"].kill()
    assert {fronted.ask("someone").status for _ in range(5)} == {200}
    while_asked(fronted, lambda: seen(None), "no answer")
    assert statuses == {500, None} and reader.damaged == 0


def answered(fronted: Fronted, count: int, seconds: float) -> None:
    """As many requests on each of four connections."""
    with Load(fronted.routing.port) as load:
        load.more(count, seconds)
    assert load.failed() == []


def test_a_shadow_that_hangs_slows_no_user_where_a_mirror_would(
    fronted: Fronted, monkeypatch: pytest.MonkeyPatch
) -> None:
    fronted.behave("candidate", "hang")
    copy(fronted, 1.0)
    while_asked(fronted, lambda: fronted.requests("candidate") > 0, "a copy comes")
    # With each request waiting for its copy, which has 5 s, 50 of them on a connection would take more than 4 minutes.
    assert 50 * SECONDS > PATIENCE
    answered(fronted, 50, PATIENCE)
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
    with pytest.raises(AssertionError, match="not in 10 s"):
        answered(fronted, 50, 10)


def test_a_shadower_that_is_killed_or_stopped_slows_no_user(fronted: Fronted) -> None:
    copy(fronted, 1.0)
    wait_for_shadows(fronted)
    shadower = Shadower(fronted.layout)
    first = shadower.running()
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    answered(fronted, 50, PATIENCE)
    os.kill(first, signal.SIGKILL)
    answered(fronted, 20, PATIENCE)
    eventually(lambda: ended(first), "it ends")
    assert shadower.ensure() != first
    before = len(shadows(fronted))
    while_asked(fronted, lambda: len(shadows(fronted)) > before, "a copy comes after it was started again")
    eventually(lambda: counts(fronted).received, "it counts")
