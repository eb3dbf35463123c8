"""The fronts for real: who gets what, what a bad candidate costs users, and what changing the share costs them.

Both fronts answer to the same tests. Versions and the identity service are servers of their own (`versions.py`).
"""

import errno
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fronted import PATIENCE, SALT, Fronted, Load, eventually, user_digest

from assay.release.routing.gunicorn import PythonFront
from assay.release.routing.nginx import NginxFront, find_nginx
from assay.release.routing.plan import FrontError
from assay.release.routing.processes import ended
from assay.release.routing.split import Split, in_candidate
from assay.release.schema import Limits, Tls

try:
    find_nginx()
    MISSING = ""
except ValueError as error:
    MISSING = str(error)
pytestmark = pytest.mark.integration
NEEDS_NGINX = pytest.mark.skipif(bool(MISSING), reason=MISSING)
KINDS = [pytest.param(NginxFront, marks=NEEDS_NGINX, id="nginx"), pytest.param(PythonFront, id="python")]


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp("front with a space")
    with Fronted(folder, request.param, testers=["tess"]) as fronted:
        fronted.front.start(fronted.plan(0.0))
        yield fronted


@pytest.fixture
def fronted(running: Fronted) -> Iterator[Fronted]:
    """The shared front at half of the users, with versions that do well, and users whom it knows."""
    for role in ("stable", "candidate"):
        running.behave(role, "good")
    running.acquaint(*KNOWN)
    running.front.apply(running.plan(0.5, early=("earl",)))
    running.forget()
    yield running
    for part in running.parts.values():
        if part.process.poll() is not None:
            part.start()


def with_role(share: float, candidate: bool, count: int = 1) -> list[str]:
    """Names of users whom the split gives a version."""
    names = (f"name{number}" for number in range(100_000))
    chosen = (name for name in names if in_candidate(SALT, user_digest(name), share) == candidate)
    return [next(chosen) for _ in range(count)]


KNOWN = [
    *("someone", "earl", "tess", *(f"user{number}" for number in range(60))),
    *(with_role(0.5, True) + with_role(0.5, False)),
]
"""Users whose first request is not what is tested."""


def test_users_have_the_version_that_the_function_says(fronted: Fronted) -> None:
    split = Split(SALT, 0.5, early=frozenset([user_digest("earl")]), testers=frozenset([user_digest("tess")]))
    asked = [(f"user{number}", "") for number in range(60)]
    asked += [
        ("", ""),
        ("earl", ""),
        ("tess", "candidate"),
        ("tess", "stable"),
        ("tess", "other"),
        ("bad", ""),
    ]
    asked += [("user1", "candidate"), ("user2", "stable"), ("earl", "stable"), ("", "candidate")]
    expected = []
    for name, wish in asked:
        identified = name and not name.startswith("bad")
        choice = split.choose(user_digest(name) if identified else "", wish)
        answer = fronted.ask(name or None, **({"X_Assay_Version": wish} if wish else {}))
        assert answer.status == 200 and answer.role == choice.assigned, (name, wish)
        assert (
            answer.got("x-assay-assigned") == choice.assigned and answer.got("x-assay-route") == choice.route
        )
        expected.append((user_digest(name) if identified else "", *choice, answer.got("x-request-id")))
    assert {choice for _, choice, _, _ in expected} == {"stable", "candidate"}
    logged = fronted.observed(len(asked))
    # Two workers write: a line may come after that of the next request.
    assert {(a.user, a.assigned, a.route, a.request_id) for a in logged} == set(expected)
    assert {(a.share, a.status, len(a.attempts)) for a in logged} == {(0.5, 200, 1)}
    assert all(a.generation == fronted.front.active() and 0 <= a.seconds < 300 for a in logged)


