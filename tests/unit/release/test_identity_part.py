"""The identity service as the controller keeps it: what does not come up is told, and starts elsewhere."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_world import NEW, OLD, World, controller, release, ticks

from assay.release.layout import Layout
from assay.release.ramp import identity as module
from assay.release.ramp import orders
from assay.release.ramp.identity import Identity, Known
from assay.release.ramp.parts import PartError, Real
from assay.release.server.files import Process, read_file, write_file

LISTENS = """
import socket, sys, time
with socket.socket() as here:
    here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    here.bind(("127.0.0.1", int(sys.argv[1].rpartition(":")[2])))
    here.listen()
    time.sleep(600)
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Identity]:
    """With a program that does nothing but listen in the place of gunicorn."""
    monkeypatch.setattr(
        module, "identity_process", lambda _, bind: ([sys.executable, "-c", LISTENS, bind], {})
    )
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(module, "TAKEN_SECONDS", 60.0)
    identity = Identity(release(), Layout(tmp_path / "r"))
    yield identity
    identity.stop()


def until_it_answers(identity: Identity) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            identity.ensure()
        except PartError as error:
            assert "new users have the stable version; it says why in" in str(error)
        else:
            return
        time.sleep(0.05)
    raise AssertionError("it does not come up")


def test_it_is_told_until_it_answers_and_its_port_is_kept(kept: Identity) -> None:
    with pytest.raises(PartError):
        kept.ensure()
    address = kept.address
    until_it_answers(kept)
    assert kept.address == address
    kept.stop()
    until_it_answers(Identity(kept.release, kept.layout))
    assert kept.address == address, "the front knows it there"


def test_a_worker_that_was_left_over_ends_and_its_port_is_kept(kept: Identity) -> None:
    """As of a gunicorn that was killed: it answered on, and had the port for good."""
    with pytest.raises(PartError):
        kept.ensure()
    address = kept.address
    until_it_answers(kept)
    file = kept.layout.folder / "run" / "identity" / "process.json"
    known = read_file(file, Known)
    assert known is not None
    write_file(file, Known(process=Process(pid=1, started=-2), port=known.port))
    with subprocess.Popen(["tail", "-f", file.with_name("output.log")], stdout=subprocess.DEVNULL) as reader:
        until_it_answers(kept)
        assert not known.process.alive
        assert reader.poll() is None, "who reads what it prints is none of its workers"
        reader.kill()
    assert kept.address == address


def test_where_its_port_was_taken_it_comes_up_on_another_one(
    kept: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAKEN_SECONDS", 0.2)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = int(other.getsockname()[1])
        gone = Known(process=Process(pid=1, started=-2), port=taken)
        kept.layout.folder.mkdir()
        file = kept.layout.folder / "run" / "identity" / "process.json"
        file.parent.mkdir(parents=True)
        write_file(file, gone)
        until_it_answers(kept)
        found = read_file(file, Known)
        assert found is not None and found.port != taken


def test_a_ramp_waits_for_it_and_a_roll_back_does_not(tmp_path: Path) -> None:
    world = World(tmp_path / "r")
    built = controller(world)
    built.begin(OLD, NEW, "a test")
    world.real = Real(0.0, 0.0, early=False, lacks="identity service: does not answer")
    assert ticks(world, built, most=5).phase == "preflight"
    assert built.progress.trouble == ["identity service: does not answer"]
    orders.place(world.layout, "rollback", by="ada", reason="no", at=None)
    assert ticks(world, built).phase == "rolled_back"
