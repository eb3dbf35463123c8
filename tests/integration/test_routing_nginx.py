"""What is nginx's own: the split for 100,000 users, configurations that it refuses, workers that are killed."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fronted import PATIENCE, SALT, Fronted, Load, eventually, user_digest
from ports import free_port
from test_routing import NEEDS_NGINX

from assay.release.layout import Layout
from assay.release.routing.nginx import NginxFront, find_nginx
from assay.release.routing.plan import FrontError, Plan
from assay.release.routing.processes import children, command_line
from assay.release.routing.split import UNITS, in_candidate, units
from assay.release.schema import Limits, Routing

pytestmark = [pytest.mark.integration, NEEDS_NGINX]
SHARES = [0.0001, 0.01, 0.1, 0.5, 0.9999, 1.0]
USERS = 100_000


@pytest.fixture
def fronted(tmp_path: Path) -> Iterator[Fronted]:
    with Fronted(tmp_path, NginxFront, testers=["tess"]) as fronted:
        fronted.front.start(fronted.plan(0.5))
        yield fronted


def blocks(folder: Path) -> str:
    """The `split_clients` of rendered configurations, one per share, with the user as an argument."""
    (folder / "r").mkdir()
    (folder / "r" / "salt").write_text(SALT)
    (folder / "r" / "salt").chmod(0o600)
    front = NginxFront(Layout(folder / "r"), Routing(), Limits())
    found = []
    for number, share in enumerate(SHARES):
        text = front.render(Plan(1, share, "127.0.0.1:1", "127.0.0.1:2"))
        block = text[text.index("split_clients") : text.index('map "$assay_wish:$assay_early')]
        found.append(block.replace("$assay_split", f"$split{number}").replace("$assay_user", "$arg_user"))
    return "".join(found)


def answers_of_nginx(folder: Path, users: list[str]) -> list[str]:
    """Per user one letter per share, `s` or `c`: 100,000 requests, pipelined."""
    port = free_port()
    said = "".join(f"$split{number}," for number in range(len(SHARES)))
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"""pid "{folder}/nginx.pid"; error_log stderr; daemon off;
        events {{}} http {{ access_log off; keepalive_requests 1000000; {blocks(folder)}
        client_body_temp_path "{folder}/a"; proxy_temp_path "{folder}/b"; fastcgi_temp_path "{folder}/c";
        uwsgi_temp_path "{folder}/d"; scgi_temp_path "{folder}/e";
        server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{said}\\n"; }} }} }}"""
    )
    program = subprocess.Popen([find_nginx(), "-p", str(folder), "-e", "stderr", "-c", str(configuration)])
    try:
        deadline = time.monotonic() + PATIENCE
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert program.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        found: list[str] = []
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as made,
            made.makefile("rb") as reader,
        ):
            for begin in range(0, len(users), 100):
                some = users[begin : begin + 100]
                made.sendall(
                    "".join(f"GET /?user={user} HTTP/1.1\r\nHost: x\r\n\r\n" for user in some).encode()
                )
                while len(found) < begin + len(some):
                    line = reader.readline()
                    assert line
                    if line.startswith((b"stable,", b"candidate,")):
                        found.append("".join(role[0] for role in line.decode().strip().split(",") if role))
        return found
    finally:
        program.terminate()
        program.wait()


def test_nginx_and_the_function_agree_on_100_000_users_and_none_loses_the_candidate(tmp_path: Path) -> None:
    # Texts of every length modulo 4, which the hash treats apart.
    users = [user_digest(f"someone-{number}")[: 32 - number % 4] for number in range(USERS)]
    found = answers_of_nginx(tmp_path, users)
    for number, share in enumerate(SHARES):
        expected = ["c" if in_candidate(SALT, user, share) else "s" for user in users]
        assert [answer[number] for answer in found] == expected
        count = expected.count("c")
        assert abs(count - share * USERS) <= 5 * (USERS * share * (1 - share)) ** 0.5
    # Sorted: once a user has the candidate, every larger share leaves it.
    assert all(answer == "s" * answer.count("s") + "c" * answer.count("c") for answer in found)
    assert units(SHARES[0]) == 1 and units(SHARES[-1]) == UNITS