def test_a_client_forges_nothing(fronted: Fronted) -> None:
    [stable] = with_role(0.5, False)
    forged = {
        "X_Assay_User": user_digest("earl"),
        "X_Assay_Assigned": "candidate",
        "X_Assay_Route": "early",
        "X_Assay_Shadow": "1",
        "X_Assay_Front": "guess",
        "X_Request_Id": "mine",
        "X_Forwarded_For": "10.0.0.1",
        "X_Assay_Version": "candidate",
    }
    for user, digest, route in ((stable, user_digest(stable), "split"), (None, None, "anonymous")):
        answer = fronted.ask(user, **forged)
        assert (answer.role, answer.got("x-assay-route")) == ("stable", route)
        assert answer.got("x-assay-user") == digest
        assert answer.got("x-assay-assigned") == "stable" and answer.got("x-forwarded-for") == "127.0.0.1"
        assert answer.got("x-assay-shadow") is None and answer.got("x-assay-front") is None
        assert answer.got("x-assay-version") is None and answer.got("x-request-id") != "mine"
    assert {a.user for a in fronted.observed(2)} == {user_digest(stable), ""}
    assert fronted.ask(path="/_assay/front", X_Assay_Front="guess").status == 404
    inside = fronted.ask("earl", path="/_assay/identity")
    assert inside.status in (204, 404) and "role" not in inside.body and "x-assay-user" not in inside.headers
    # An underscore is no hyphen, and yet some servers take it for one.
    made = http.client.HTTPConnection("127.0.0.1", fronted.routing.port, timeout=PATIENCE)
    made.request("POST", "/predict", body=b"{}", headers={"X_Assay_User": user_digest("earl")})
    assert b"x_assay_user" not in made.getresponse().read().lower()
    made.close()


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [("500", 500), ("502", 502), ("503", 503), ("504", 504), ("hang", None), ("crash", None)],
)
def test_a_failing_candidate_is_answered_by_stable_and_its_failure_is_kept(
    fronted: Fronted, behaviour: str, status: int | None
) -> None:
    [user] = with_role(0.5, True)
    fronted.behave("candidate", behaviour)
    answer = fronted.ask(user, body=b"x" * 70_000)
    assert (answer.status, answer.role, answer.body["bytes"]) == (200, "stable", 70_000)
    assert answer.got("x-assay-assigned") == "candidate"
    [access] = fronted.observed(1)
    first, second = access.attempts
    assert (first.role, first.status, first.failed) == ("candidate", status, True)
    assert (second.role, second.status, access.assigned) == ("stable", 200, "candidate")
    patience = fronted.limits.timeout_seconds / 2
    assert first.seconds is not None and (first.seconds > patience - 1) == (behaviour == "hang")
    assert first.seconds < 2 * patience - 1, "so that a second one fits"
    if behaviour == "crash":  # so that it is seen to have ended, and started again
        fronted.parts["candidate"].process.wait(PATIENCE)


def test_every_request_of_a_failing_candidate_is_tried_and_seen(fronted: Fronted) -> None:
    """A version that is passed over for a while after a failure seems to have few."""
    [user] = with_role(0.5, True)
    fronted.behave("candidate", "500")
    count = 12  # more than one for each of the front's processes
    assert {fronted.ask(user).status for _ in range(count)} == {200}
    tried = [[(a.role, a.status) for a in access.attempts] for access in fronted.observed(count)]
    assert tried == [[("candidate", 500), ("stable", 200)]] * count


def test_two_tokens_name_nobody(fronted: Fronted) -> None:
    [user] = with_role(0.5, True)
    before = fronted.requests("candidate")
    made = http.client.HTTPConnection("127.0.0.1", fronted.routing.port, timeout=PATIENCE)
    made.putrequest("POST", "/predict")
    for name in (user, "someone"):
        made.putheader("Authorization", f"Bearer {name}")
    made.putheader("Content-Length", "0")
    made.endheaders()
    answer = made.getresponse()
    assert answer.status == 400 or json.loads(answer.read())["role"] == "stable"
    made.close()
    assert fronted.requests("candidate") == before


