"""What people and webhooks are told, and when nobody listens."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from made_world import NEW, OLD, World, controller, release, ticks

from assay.cli import main
from assay.holding import InUse, hold, holder
from assay.release.demo.__main__ import drift_saw
from assay.release.ramp.journal import Journal
from assay.release.ramp.parts import Look
from assay.release.ramp.webhook import Webhook

PATIENCE = 120.0
STOPPED = Look("wait", ("inconclusive: latency",), users=12, requests=99, seconds_to_decide=240.0)


class Hook:
    """A real HTTP server that keeps what it is told, and refuses the first requests."""

    def __init__(self, refusals: int = 0) -> None:
        self.told: list[dict[str, Any]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                nonlocal refusals
                refusals -= 1
                self.send_response(500 if refusals >= 0 else 204)
                self.end_headers()
                if refusals < 0:
                    hook.told.append(body)

            def log_message(self, *_: object) -> None:
                """Nothing: the tests' output is theirs."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "releases" / "digits")


def over(world: World) -> None:
    built = controller(world)
    built.begin(OLD, NEW, "a test")
    assert ticks(world, built).phase == "promoted"
    write_resolved(world)


def write_resolved(world: World) -> None:
    content = yaml.safe_dump(release().model_dump(mode="json"))
    world.layout.resolved.write_text(content)


