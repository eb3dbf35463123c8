"""Environments by name, and what keeps each: a process, an alias, a roll-back. What nothing refers to goes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.cli import main
from assay.release.bundle.read import read
from assay.release.environments.image import _KEEPER, lacks
from assay.release.environments.place import About, Place, PlaceError, alone, lease, name_of
from assay.release.environments.prepare import prepare
from assay.release.environments.prune import prune
from assay.release.environments.references import references
from assay.release.layout import Layout
from assay.release.ramp.journal import Journal, line
from assay.release.ramp.state import Phase, Progress, State, Version, Wanted
from assay.release.registry.store import Registry, open_registry
from assay.release.schema import Registry as Settings


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    return tmp_path / "releases"


@pytest.fixture
def registry(releases: Path) -> Registry:
    return open_registry(Settings(model="digits", uri=str(releases / "registry")))


def made(releases: Path, name: str, *versions: str) -> Place:
    """An environment as it lies there, with an interpreter that runs."""
    place = Place(releases / "environments", name)
    place.python.parent.mkdir(parents=True)
    place.python.symlink_to(sys.executable)
    (place.folder / "content").write_text("x" * 1000)
    About(
        kind="venv",
        requirements_sha256="0",
        python="3.11.7",
        made="2026-11-21T00:00:00Z",
        versions=list(versions),
    ).write(place.about)
    return place


def pruned(releases: Path) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    gone, stayed = prune(releases / "environments", lambda: references(releases, [releases / "registry"]))
    return [one.place.name for one in gone], {one.place.name: one.reasons for one in stayed}


NAME = "serve-py3.11.7-" + "0123456789abcdef"
OTHER = "serve-sif-" + "fedcba9876543210"


def test_the_name_is_the_content(bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    name = name_of("venv", bundle)
    assert name == name_of("venv", other_bundle), "the same lock, the same environment"
    assert name is not None and name.startswith(f"serve-py{'.'.join(map(str, sys.version_info[:3]))}-")
    changed = Path(shutil.copytree(bundle, tmp_path / "changed"))
    with (changed / "environment/requirements.txt").open("a") as file:
        file.write("# other\n")
    assert name_of("venv", changed) != name
    assert name_of("host", bundle) is None and name_of("apptainer", bundle) is None


def test_what_nothing_refers_to_goes_whole(releases: Path) -> None:
    place = made(releases, NAME, "a" * 16)
    foreign = releases / "environments" / "mine"
    foreign.mkdir()
    link = releases / "environments" / OTHER
    link.symlink_to(foreign)
    assert pruned(releases) == ([NAME], {})
    assert sorted(path.name for path in place.root.iterdir()) == ["mine", OTHER], "others' are left alone"


def test_an_unfinished_one_goes_too(releases: Path) -> None:
    (releases / "environments" / NAME / "bin").mkdir(parents=True)
    (releases / "environments" / f".{OTHER}.killed" / "bin").mkdir(parents=True)
    (releases / "environments" / ".mine.x").mkdir()
    assert pruned(releases) == ([NAME, OTHER], {})
    assert [path.name for path in (releases / "environments").iterdir()] == [".mine.x"]


@pytest.fixture
def sleeping() -> Iterator[list["subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


SLEEP = "import sys, time; print('up', flush=True); time.sleep(600)"


@pytest.mark.parametrize("how", ["command", "variable", "folder", "lease"])
def test_what_a_process_runs_in_stays(
    releases: Path, tmp_path: Path, sleeping: list["subprocess.Popen[bytes]"], how: str
) -> None:
    place = made(releases, NAME)
    python = str(place.python) if how == "command" else sys.executable
    variables = os.environ | ({"VIRTUAL_ENV": f"{place.folder}/"} if how == "variable" else {})
    held = lease(place) if how == "lease" else None
    process = subprocess.Popen(
        [python, "-S", "-c", SLEEP],
        env=variables,
        cwd=place.folder if how == "folder" else tmp_path,
        stdout=subprocess.PIPE,
        pass_fds=[] if held is None else [held],
    )
    sleeping.append(process)
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    if held is not None:
        os.close(held)
    gone, stayed = pruned(releases)
    assert gone == [] and place.python.exists()
    expected = "in use by a process" if how == "lease" else f"process {process.pid}"
    assert expected in stayed[NAME]
    process.kill()
    process.wait()
    assert pruned(releases) == ([NAME], {}), "and goes when the process has ended"


def test_what_an_alias_refers_to_stays(releases: Path, registry: Registry, bundle: Path) -> None:
    version = registry.register(bundle)
    used, needed = made(releases, NAME, version), made(releases, name_of("venv", bundle) or "")
    registry.move("candidate", version, "")
    gone, stayed = pruned(releases)
    assert gone == [] and set(stayed) == {used.name, needed.name}
    assert stayed[used.name] == stayed[needed.name] == ("@candidate of digits",)
    registry.remove("candidate", "")
    # Taken away is moved too: a person may turn back to it.
    assert "for a roll-back" in pruned(releases)[1][NAME][0]
    shutil.rmtree(releases / "registry")
    assert sorted(pruned(releases)[0]) == sorted([used.name, needed.name])


def test_what_a_roll_back_refers_to_stays(
    releases: Path, registry: Registry, bundle: Path, other_bundle: Path
) -> None:
    old, new = registry.register(bundle), registry.register(other_bundle)
    place = made(releases, NAME, old)
    registry.move("champion", old, "")
    registry.move("champion", new, "promoted")
    assert pruned(releases) == ([], {NAME: ("@champion of digits was at it before: for a roll-back",)})
    registry.move("candidate", old, "")
    registry.move("champion", old, "rolled back")
    registry.move("champion", new, "again")
    assert place.folder.exists()


def state(releases: Path, name: str, stable: str, candidate: str, phase: Phase = "step") -> Path:
    """A release's folder as a controller leaves it; its journal."""
    found = State(
        release=name,
        stable=Version(version=stable, folder="nowhere"),
        candidate=Version(version=candidate, folder="nowhere"),
        phase=phase,
        entered=1,
        wanted=Wanted(stable=stable),
        reason="",
    )
    journal = Journal(Layout(releases / name))
    journal.append(line(len(journal.lines()) + 1, phase, "", "ramp", found))
    journal.write_state(found, Progress(line=1))
    return journal.layout.journal