def test_what_stable_fails_is_not_the_candidates(fronted: Fronted) -> None:
    [user] = with_role(0.5, False)
    fronted.behave("stable", "500")
    assert fronted.ask(user).status == 500
    [access] = fronted.observed(1)
    assert [(a.role, a.status) for a in access.attempts] == [("stable", 500)]


def test_where_no_version_answers_the_log_says_so(fronted: Fronted) -> None:
    [user] = with_role(0.5, True)
    fronted.parts["stable"].kill()
    fronted.behave("candidate", "500")
    answer = fronted.ask(user)
    assert (answer.status, answer.body) == (502, {"error": "no version answers; try again"})
    [access] = fronted.observed(1)
    assert [(a.role, a.status) for a in access.attempts] == [("candidate", 500), ("stable", None)]
    assert access.status == 502


def test_what_a_caller_did_wrong_is_no_failure(fronted: Fronted) -> None:
    [user] = with_role(0.5, True)
    fronted.behave("candidate", "422")
    assert fronted.ask(user).status == 422
    [access] = fronted.observed(1)
    assert [(a.role, a.status, a.failed) for a in access.attempts] == [("candidate", 422, False)]


def test_a_caller_who_leaves_is_no_failure(fronted: Fronted) -> None:
    [user] = with_role(0.5, True)
    fronted.behave("candidate", "hang")
    before = fronted.requests("candidate")
    with socket.create_connection(("127.0.0.1", fronted.routing.port)) as made:
        made.sendall(
            f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        eventually(lambda: fronted.requests("candidate") > before, "the candidate has it")
    [access] = fronted.observed(1)
    assert [(a.role, a.status, a.failed) for a in access.attempts] == [("candidate", 499, False)]
    assert access.status == 499


def test_a_version_cannot_send_a_request_elsewhere(fronted: Fronted) -> None:
    """`X-Accel-Redirect` of a version would open what is internal to nginx."""
    fronted.behave("stable", "redirect")
    assert fronted.ask(None).role == "stable"


def test_a_candidate_killed_under_load_costs_no_user_anything(fronted: Fronted) -> None:
    with Load(fronted.routing.port) as load:
        load.until(lambda load: load.roles() == {"stable", "candidate"})
        fronted.parts["candidate"].kill()
        load.more(20)
    assert load.failed() == []
    failures = [a for a in fronted.observed(len(load.answers)) if a.attempts[0].failed]
    assert failures and {(a.assigned, a.attempts[0].role, a.status) for a in failures} == {
        ("candidate", "candidate", 200)
    }


def test_known_users_keep_their_version_without_the_identity_service(fronted: Fronted) -> None:
    known, unknown = with_role(0.5, True, 2)
    assert known in KNOWN and unknown not in KNOWN
    assert fronted.ask(known).role == "candidate"
    fronted.parts["identity"].kill()
    # Whichever of the front's processes answers.
    assert {fronted.ask(known).role for _ in range(20)} == {"candidate"}
    assert fronted.ask(unknown).role == "stable"
    assert sorted(a.route for a in fronted.observed(22)) == ["anonymous", *["split"] * 21]


def test_an_identity_is_kept_no_longer_than_its_service_says(fronted: Fronted) -> None:
    fronted.acquaint("lasting")
    before = fronted.asked().count("lasting")
    for _ in range(5):
        assert fronted.ask("lasting").got("x-assay-user") == user_digest("lasting")
    assert fronted.asked().count("lasting") == before
    known = 0

    def asked_again() -> bool:
        nonlocal known
        known += fronted.ask("brief").got("x-assay-user") == user_digest("brief")
        time.sleep(0.1)
        return known >= 3 and fronted.asked().count("brief") >= 3

    eventually(asked_again, "it is asked again")


def test_no_request_fails_while_the_share_changes(fronted: Fronted) -> None:
    shares = [0.0001, 0.01, 0.1, 0.5, 1.0, 0.0, 0.1, 0.0] * 3
    with Load(fronted.routing.port) as load:
        for share in shares:
            fronted.front.apply(fronted.plan(share))
            standing = fronted.front.confirm(PATIENCE)
            assert standing is not None and standing.share == share
            load.more(3)
    assert load.failed() == [] and load.roles() == {"stable", "candidate"}


def test_a_roll_back_holds_for_every_new_request_at_once(fronted: Fronted) -> None:
    """On connections that were idle when it came, too. Within a second: unless the machine did something else just then."""
    lasts = []
    while not lasts or (lasts[-1] >= 1 and len(lasts) < 5):
        lasts.append(last_after_a_roll_back(fronted))
    assert lasts[-1] < 1, f"the last requests to the candidate came {lasts} s after"


KEPT_OPEN_SECONDS = 5.0
"""A connection that was used so lately outlives a reload: it does so for 10 s."""


def last_after_a_roll_back(fronted: Fronted) -> float:
    """Seconds from its begin to the last request that had the candidate."""
    fronted.front.apply(fronted.plan(1.0))
    idle = [http.client.HTTPConnection("127.0.0.1", fronted.routing.port, timeout=PATIENCE) for _ in range(8)]
    with Load(fronted.routing.port) as load:
        for connection in idle:
            assert role_on(connection, "someone") == "candidate"
        load.more(5)
        began = time.time()
        fronted.front.apply(fronted.plan(0.0))
        done = time.time()
        try:
            late = [role_on(connection, "someone") for connection in idle]
        except (OSError, http.client.HTTPException):
            assert time.time() - began > KEPT_OPEN_SECONDS, "the front has closed them"
            late = ["stable"] * 8
        load.more(10)
    for connection in idle:
        connection.close()
    assert load.failed() == [] and late == ["stable"] * 8
    last = max(sent for sent, *_, role in load.answers if role == "candidate")
    assert last <= done, f"{last - done:.3f} s after it was done"
    return last - began


def role_on(connection: http.client.HTTPConnection, user: str) -> str:
    connection.request("POST", "/predict", body=b"{}", headers={"Authorization": f"Bearer {user}"})
    return str(json.loads(connection.getresponse().read())["role"])


def test_a_halt_holds_without_any_reload(fronted: Fronted) -> None:
    fronted.front.apply(fronted.plan(1.0, early=("earl",)))
    assert fronted.ask("someone").role == "candidate"
    fronted.observed(1)
    fronted.front.halt()
    assert fronted.ask("someone").role == fronted.ask("earl").role == "stable"
    assert fronted.ask("tess", X_Assay_Version="candidate").role == "stable"
    standing = fronted.front.confirm(PATIENCE)
    assert standing is not None and standing[:3] == (fronted.front.active(), 0, False)
    assert {(a.assigned, a.share) for a in fronted.observed(3)} == {("stable", 0)}
    # The same plan again is meant.
    fronted.front.apply(fronted.plan(1.0, early=("earl",), generation=standing.generation))
    standing = fronted.front.confirm(PATIENCE)
    assert standing is not None and standing[1:3] == (1, True)
    assert fronted.ask("someone").role == "candidate"


def test_a_roll_back_holds_on_a_full_disk(fronted: Fronted, monkeypatch: pytest.MonkeyPatch) -> None:
    fronted.front.apply(fronted.plan(1.0))
    assert fronted.ask("someone").role == "candidate"

    def full(path: Path, *_: object, **__: object) -> None:
        if not path.exists():
            raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("touch", "mkdir"):
        monkeypatch.setattr(Path, name, full)
    with pytest.raises(OSError, match="No space left"):
        fronted.front.apply(fronted.plan(0.0))
    monkeypatch.undo()
    assert fronted.ask("someone").role == "stable"


def test_without_a_candidate_everyone_has_stable(fronted: Fronted) -> None:
    fronted.front.apply(fronted.plan(0.0, candidate=None, early=("earl",)))
    assert fronted.ask("earl").role == fronted.ask("tess", X_Assay_Version="candidate").role == "stable"


def test_generations_do_not_go_back(fronted: Fronted) -> None:
    active = fronted.front.active()
    assert active is not None
    with pytest.raises(ValueError, match=f"generation {active - 1} is older than {active}"):
        fronted.front.apply(fronted.plan(0.1, generation=active - 1))
    with pytest.raises(ValueError, match=f"generation {active} is another plan already"):
        fronted.front.apply(fronted.plan(0.1, generation=active))
    fronted.front.apply(fronted.plan(0.5, generation=active, early=("earl",)))
    assert fronted.ask("earl").role == "candidate"


NOT_FRAMED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def test_what_is_too_large_or_not_there_gets_a_reason(fronted: Fronted) -> None:
    before = fronted.reader.refused
    answer = fronted.ask(body=b"x" * (fronted.limits.body_bytes + 1))
    assert (answer.status, answer.body) == (413, {"error": "the body is too large"})
    assert fronted.ask(path="/metrics").status == 404
    assert fronted.ask(path="/../predict").status in (400, 404)
    assert fronted.ask(path="/health/ready").role == "stable"
    assert "nginx/" not in fronted.ask().headers.get("server", "")
    headers = fronted.ask().headers
    assert {name: headers.get(name) for name in NOT_FRAMED} == NOT_FRAMED
    fronted.observed(2)
    eventually(lambda: fronted.reader.read() or fronted.reader.refused > before, "the refusal's line")


def test_logs_are_rotated_and_read_across(fronted: Fronted) -> None:
    with Load(fronted.routing.port) as load:
        for _ in range(3):
            load.more(5)
            # Not before nginx has begun the log after the last one.
            eventually(lambda: fronted.front.rotate(1, 5), "there is a log to move")
            assert not fronted.front.rotate(10**9, 5)
    seen = fronted.observed(len(load.answers))
    assert len({a.request_id for a in seen}) == len(load.answers)
    assert fronted.reader.damaged == 0 and load.failed() == []


def test_logs_of_errors_are_rotated_and_a_front_is_still_found_by_them(fronted: Fronted) -> None:
    log = fronted.front.folder / "error.log"
    for number in range(3):
        with log.open("a") as file:
            file.write(f"error {number}\n")
        assert fronted.front.rotate(1, 2)
        assert f"error {number}\n" not in log.read_text()
        assert f"error {number}\n" in log.with_name("error.log.1").read_text()
    assert "error 1\n" in log.with_name("error.log.2").read_text()
    assert not log.with_name("error.log.3").exists()
    first = fronted.front.running()
    assert first is not None and str(log) in {
        str(link.readlink()) for link in Path(f"/proc/{first}/fd").iterdir()
    }
    # Its workers hold the port, and are known by the log that they have open.
    os.kill(first, signal.SIGKILL)
    eventually(lambda: ended(first), "it ends")
    fronted.known.clear()
    with log.open("a") as file:
        file.write("error\n")
    assert fronted.front.rotate(1, 2)
    fronted.front.start(fronted.plan(0.5))
    assert fronted.ask("someone").status == 200


def test_a_log_that_was_moved_by_whoever_ended_then_begins_anew(fronted: Fronted) -> None:
    access = fronted.layout.access
    fronted.ask("someone")
    access.rename(access.with_name("access.jsonl.1"))
    fronted.front.rotate(10**9, 5)
    seen = fronted.observed(1)
    asked: list[int] = []

    def begun() -> bool:
        asked.append(fronted.ask("someone").status)
        return access.exists() and access.stat().st_size > 0

    eventually(begun, "a log begins")
    assert len(seen + fronted.observed(len(asked))) == len(asked) + 1


def test_a_full_disk_costs_no_user_anything(fronted: Fronted) -> None:
    access = fronted.layout.access
    access.rename(access.with_name("kept"))
    access.symlink_to("/dev/full")
    try:
        fronted.front.apply(fronted.plan(0.5))
        assert {fronted.ask(f"user{number}").status for number in range(20)} == {200}
    finally:
        access.unlink()
        access.with_name("kept").rename(access)
        fronted.front.apply(fronted.plan(0.5))
    fronted.forget()
    fronted.ask("someone")
    assert fronted.observed(1)[0].user == user_digest("someone")


def test_it_starts_again_where_it_was_killed(fronted: Fronted) -> None:
    first = fronted.front.running()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    eventually(lambda: ended(first), "it ends")
    fronted.known.clear()
    fronted.front.start(fronted.plan(0.5))
    second = fronted.front.running()
    assert second is not None and second != first and fronted.ask("someone").status == 200
    fronted.front.halt()
    assert [path for path in fronted.front.folder.iterdir() if path.name.startswith("identit")]
    fronted.front.stop(5)
    kept = [path for path in fronted.front.folder.iterdir() if path.name.startswith("identit")]
    assert kept == [], "who had which token"
    fronted.front.start(fronted.plan(0.5, generation=fronted.front.active()))
    standing = fronted.front.confirm(PATIENCE)
    assert standing is not None and standing.share == 0.5


def test_limits_per_address(tmp_path: Path, running: Fronted) -> None:
    limits = Limits(timeout_seconds=30, per_address=5)
    with Fronted(tmp_path, type(running.front), limits) as fronted:
        fronted.front.start(fronted.plan(0.5))
        began, statuses = time.monotonic(), [fronted.ask("someone").status]
        assert statuses == [200]

        def refused() -> bool:
            statuses.extend(at_once(fronted.routing.port, 60))
            return 429 in statuses

        # As many as come at once on a machine that may be slow: sooner or later more than the limit within a second.
        eventually(refused, "some are refused")
        # Whichever of its workers answered.
        assert statuses.count(200) <= 6 + 5 * (time.monotonic() - began)
        eventually(lambda: fronted.ask("someone").status == 200, "after a while they pass again")


def at_once(port: int, count: int) -> list[int]:
    """Statuses of as many requests on connections that are all there before the first is sent."""
    lines = [socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) for _ in range(count)]
    for line in lines:
        line.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    found = [int(line.recv(65536).split()[1]) for line in lines]
    for line in lines:
        line.close()
    return found