def wait_for(hook: Hook, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(hook.told) < count and time.monotonic() < deadline:
        time.sleep(0.01)


def test_every_line_reaches_the_webhook_though_it_was_down(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.release.ramp.webhook.FIRST_RETRY", 0.01)
    over(world)
    lines = Journal(world.layout).lines()
    with Hook(refusals=3) as hook:
        webhook = Webhook(hook.url, world.layout, release())
        webhook.start()
        wait_for(hook, len(lines))
        webhook.stop(PATIENCE)
        assert [told["number"] for told in hook.told] == [line.number for line in lines]
        assert hook.told[2]["text"].startswith("digits: step: step 1 of 4 (1% of users): ")
        assert {told["event"] for told in hook.told} >= {
            "preflight",
            "shadow",
            "step",
            "bake",
            "retire",
            "promoted",
        }
        again = Webhook(hook.url, world.layout, release())
        again.start()
        again.stop(PATIENCE)
        assert len(hook.told) == len(lines), "what was delivered is not delivered again"


def test_a_webhook_that_is_gone_costs_the_controller_nothing_and_loses_nothing(world: World) -> None:
    with Hook() as hook:
        url = hook.url
    webhook = Webhook(url, world.layout, release())
    webhook.start()
    built = controller(world)
    built.told = webhook.tell
    built.begin(OLD, NEW, "a test")
    assert ticks(world, built).phase == "promoted"
    webhook.stop(PATIENCE)
    assert webhook.problem is not None
    assert url in webhook.problem
    assert not world.layout.told.exists()


def test_status_says_what_is_served_and_how_long_it_takes(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.look = lambda state: STOPPED if state.step == 1 else Look("go_on", users=500, requests=500)
    built = controller(world)
    built.begin(OLD, NEW, "a test")
    ticks(world, built, most=80)
    write_resolved(world)
    monkeypatch.chdir(world.folder.parents[1])
    with hold(world.layout.lock):
        assert main(["release", "status"]) == 0
    said = capsys.readouterr().out
    for words in (
        "digits: step 2 of 4 (10% of users)\n",
        "stable     old",
        "candidate  new",
        "share      10% of identified users\n",
        "12 of 10 users of the candidate",
        "inconclusive: latency; about 240 s more at this traffic",
        "step 1 of 4 (1% of users): nothing speaks against it",
    ):
        assert words in said, said
    assert "NO CONTROLLER" not in said
    assert main(["release", "status", "digits", "--exit-code"]) == 4
    assert "NO CONTROLLER RUNS" in capsys.readouterr().out
    assert main(["release", "status", str(world.folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["phase"], told["progress"]["users"], told["controller"]) == ("step", 12, None)


def test_what_nobody_has_looked_at_yet_is_not_told_as_trouble(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = controller(world)
    built.begin(OLD, NEW, "a test")
    write_resolved(world)
    monkeypatch.chdir(world.folder.parents[1])
    with hold(world.layout.lock):
        assert main(["release", "status"]) == 0
        assert "does not answer" not in capsys.readouterr().out
        world.real = None
        world.broken["front"] = "gone"
        ticks(world, built, most=5)
        assert main(["release", "status"]) == 0
    assert "; the front does not answer" in capsys.readouterr().out


def test_watch_ends_with_the_release(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    over(world)
    monkeypatch.chdir(world.folder.parents[1])
    assert main(["release", "watch", "digits"]) == 0
    assert capsys.readouterr().out.count("\n") == len(Journal(world.layout).lines())


def test_a_reason_of_several_lines_is_one_line_and_no_command_to_the_terminal(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    built = controller(world)
    built.begin(OLD, NEW, "for\nÄnne\x1b[31m")
    write_resolved(world)
    assert main(["release", "status", str(world.folder)]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert [line for line in said.splitlines() if line.endswith("preflight: for Änne [31m")], said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "digts"], "did you mean `digits`?"),
        (["status", "elsewhere"], "releases/ has digits"),
        (["watch", "releases"], "no release has begun there"),
        (["check", "none.yaml"], "none.yaml: no such file; give the path of a release file"),
    ],
)
def test_a_release_that_is_not_there_is_told(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    over(world)
    monkeypatch.chdir(world.folder.parents[1])
    assert main(["release", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_damaged_journal_is_told_by_its_line(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    over(world)
    monkeypatch.chdir(world.folder.parents[1])
    world.layout.journal.write_text("{}\n" + world.layout.journal.read_text())
    assert main(["release", "status", "digits"]) == 2
    assert "journal.jsonl:1: damaged" in capsys.readouterr().err


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / ".lock"
    assert holder(path) is None
    with hold(path):
        assert str(holder(path)).split()[1] == "on"
        with pytest.raises(InUse, match=r"\d+ on "):
            hold(path)
    assert holder(path) is None
    hold(path).close()


def test_check_says_what_a_file_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[3]
    assert main(["release", "check", str(root / "config" / "release" / "digits.yaml")]) == 0
    said = capsys.readouterr().out
    assert "10.00%  500 users, at least 30 min, held after 24.0 h" in said
    assert main(["release", "check", str(root / "config" / "release" / "digits.yaml"), "--full"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["judge"]["guards"]["window_seconds"] == 5


def test_the_demonstration_tells_what_drift_saw_and_what_turned_back(tmp_path: Path) -> None:
    text = "drift: predictions: class differs (PSI 1.50, p 1e-20)"
    world = World(tmp_path)
    built = controller(world)
    built.begin(OLD, NEW, "test")
    ticks(world, built, most=3)
    world.look = lambda state: Look("wait", warnings=(text,))
    ticks(world, built, most=2)
    world.look = lambda state: Look("rollback", ("business, at share 0.25: 0.5",))
    ticks(world, built)
    saw, back = drift_saw(Journal(world.layout).lines())
    assert re.fullmatch(r"drift saw, [0-9.]+ s after the beginning, in shadow: predictions: class .*", saw)
    assert re.fullmatch(
        r"the judge turned it back, [0-9.]+ s .* in shadow: business, at share 0.25: 0.5", back
    )
    unwarned = [line for line in Journal(world.layout).lines() if line.event != "warning"]
    assert [one.split(",")[0] for one in drift_saw(unwarned)] == [
        "the judge turned it back",
        "drift saw nothing before it was turned back",
    ]
    by_drift = [line.model_copy(update={"reason": text}) for line in unwarned]
    assert [one.split(",")[0] for one in drift_saw(by_drift)] == ["drift turned it back"]
