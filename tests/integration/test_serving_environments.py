"""Versions in environments of their own, really served: while one is being made, the one that answers is kept alive."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from keptalive import Traffic
from test_serving import BODY, PATIENCE, Served, eventually

from assay.records import sha256_file
from assay.release.bundle.manifest import REQUIREMENTS
from assay.release.bundle.read import read
from assay.release.environments.place import VARIABLE, Place, name_of
from assay.release.environments.prune import prune
from assay.release.server.files import Swap, process_of
from assay.release.server.groups import send

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "release"))
from made_bundle import made_bundle, made_results

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_results(tmp_path_factory.mktemp("served"), seeds=1)


@pytest.fixture(scope="module")
def bundles(results: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of two models, with locks of their own: each needs an environment of its own."""
    lock = tmp_path_factory.mktemp("lock") / "other.txt"
    lock.write_text((ROOT / "requirements/serve.txt").read_text() + "# another\n")
    return made_bundle(results, "mlp"), made_bundle(results, "wide", requirements=lock)


def place_of(bundle: Path, root: Path) -> Place:
    name = name_of("venv", bundle)
    assert name is not None
    return Place(root, name)


def make_by_hand(place: Place, bundle: Path) -> None:
    """What the set-up takes for its own, whole and current: packages are those of this environment, by a path file."""
    shutil.rmtree(place.folder, ignore_errors=True)
    venv.create(place.folder, symlinks=True)
    packages = next((place.folder / "lib").glob("python*/site-packages"))
    (packages / "these.pth").write_text(sysconfig.get_path("purelib") + "\n")
    stamp = {
        "finished": True,
        "lock": sha256_file(bundle / REQUIREMENTS),
        "python": ".".join(map(str, sys.version_info[:3])),
        "folder": str(place.folder),
        "site": str(packages),
        "distributions": [],
        "files": {},
    }
    (place.folder / "assay-setup.json").write_text(json.dumps(stamp))


@contextmanager
def held_up(place: Place) -> Iterator[None]:
    """Whoever makes this environment meanwhile waits, as for another that makes it."""
    place.root.mkdir(parents=True, exist_ok=True)
    with (place.root / f"{place.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def makers(place: Place) -> list[int]:
    """Processes that make this environment."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdigit() and os.fsencode(place.folder) in (path / "cmdline").read_bytes().split(
                b"\0"
            ):
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "environments"
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


@pytest.fixture
def served(bundles: tuple[Path, Path], tmp_path: Path, root: Path) -> Iterator[Served]:
    make_by_hand(place_of(bundles[0], root), bundles[0])
    running = Served(tmp_path / "service", bundles[0], "--environment", "venv")
    try:
        yield running
    finally:
        running.end()


def ordered(served: Served, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "assay.cli", "release", "swap", *words, "--folder", str(served.folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def last(served: Served, action: str) -> Swap | None:
    service = served.service
    found = [] if service is None else [swap for swap in service.swaps if swap.action == action]
    return found[-1] if found else None


def preparing(served: Served) -> bool:
    swap = last(served, "swap")
    return swap is not None and swap.state == "preparing"


def test_while_an_environment_is_made_what_answers_is_kept_alive(
    served: Served, bundles: tuple[Path, Path], root: Path
) -> None:
    names = [read(bundle).manifest.version for bundle in bundles]
    place = place_of(bundles[1], root)
    with held_up(place):
        order = ordered(served, str(bundles[1]))
        eventually(lambda: preparing(served) and makers(place), "its environment is being made")
        with Traffic(served.port, BODY) as traffic:
            traffic.more()
            before = served.active
            send(before.files.processes()[:1], signal.SIGKILL)
            eventually(lambda: served.active.number > before.number and served.active.led, "another master")
            traffic.more()
        assert not traffic.failed
        # All of it at once: connections wait in the supervisor's socket until it is started again.
        before = served.active
        send(before.files.processes(), signal.SIGKILL)
        eventually(lambda: served.active.number > before.number and served.active.led, "another group")
        with Traffic(served.port, BODY) as traffic:
            traffic.more()
            victim = served.active.workers[0].process
            send([victim], signal.SIGKILL)
            eventually(lambda: not victim.alive and served.active.whole, "another worker")
            traffic.more()
        assert traffic.versions == {names[0]} and preparing(served), "all the while it is being made"
        make_by_hand(place, bundles[1])
    assert order.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "done"
    with Traffic(served.port, BODY) as traffic:
        traffic.more()
    assert traffic.versions == {names[1]} and not traffic.failed
    gone, stayed = prune(root, dict)
    assert gone == [] and all("in use by a process" in one.reasons for one in stayed), "both are served still"


def test_an_environment_that_is_being_made_is_given_up_when_asked(
    served: Served, bundles: tuple[Path, Path], root: Path
) -> None:
    place = place_of(bundles[1], root)
    with held_up(place):
        nothing = served.swap("--abandon")
        assert nothing.returncode == 1 and "no version is on its way" in nothing.stdout
        order = ordered(served, str(bundles[1]))
        eventually(lambda: preparing(served) and makers(place), "its environment is being made")
        given_up = served.swap("--abandon")
        assert given_up.returncode == 0, given_up
        said = order.communicate(timeout=PATIENCE)[0]
        assert order.returncode == 1 and "failed: abandoned" in said
        eventually(lambda: not makers(place), "nobody makes it any more")
        # Whoever ends the service ends what makes an environment for it.
        order = ordered(served, str(bundles[1]))
        eventually(lambda: preparing(served) and makers(place), "it is made again")
        served.process.terminate()
        assert served.process.wait(PATIENCE) == 0
        assert not makers(place) and not served.processes()
        assert order.wait(PATIENCE) == 2, "nobody takes the order any more"
    gone, stayed = prune(root, dict)
    assert [one.place.name for one in gone] == [place_of(bundles[0], root).name] and not stayed


def test_who_waits_for_a_supervisor_that_was_killed_is_told(
    served: Served, bundles: tuple[Path, Path], root: Path
) -> None:
    place = place_of(bundles[1], root)
    with held_up(place):
        order = ordered(served, str(bundles[1]))
        eventually(lambda: preparing(served) and makers(place), "its environment is being made")
        served.process.kill()
        served.process.wait()
        served.start()
        swap = last(served, "swap")
        assert swap is not None and swap.state == "failed" and "order it again" in str(swap.reason)
        assert order.wait(PATIENCE) in (1, 2), "by the one that came, or because there was none"
        send([process_of(number) for number in makers(place)], signal.SIGTERM)