def test_a_configuration_that_nginx_refuses_changes_nothing(
    fronted: Fronted, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fronted.front.active()
    monkeypatch.setattr(NginxFront, "render", lambda self, plan: "nonsense;\n")
    with pytest.raises(FrontError, match=r'nginx -t refuses generation 2: .*unknown directive "nonsense"'):
        fronted.front.apply(fronted.plan(0.1))
    assert fronted.front.active() == before and fronted.ask("someone").status == 200
    standing = fronted.front.confirm(PATIENCE)
    assert standing is not None and (standing.generation, standing.share) == (before, 0.5)


def test_a_reload_that_fails_leaves_the_old_one(fronted: Fronted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken passes `nginx -t`; the master refuses it when it is reloaded."""
    monkeypatch.setattr("assay.release.routing.front.CONFIRM_SECONDS", 2.0)
    before = fronted.front.active()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        other = NginxFront(fronted.layout, Routing(port=holder.getsockname()[1]), fronted.limits)
        with pytest.raises(FrontError, match="generation 2: the front"):
            other.apply(fronted.plan(0.1))
    assert fronted.front.active() == before and fronted.ask("someone").status == 200
    monkeypatch.undo()
    fronted.front.apply(fronted.plan(0.2))


def test_killed_workers_are_replaced_and_the_share_holds(fronted: Fronted) -> None:
    master = fronted.front.running()
    with Load(fronted.routing.port, connections=2) as load:
        for _ in range(3):
            load.more(10)
            for worker in workers(master):
                os.kill(worker, signal.SIGKILL)
        eventually(fronted.front.confirm, "there are workers again")
        load.more(10)
    assert fronted.front.running() == master
    # A connection breaks with its process; requests on new ones are answered as soon as there is another.
    assert len(load.failed()) < len(load.answers) / 2
    assert {answer[2] for answer in load.answers[-2:]} == {200} and fronted.front.confirm(
        PATIENCE
    ) is not None
    good = [answer for answer in load.answers if answer[2] == 200]
    # nginx writes the line after the answer: one request per connection can be between the two at each killing.
    logged: set[str] = set()
    deadline = time.monotonic() + PATIENCE
    while (lost := len(good) - len(logged)) > 3 * 2 and time.monotonic() < deadline:
        logged |= {access.request_id for access in fronted.reader.read()}
        time.sleep(0.05)
    assert lost <= 3 * 2, "a killed worker took log lines of requests that were over"


def workers(master: int | None) -> list[int]:
    return [child for child in children(master or 0) if "worker process" in command_line(child)]


def test_workers_without_a_master_are_found_and_ended(fronted: Fronted) -> None:
    master = fronted.front.running()
    assert master is not None
    left = workers(master)
    os.kill(master, signal.SIGKILL)
    eventually(lambda: fronted.front.running() is None, "it ends")
    assert fronted.ask("someone").status == 200, "its workers serve without it"
    fronted.front.stop()
    assert all(command_line(worker) == "" for worker in left) and fronted.front.confirm() is None


def test_secrets_are_the_owners_alone(fronted: Fronted) -> None:
    fronted.ask("secret-token-of-somebody")
    fronted.observed(1)
    assert fronted.front.folder.stat().st_mode & 0o077 == 0
    for path in (fronted.front.folder / "active").resolve().iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    logs = fronted.layout.access.read_text() + (fronted.front.folder / "error.log").read_text()
    assert "secret-token" not in logs and SALT not in logs
    assert SALT not in command_line(fronted.front.running() or 0)


def test_ten_thousand_early_users(fronted: Fronted) -> None:
    early = tuple(f"early{number}" for number in range(10_000))
    fronted.acquaint("early9999")
    fronted.front.apply(fronted.plan(0.01, early=early))
    assert fronted.ask("early9999").got("x-assay-route") == "early"