def test_what_a_release_refers_to_stays(releases: Path) -> None:
    old, new = "a" * 16, "b" * 16
    made(releases, NAME, old)
    made(releases, OTHER, new)
    state(releases, "r", old, new)
    assert pruned(releases) == (
        [],
        {NAME: ("stable of the release r",), OTHER: ("candidate of the release r",)},
    )
    state(releases, "r", old, new, "rolled_back")
    assert pruned(releases)[0] == [OTHER], "what was turned back from has served its time"
    shutil.rmtree(releases / "r")
    assert pruned(releases)[0] == [NAME]


@pytest.mark.parametrize("damaged", ["journal", "history", "about", "aliases"])
def test_nothing_goes_where_what_refers_to_it_cannot_be_read(
    releases: Path, registry: Registry, bundle: Path, damaged: str
) -> None:
    version = registry.register(bundle)
    registry.move("champion", version, "")
    place = made(releases, NAME)
    path = {
        "journal": state(releases, "r", version, version),
        "history": registry.history.path,
        "about": place.about,
        "aliases": registry.place.aliases,
    }[damaged]
    path.write_text("{\n")
    with pytest.raises(ValueError, match=path.name):
        pruned(releases)
    assert place.folder.exists()


def test_one_that_is_being_made_waits_for_one_that_is_removed(releases: Path) -> None:
    """A lock on a file that was removed meanwhile holds nothing: it is taken anew."""
    place = made(releases, NAME)
    with alone(place) as free:
        assert free
        with pytest.raises(BlockingIOError):
            lease(place, wait=False)
        place.use.unlink()
    held = lease(place)
    with alone(place) as free:
        assert not free
    os.close(held)
    with alone(place) as free:
        assert free