def test_tls(tmp_path: Path, running: Fronted, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=assay", "-days", "1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)),
        ],
        check=True,
        capture_output=True,
    )
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(ssl, "_create_default_https_context", lambda: trusting)
    with Fronted(
        tmp_path, type(running.front), tls=Tls(certificate=str(certificate), key=str(key))
    ) as fronted:
        fronted.front.start(fronted.plan(0.5))
        answer = fronted.ask("someone")
        assert answer.status == 200 and answer.got("x-forwarded-proto") == "https"
        assert "max-age" in answer.headers["strict-transport-security"]
        with pytest.raises((OSError, http.client.HTTPException)):
            made = http.client.HTTPConnection("127.0.0.1", fronted.routing.port, timeout=PATIENCE)
            made.request("POST", "/predict", body=b"{}", headers={"Authorization": "Bearer secret"})
            if made.getresponse().status == 400:
                raise OSError("refused")


def test_a_taken_port_is_named(tmp_path: Path, running: Fronted) -> None:
    with Fronted(tmp_path, type(running.front)) as fronted, socket.socket() as holder:
        holder.bind(("127.0.0.1", fronted.routing.port))
        holder.listen()
        with pytest.raises(FrontError, match=f"127.0.0.1:{fronted.routing.port} is taken"):
            fronted.front.start(fronted.plan(0.5))
        assert fronted.front.running() is None
