"""One release takes over the front of another: what is refused, and that a kill between any two steps leaves nothing half done."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from made_world import NEW, OLD, release

from assay.cli import main
from assay.holding import hold
from assay.release.layout import Layout
from assay.release.ramp import decide, takeover
from assay.release.ramp.journal import Journal, line
from assay.release.ramp.parts import PartError
from assay.release.ramp.start import Options, start
from assay.release.ramp.state import Phase, Wanted
from assay.release.ramp.takeover import Earlier
from assay.release.registry.store import open_registry
from assay.release.routing.front import OWNER, front_of
from assay.release.routing.gunicorn import PythonFront
from assay.release.routing.held import FILE, Active
from assay.release.routing.plan import Plan
from assay.release.schema import Limits, Routing
from assay.release.security.salt import make_salt

ROUTING = {"front": "python", "port": 18080}


def left(folder: Path, name: str, phase: Phase = "promoted", serves: str = "new") -> Layout:
    """A release as it ended."""
    layout = Layout(folder / name)
    made = release(name=name, folder=str(folder), routing=ROUTING)
    layout.folder.mkdir(parents=True)
    layout.resolved.write_text(yaml.safe_dump(made.model_dump(mode="json")))
    begun = decide.begin(made, OLD, NEW, "a test").state
    state = begun.model_copy(update={"phase": phase, "wanted": Wanted(stable=serves)})
    Journal(layout).append(line(1, phase, "a test", "ramp", state))
    return layout


def heir(folder: Path) -> Layout:
    """One that begins with what the other ended with."""
    layout = Layout(folder / "next")
    made = release(name="next", folder=str(folder), routing=ROUTING)
    layout.folder.mkdir(parents=True)
    layout.resolved.write_text(yaml.safe_dump(made.model_dump(mode="json")))
    Journal(layout).append(
        line(1, "preflight", "a test", "ramp", decide.begin(made, NEW, OLD, "", "last").state)
    )
    return layout


def against(layout: Layout, serves: str = "new", **routing: object) -> list[str]:
    made = release(name="next", folder=str(layout.folder.parent), routing=ROUTING | routing)
    stable = NEW if serves == "new" else OLD
    return list(takeover.against(layout, made, stable))


def test_a_release_that_is_over_and_serves_the_stable_version_gives_its_front(tmp_path: Path) -> None:
    assert against(left(tmp_path, "last")) == []
    assert against(left(tmp_path, "back", "rolled_back", "old"), "old") == []


@pytest.mark.parametrize("phase", ["preflight", "shadow", "bake", "retire", "rolling_back"])
def test_one_that_is_not_over_does_not(tmp_path: Path, phase: Phase) -> None:
    (said,) = against(left(tmp_path, "last", phase))
    assert "port 18080 and is not over" in said and "assay release rollback last" in said


def test_what_does_not_fit_is_told_with_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = left(tmp_path, "last")
    with hold(layout.lock):
        (said,) = against(layout)
    assert f"its controller (process {os.getpid()}" in said
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 4711)
        (said,) = against(layout)
    assert f"as the user with uid {os.geteuid()}: begin this one as that user" in said
    (said,) = against(layout, "old")
    assert "users of port 18080 have new from release last: write `stable: bundles/new`" in said
    (said,) = against(layout, front="nginx")
    assert said.startswith("routing.front:") and "assay release stop last" in said
    (said,) = against(layout, address="0.0.0.0")
    assert said.startswith("routing.address:")
    (said,) = against(layout, tls={"certificate": "a", "key": "b"})
    assert said.startswith("routing.tls:")


def test_one_whose_front_does_not_run_is_not_meant(tmp_path: Path) -> None:
    layout = left(tmp_path, "last")
    made = release(name="next", folder=str(tmp_path), routing=ROUTING)
    assert takeover.on_port(made, Layout(tmp_path / "next")) is None
    assert front_of(made, layout).running() is None


def test_the_third_has_the_front_of_the_first(tmp_path: Path) -> None:
    first, second = left(tmp_path, "last"), heir(tmp_path)
    Earlier(first, second).take()
    over = Journal(second).last()
    assert over is not None
    ended = over.state.model_copy(update={"phase": "promoted", "wanted": Wanted(stable="old")})
    Journal(second).append(line(2, "promoted", "a test", "ramp", ended))
    third = left(tmp_path, "third", "preflight")
    begun = ended.model_copy(update={"stable": OLD, "predecessor": "next"})
    Journal(third).append(line(2, "preflight", "a test", "ramp", begun))
    earlier = takeover.predecessor(third)
    assert earlier == second
    Earlier(second, third).take()
    assert third.front.readlink() == first.front.absolute()
    assert takeover.claimed(third) == Earlier(second, third)


def test_a_signed_request_is_taken_once_by_both(tmp_path: Path) -> None:
    before, after_it = left(tmp_path, "last"), heir(tmp_path)
    takeover.share_nonces(before, after_it)
    assert not (after_it.shared / takeover.NONCES).exists(), "there are none"
    before.shared.mkdir(parents=True)
    (before.shared / takeover.NONCES).write_text("taken")
    for _ in range(2):
        takeover.share_nonces(before, after_it)
    assert (after_it.shared / takeover.NONCES).samefile(before.shared / takeover.NONCES)


class Killed(BaseException):
    """As by `kill -9`."""


STEPS = [(Journal, "append"), (Journal, "write_state"), (Path, "symlink_to"), (Path, "replace")]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_is_made_good(
    tmp_path: Path, step: tuple[type, str], after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after_it = left(tmp_path, "last"), heir(tmp_path)
    real: Callable[..., object] = getattr(*step)

    def kill(*given: object) -> None:
        if after:
            real(*given)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*step, kill)
        with pytest.raises(Killed):
            Earlier(before, after_it).take()
    for _ in range(2):
        Earlier(before, after_it).take()
    last = Journal(before).last()
    assert last is not None and (last.number, last.event) == (2, "handing_over")
    assert (last.by, last.state.successor, last.state.phase) == ("release next", "next", "promoted")
    assert after_it.front.readlink() == before.front.absolute()
    theirs = release(name="next", folder=str(tmp_path), routing=ROUTING)
    assert front_of(theirs, after_it).folder == before.front.absolute()


def test_one_that_changed_meanwhile_keeps_its_front(tmp_path: Path) -> None:
    before, after_it = left(tmp_path, "last", "rolled_back", "old"), heir(tmp_path)
    with pytest.raises(PartError, match="serves old, not new any more"):
        Earlier(before, after_it).take()
    with hold(before.lock), pytest.raises(PartError, match=r"a controller .* drives release last"):
        Earlier(before, after_it).take()
    assert not after_it.front.is_symlink() and takeover.gone(before) is None
    assert takeover.claimed(after_it) is None


@dataclass
class Lingering:
    """A front by which somebody may still be sent to what the earlier release served."""

    word: bool = True

    def lingers(self, before: Layout) -> bool:
        return self.word


def test_what_it_served_ends_when_nobody_is_sent_there_and_all_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(takeover, "LOOK_SECONDS", 0.0)
    before, after_it = left(tmp_path, "last"), heir(tmp_path)
    history = open_registry(release().registry).history
    known: list[tuple[str, object]] = []

    def end(_: Earlier) -> bool:
        last = Journal(before).last()
        assert last is not None
        known.append((last.event, history.read()[-1].share))
        return len(known) > 1

    monkeypatch.setattr(Earlier, "end", end)
    earlier, front = Earlier(before, after_it), Lingering()
    earlier.take()
    for _ in range(2):
        assert earlier.finish(front) == "release last still answers what it has"  # type: ignore[arg-type]
    assert known == [], "somebody is still sent there"
    front.word = False
    assert earlier.finish(front) == "release last still answers what it has"  # type: ignore[arg-type]
    assert earlier.finish(front) == earlier.finish(front) == ""  # type: ignore[arg-type]
    assert known == [("handed_over", None)] * 2
    assert [line.event for line in Journal(before).lines()].count("handed_over") == 1


def test_its_own_commands_leave_the_front_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path = tmp_path / "releases"
    before, after_it = left(tmp_path, "last"), heir(tmp_path)
    Earlier(before, after_it).take()
    for word in ("stop", "rollback", "promote"):
        assert main(["release", word, str(before.folder)]) == 2
        assert "next" in capsys.readouterr().err
    assert not list(before.orders.glob("*"))
    assert main(["release", "status", str(before.folder)]) == 0
    assert "release next has taken its front over" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path.parent)
    assert main(["release", "status"]) == 0, "the one that serves is meant"
    assert capsys.readouterr().out.startswith("next: preflight")
    with pytest.raises(PartError, match="release next has taken its front over"):
        Earlier(before, Layout(tmp_path / "third")).take()


def test_one_that_is_started_again_does_not_take_the_front_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after_it = left(tmp_path, "last"), heir(tmp_path)
    Earlier(before, after_it).take()
    monkeypatch.setattr("assay.release.ramp.start._run", lambda *_: pytest.fail("it has no front"))
    made = release(name="last", folder=str(tmp_path), routing=ROUTING)
    assert start(made, Options(), print).successor == "next"
    assert "release next has taken its front over" in capsys.readouterr().out


def test_a_request_of_the_earlier_release_that_is_under_way_is_seen(tmp_path: Path) -> None:
    """By another process, as long as something is done by its generation."""
    before, after_it = left(tmp_path, "last"), heir(tmp_path)
    for layout in (before, after_it):
        make_salt(layout.salt)
    earlier = PythonFront(before, Routing(), Limits())
    earlier.prepare(Plan(1, 0.0, "127.0.0.1:1"))
    Earlier(before, after_it).take()
    front = PythonFront(after_it, Routing(), Limits())
    assert front.active() == 1 and not front.owns(1) and earlier.owns(1)
    program = (
        "import sys; from pathlib import Path; from assay.release.routing.held import Active\n"
        "active = Active(Path(sys.argv[1]))\n"
        "request = active.now()\n"
        "for line in sys.stdin:\n"
        "    request = active.now() if 'end' in line else request\n"
        "    print(active.now()[0].generation, flush=True)\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program, str(front.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(takeover.__file__).parents[3])},
    )
    assert worker.stdin is not None and worker.stdout is not None

    def ask(word: str) -> str:
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(word + "\n")
        worker.stdin.flush()
        return worker.stdout.readline().strip()

    try:
        assert ask("first") == "1" and front.lingers(before)
        front.prepare(Plan(2, 0.0, "127.0.0.1:2"))
        assert front.owns(2) and (front.folder / "generations" / "2" / OWNER).read_text() == "next"
        assert ask("new request") == "2" and front.lingers(before), "the first one is under way"
        assert ask("end") == "2" and not front.lingers(before)
    finally:
        worker.kill()
        worker.wait()
        worker.stdin.close()
        worker.stdout.close()


def test_a_generation_that_is_done_with_is_closed(tmp_path: Path) -> None:
    layout = left(tmp_path, "last")
    make_salt(layout.salt)
    front = PythonFront(layout, Routing(), Limits())
    active = Active(front.folder)

    def opened() -> list[str]:
        found = []
        for link in Path("/proc/self/fd").iterdir():
            try:
                found.append(str(link.readlink()))
            except OSError:
                continue
        return [Path(name).parent.name for name in found if name.endswith(FILE)]

    for number in (1, 2, 3):
        front.prepare(Plan(number, 0.0, "127.0.0.1:1"))
        assert active.now()[0].generation == number
        assert opened() == [str(number)]