def test_the_host_needs_nothing(bundle: Path, releases: Path) -> None:
    environment = prepare("host", bundle, releases / "environments")
    words, variables = environment.command(bundle, ["-m", "x"], {"A": "b"})
    assert words == [sys.executable, "-P", "-m", "x"] and variables == {"A": "b"}
    assert not releases.exists()
    environment.close()
    with pytest.raises(PlaceError, match="the run had no image; write `environment: venv`"):
        prepare("apptainer", bundle, releases / "environments")


def test_an_image_gets_what_it_lacks_of_the_lock_and_no_more() -> None:
    lock = (
        "h11==0.16.0 \\\n    --hash=sha256:aa\nnvidia-nccl-cu12==2.27.5 ; sys_platform == 'linux' \\\n    --hash=sha256:bb\n"
        "torch==2.9.1 \\\n    --hash=sha256:cc\ntyping-extensions==4.16.0 \\\n    --hash=sha256:dd\n"
    )
    assert lacks(lock, {}) == lock
    with_torch = lacks(lock, {"torch": "2.9.1+cu128", "typing_extensions": "4.16.0", "h11": "0.15.0"})
    assert with_torch == "h11==0.16.0 \\\n    --hash=sha256:aa\n", "another version is not the locked one"
    assert "nvidia" in lacks(lock, {"torch": "2.6.0"})
    assert lacks(lock, {"torch": "2.9.1", "Typing.Extensions": "4.16.0", "h11": "0.16.0"}) == ""


def test_the_command(
    releases: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundle: Path,
    registry: Registry,
) -> None:
    monkeypatch.chdir(releases.parent)
    version = registry.register(bundle)
    registry.move("champion", version, "")
    made(releases, NAME, version)
    made(releases, OTHER)

    def said(*words: str) -> str:
        assert main(["release", "env", *words]) == 0
        return capsys.readouterr().out

    for what in ("list", "prune"):
        assert said(what, "--releases", "nowhere") == "nowhere/environments: no environments\n"
    listed = said("list").splitlines()
    assert NAME in listed[0] and listed[0].endswith("kept by @champion of digits")
    assert OTHER in listed[1] and listed[1].endswith("nothing refers to it")
    assert said("prune", "--dry-run").splitlines() == listed and (releases / "environments" / OTHER).exists()
    assert said("prune").splitlines() == [
        f"removed {releases}/environments/{OTHER}",
        f"kept {releases}/environments/{NAME}: @champion of digits",
    ]
    assert said("prune").startswith("kept ")
    state(releases, "r", version, version).write_text(json.dumps({"schema_version": 9}) + "\n")
    assert main(["release", "env", "prune"]) == 2
    assert "journal.jsonl:1: damaged" in capsys.readouterr().err
    assert read(registry.resolve("@champion")).manifest.version == version


BETWEEN = """
import os, signal
def and_then_asked_to_end(function):
    def called(*arguments, **options):
        found = function(*arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        return found
    return called
"""


@pytest.mark.parametrize(
    ("after", "first", "status"),
    [("wait", "exit(7)", 7), ("posix_spawn", "__import__('time').sleep(60)", 241)],
)
def test_what_runs_first_in_an_image_is_asked_to_end_at_any_moment(
    after: str, first: str, status: int
) -> None:
    """Before it can pass that on, and when there is nobody left to pass it to: it stays until all have ended."""
    text = f"{BETWEEN}\nos.{after} = and_then_asked_to_end(os.{after})\n{_KEEPER}"
    done = subprocess.run([sys.executable, "-P", "-c", text, "-c", first], capture_output=True, timeout=300)
    assert (done.returncode, done.stderr) == (status, b"")
