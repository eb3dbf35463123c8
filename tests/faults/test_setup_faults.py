"""A set-up that is interrupted, doubled, damaged, short of room or network, or given the wrong interpreter."""

import ast
import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
SETUP = REPOSITORY / "tools/setup.py"
SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
NOWHERE = "http://127.0.0.1:9/simple"

pytestmark = pytest.mark.xdist_group("setup")


def locked(name: str) -> str:
    """The lines of one package in the lock file."""
    lines = (REPOSITORY / "requirements/run.txt").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"{name}=="))
    last = next(number for number in range(first, len(lines)) if not lines[number].endswith("\\"))
    return "\n".join(lines[first : last + 1]) + "\n"


def replace(path: Path, text: str) -> None:
    """Another file in its place: the one that was there is a link into uv's cache."""
    path.unlink()
    path.write_text(text)


def point_elsewhere(path: Path) -> None:
    """At another folder, whose path is as long."""
    path.write_text(path.read_text().replace("src", "etc"))


class Checkout:
    """An environment of two small packages, and the command that sets it up."""

    def __init__(self, folder: Path) -> None:
        self.environment = folder / "environment"
        self.lock = folder / "lock.txt"
        self.cache = folder / "cache"
        self.lock.write_text(locked("typing-extensions") + locked("idna"))

    def command(self, *options: str) -> list[str]:
        where = ["--environment", str(self.environment), "--requirements", str(self.lock)]
        return [sys.executable, str(SETUP), *where, "--needs", "1000000", *options]

    def set_up(self, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*options),
            env={**os.environ, "UV_CACHE_DIR": str(self.cache), **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def started(self) -> "subprocess.Popen[str]":
        environment = {**os.environ, "UV_CACHE_DIR": str(self.cache)}
        return subprocess.Popen(self.command(), env=environment, stderr=subprocess.PIPE, text=True)

    def made(self, *options: str, **variables: str) -> str:
        """What a set-up that succeeds says."""
        result = self.set_up(*options, **variables)
        assert result.returncode == 0, result.stderr
        self.imports()
        return result.stderr

    def refused(self, *options: str, **variables: str) -> str:
        """What a set-up that fails says."""
        result = self.set_up(*options, **variables)
        assert result.returncode == 1, result.stderr
        assert "Traceback" not in result.stderr
        return result.stderr

    def imports(self) -> None:
        code = "import idna, typing_extensions, assay"
        subprocess.run([self.environment / "bin/python", "-c", code], check=True, cwd="/")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """One that is set up; each test that breaks it sees it mended."""
    checkout = Checkout(tmp_path_factory.mktemp("ready"))
    assert "ready after" in checkout.made()
    return checkout


def test_a_second_call_does_nothing_and_says_nothing(ready: Checkout) -> None:
    stamp = ready.environment / "assay-setup.json"
    before = stamp.stat()
    assert ready.made() == ""
    assert stamp.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / SITE / "idna/core.py").unlink(), "idna/core.py is missing"),
        (lambda root: replace(root / SITE / "idna/core.py", "x = 1\n"), "idna/core.py was changed"),
        (lambda root: point_elsewhere(root / SITE / "assay.pth"), "assay.pth was changed"),
        (lambda root: (root / "bin/python").unlink(), "its interpreter does not run"),
        (lambda root: (root / "assay-setup.json").write_text("{"), "was not finished"),
    ],
)
def test_a_broken_environment_is_named_and_made_anew(damage: Any, said: str, ready: Checkout) -> None:
    damage(ready.environment)
    told = ready.made()
    assert said in told and "making it anew" in told
    assert ready.made() == ""


def test_a_file_that_is_damaged_in_the_cache_too_is_fetched_anew(ready: Checkout) -> None:
    path = ready.environment / SITE / "idna/core.py"
    assert path.stat().st_nlink > 1, "it is the file in the cache"
    path.write_text("x = 1\n")
    told = ready.made()
    assert "idna/core.py was changed; making it anew" in told
    assert "the cache of uv is damaged for idna; fetching anew" in told
    (ready.environment / SITE / "idna/core.py").unlink()
    assert "cache" not in ready.made(), "the cache is mended too"


def test_other_requirements_are_another_environment(ready: Checkout) -> None:
    before = ready.lock.read_text()
    ready.lock.write_text(before + locked("packaging"))
    assert "is from other requirements" in ready.made()


