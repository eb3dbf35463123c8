"""The next release on the same port, under load: it takes the front over, is killed meanwhile, and users see nothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fronted import SALT, Fronted
from test_release_front import KINDS, NEEDS_NGINX
from test_release_ramp import PATIENCE, ROOT, Driven

from assay.cli import main
from assay.release.demo.__main__ import release_file, users
from assay.release.demo.models import bundles
from assay.release.demo.users import make_keys
from assay.release.layout import Layout
from assay.release.load import from_mapping
from assay.release.ramp.processes import Supervised
from assay.release.ramp.start import stop
from assay.release.registry.store import open_registry
from assay.release.routing.front import Front, front_of
from assay.release.routing.plan import Plan
from assay.release.schema import Limits
from assay.release.security.salt import make_salt

pytestmark = pytest.mark.integration
FRONTS = [pytest.param("nginx", marks=NEEDS_NGINX), pytest.param("python")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return bundles(tmp_path_factory.mktemp("bundles"), "")


@pytest.fixture(params=FRONTS)
def content(request: pytest.FixtureRequest, tmp_path: Path, made: tuple[Path, Path]) -> dict[str, Any]:
    """A release file whose judge lets everything pass, and whose bake ends when a person says so."""
    stable, candidate = made
    _, public = make_keys(tmp_path / "keys")
    content = release_file("", tmp_path, request.param, public, candidate)
    content["versions"]["stable"] = str(stable)
    content["judge"] |= {"latency": None, "business": None}
    content["ramp"] = {
        "shadow": {"share": 0.0},
        "steps": [{"share": 1.0, "users": 10, "least_seconds": 1, "most_seconds": PATIENCE}],
        "bake_seconds": 10 * PATIENCE,
    }
    return content


def driven(content: dict[str, Any], tmp_path: Path, name: str, **versions: str) -> Driven:
    content = content | {"name": name, "versions": content["versions"] | versions}
    release = from_mapping(content, file="made")
    file = tmp_path / name / "release.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(release.model_dump(mode="json")))
    return Driven(release, Layout(Path(release.folder) / release.name), file)


def until(condition: Callable[[], Any], said: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.02)


@pytest.fixture
def two(content: dict[str, Any], tmp_path: Path, made: tuple[Path, Path]) -> Iterator[tuple[Driven, Driven]]:
    """A release, and the next one: it gives back what the first one took away."""
    old, new = made
    first = driven(content, tmp_path, "first")
    second = driven(content, tmp_path, "second", stable=str(new), candidate=str(old))
    make_salt(first.layout.salt)
    try:
        yield first, second
    finally:
        for release in (first, second):
            if release.controller is not None and release.controller.poll() is None:
                release.kill()
        for release in (second, first):
            if release.layout.journal.exists():
                try:
                    stop(release.layout)
                except ValueError:
                    assert release is first


def test_users_see_nothing_of_the_next_release_though_it_is_killed_meanwhile(
    two: tuple[Driven, Driven], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = two
    with users(first.release, first.layout, tmp_path, 40.0) as seen:
        first.start()
        first.wait(lambda line: line.state.phase == "bake")
        refused = said_by(second)
        assert "release first serves port" in refused and "is not over (bake)" in refused, refused
        promoted(first)
        front = front_of(first.release, first.layout).running()
        moments: list[Callable[[], Any]] = [
            lambda: second.lines(),
            lambda: first.lines()[-1].state.successor,
            lambda: second.layout.front.is_symlink(),
            lambda: first.lines()[-1].event == "handed_over",
        ]
        for moment in moments:
            second.start("--force", "users are to have it back")
            until(lambda moment=moment: moment() or second.controller.poll() is not None, second.said)  # type: ignore[misc]
            assert second.controller is not None and second.controller.poll() is None, second.said()
            second.kill()
        second.start()
        second.wait(lambda line: line.state.phase == "bake")
        promoted(second)
        saw = seen()
    assert saw["errors"] == 0, saw
    assert saw["requests"] > 100 and len(saw["versions"]) == 2
    events = [(line.event, line.by, line.state.successor) for line in first.lines()]
    assert events[-2:] == [
        ("handing_over", "release second", "second"),
        ("handed_over", "release second", "second"),
    ]
    assert [line.event for line in first.lines()].count("handed_over") == 1
    assert second.lines()[0].state.predecessor == "first"
    assert front_of(second.release, second.layout).running() == front, "it is the same front"
    for role in ("stable", "candidate"):
        assert Supervised(first.layout).service(role) is None  # type: ignore[arg-type]
    assert Supervised(second.layout).running("stable").ready
    tells_who_served(first, second)
    leaves_the_front_to_its_heir(first, second, capsys)


def promoted(release: Driven) -> None:
    """By a person, from the bake on."""
    release.order("promote", str(release.file), "--wait", str(PATIENCE))
    assert release.ended() == 0, release.said()


def tells_who_served(first: Driven, second: Driven) -> None:
    """The registry: from the last line of the one on, the other serves."""
    entries = [
        entry for entry in open_registry(first.release.registry).history.read() if entry.event == "serves"
    ]
    of_first = [entry for entry in entries if entry.release == "first"]
    assert (of_first[-1].share, of_first[-1].version) == (None, second.lines()[0].state.stable.version)
    of_second = [entry for entry in entries if entry.release == "second" and entry.role == "stable"]
    assert (of_second[0].share, of_second[0].version) == (1.0, of_first[-1].version)
    reasons = [entry.reason for entry in entries]
    assert len(reasons) == len({(entry.role, entry.reason, entry.release) for entry in entries})
    # Lines of users went to the log of the release whose users they were.
    generations = [
        [json.loads(line)["generation"] for line in release.layout.access.read_text().splitlines()]
        for release in (first, second)
    ]
    assert max(generations[0]) < min(generations[1])


def leaves_the_front_to_its_heir(first: Driven, second: Driven, printed: pytest.CaptureFixture[str]) -> None:
    """Whatever is asked of the release that is over."""
    for words in (["stop"], ["rollback", "--reason", "no"]):
        assert main(["release", *words[:1], str(first.file), *words[1:]]) == 2
        assert "second" in printed.readouterr().err
    first.start()
    assert first.ended() == 0 and "release second has taken its front over" in first.said()
    front = front_of(second.release, second.layout)
    assert front.confirm() is not None
    assert main(["release", "stop", str(second.file)]) == 0
    assert front.running() is None


def said_by(release: Driven) -> str:
    """Why it does not begin."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "assay.cli", "release", "start", str(release.file)],
        capture_output=True,
        text=True,
        cwd=release.file.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 2, done
    assert not release.layout.journal.exists()
    return done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_is_under_way_keeps_what_answers_it(tmp_path: Path, kind: type[Front]) -> None:
    """Both fronts: the earlier release's version may end only when nothing is sent there any more."""
    with Fronted(tmp_path, kind, Limits(timeout_seconds=PATIENCE)) as fronted:
        fronted.front.start(fronted.plan(0.0, candidate=None))
        heir = Layout(tmp_path / "next")
        heir.front.parent.mkdir(parents=True)
        heir.salt.write_text(SALT[::-1] + "\n")
        heir.salt.chmod(0o600)
        heir.front.symlink_to(fronted.front.folder)
        front = kind(heir, fronted.routing, fronted.limits)
        assert front.confirm() is None, "a front answers to the release alone whose it is"
        stable = fronted.parts["stable"].process
        answers = []
        asking = threading.Thread(target=lambda: answers.append(fronted.ask("ann")))
        os.kill(stable.pid, signal.SIGSTOP)
        try:
            asking.start()
            until(lambda: _asks(fronted), lambda: "the front does not ask the stable version")
            candidate = fronted.parts["candidate"].address
            front.apply(
                Plan(1 + (front.active() or 0), 0.0, candidate, None, fronted.parts["identity"].address)
            )
            assert front.confirm() is not None and fronted.front.confirm() is None
            assert front.lingers(fronted.layout)
        finally:
            os.kill(stable.pid, signal.SIGCONT)
        asking.join(PATIENCE)
        assert [(answer.status, answer.role) for answer in answers] == [(200, "stable")]
        until(lambda: not front.lingers(fronted.layout), lambda: "it is answered, and still in use")
        stable.kill()
        answer = fronted.ask("ann")
        assert (answer.status, answer.role) == (200, "candidate"), "the version that is the heir's stable one"
        assert fronted.asked().count("ann") == 2, (
            "another release's digest of a user is not taken for this one's"
        )


def _asks(fronted: Fronted) -> bool:
    """Whether a connection to the stable version waits to be answered: it is stopped, so that nobody reads it."""
    port = f":{fronted.parts['stable'].port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(port) and row[3] == "01" and int(row[4].split(":")[1], 16) > 0 for row in rows)