def test_a_moved_checkout_is_set_up_anew(ready: Checkout, tmp_path: Path) -> None:
    moved = Checkout(tmp_path)
    moved.lock.write_text(ready.lock.read_text())
    subprocess.run(["cp", "-a", ready.environment, moved.environment], check=True)
    assert f"was made for {ready.environment}" in moved.made()


def test_a_killed_set_up_is_begun_anew(checkout: Checkout) -> None:
    process = checkout.started()
    assert process.stderr is not None
    assert "making" in process.stderr.readline()
    time.sleep(1.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert "was not finished; making it anew" in checkout.made()


def test_an_interrupted_set_up_says_how_to_go_on(checkout: Checkout) -> None:
    process = checkout.started()
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; the same command begins it anew" in told
    checkout.made()


def test_of_two_set_ups_at_once_the_second_waits(checkout: Checkout) -> None:
    both = [checkout.started() for _ in range(2)]
    told = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(told).count("ready after") == 1
    assert "another set-up" in "".join(told)
    checkout.imports()


def test_a_package_with_another_hash_is_refused(checkout: Checkout) -> None:
    checkout.lock.write_text(re.sub("sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, checkout.lock.read_text()))
    assert "a package is not the one that was locked: its hash differs" in checkout.refused()
    assert "was not finished" in checkout.refused(), "it is not taken for a whole one afterwards"


def test_an_index_that_is_not_reached_is_named(checkout: Checkout, tmp_path: Path) -> None:
    told = checkout.refused(
        PIP_INDEX_URL=NOWHERE,
        UV_DEFAULT_INDEX=NOWHERE,
        PIP_CONFIG_FILE=os.devnull,
        PIP_CACHE_DIR=str(tmp_path / "pip"),
        UV_CACHE_DIR=str(tmp_path / "uv"),
    )
    assert "the package index could not be reached" in told
    assert "HTTPS_PROXY or PIP_INDEX_URL" in told


def test_too_little_room_is_told_before_anything_is_fetched(checkout: Checkout) -> None:
    told = checkout.refused("--needs", str(10**16))
    assert "GB are free" in told and "10000000.0 GB" in told
    assert not checkout.environment.exists()


def test_too_little_room_does_not_cost_the_environment_that_is_there(ready: Checkout) -> None:
    kept = ready.lock.read_text()
    ready.lock.write_text(kept + "# another\n")
    assert "GB are free" in ready.refused("--needs", str(10**16))
    ready.lock.write_text(kept)
    assert ready.made() == ""


def test_a_folder_that_is_the_users_own_is_left_alone(checkout: Checkout) -> None:
    checkout.environment.mkdir()
    (checkout.environment / "thesis.txt").write_text("years of work")
    assert "was not made by this set-up, so it is left alone" in checkout.refused()
    assert (checkout.environment / "thesis.txt").read_text() == "years of work"


def test_a_missing_lock_file_is_named(checkout: Checkout) -> None:
    checkout.lock.unlink()
    assert f"{checkout.lock}: no such lock file" in checkout.refused()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)])
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_as_one(small_disk: Path) -> None:
    checkout = Checkout(small_disk)
    assert "the disk is full; make room" in checkout.refused()
    assert "GB are free" in checkout.refused("--needs", str(10**8)), "nothing was left that counts as whole"


def test_a_checkout_that_cannot_be_written_is_told(small_disk: Path) -> None:
    checkout = Checkout(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    told = checkout.refused()
    assert "cannot be written" in told and "set up in a checkout that you own" in told


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SETUP.parent))
    return importlib.import_module("setup")


@pytest.mark.parametrize(
    ("version", "said"), [((3, 6, 9), "3.6 is too old, Assay needs 3.11"), ((3, 99, 0), "3.99 is too new")]
)
def test_an_unfit_interpreter_is_refused_with_what_to_do(
    version: tuple[int, int, int], said: str, modules: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(modules.Failure, match=said) as refusal:
        modules.check_python()
    assert "make demo PYTHON=/path/to/" in str(refusal.value)


@pytest.mark.parametrize("name", ["setup.py", "install.py"])
def test_an_old_interpreter_can_read_it(name: str) -> None:
    ast.parse((SETUP.parent / name).read_text(), feature_version=(3, 6))
