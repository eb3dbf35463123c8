"""What the controller tells a supervisor while that has a version on its way: real files. And a group that nobody could find."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.clock import now
from assay.records import Typed
from assay.release.environments.prepare import Environment
from assay.release.layout import Layout
from assay.release.ramp.processes import Supervised, version_of
from assay.release.ramp.state import Version
from assay.release.server import groups
from assay.release.server.files import GroupFiles, Service, Swap, Wanted, read_file, this_process, write_file
from assay.release.server.settings import Settings
from assay.release.server.swaps import broken_off


def swap(number: int, bundle: Path, state: str = "preparing") -> Swap:
    return Swap.model_validate(
        {"number": number, "action": "swap", "bundle": str(bundle), "state": state, "began": now()}
    )


@pytest.fixture
def serving(tmp_path: Path, bundle: Path) -> Callable[..., Supervised]:
    """Of a release whose stable supervisor (this process) serves `bundle`, with what it has in hand."""

    def make(*swaps: Swap) -> Supervised:
        layout = Layout(tmp_path / "r")
        folder = layout.service("stable")
        files = GroupFiles(folder / "groups" / "1")
        files.workers.mkdir(parents=True, exist_ok=True)
        write_file(files.settings, Settings(bundle=bundle))
        write_file(files.group, this_process())
        service = Service(
            process=this_process(), address="::1", port=1, role="stable", active=1, swaps=list(swaps)
        )
        write_file(folder / "service.json", service)
        return Supervised(layout)

    return make


def asked(parts: Supervised) -> Wanted | None:
    return read_file(parts.layout.service("stable") / "wanted.json", Wanted)


def version(bundle: Path) -> Version:
    return Version(version=version_of(bundle) or "", folder=os.path.relpath(bundle))


def test_a_version_in_preparation_that_is_wanted_no_more_is_given_up(
    serving: Callable[..., Supervised], bundle: Path, other_bundle: Path
) -> None:
    parts = serving(swap(7, other_bundle))
    running = parts.running("stable")
    assert (running.version, running.coming) == (version_of(bundle), version_of(other_bundle))
    parts.serve("stable", version(bundle))
    wanted = asked(parts)
    assert wanted is not None and wanted.action == "abandon"
    parts.serve("stable", version(bundle))
    assert asked(parts) == wanted, "once, and it is waited for"


def test_a_version_in_preparation_that_is_wanted_is_waited_for(
    serving: Callable[..., Supervised], other_bundle: Path
) -> None:
    parts = serving(swap(7, other_bundle))
    parts.serve("stable", version(other_bundle))
    assert asked(parts) is None
    parts = serving(swap(8, other_bundle, "loading"))
    parts.serve("stable", version(other_bundle))
    assert asked(parts) is None and parts.running("stable").coming is None


def test_what_a_killed_supervisor_left_is_ended(bundle: Path) -> None:
    before = Service(process=this_process(), address="::1", port=1, role="stable", taken=7, swaps=[])
    going, over = swap(7, bundle), swap(6, bundle).model_copy(update={"ended": now(), "state": "done"})
    before = before.model_copy(update={"swaps": [over, going]})
    order = Wanted(number=8, action="back")
    assert [one.state for one in broken_off(before, order)] == ["done", "failed", "failed"]
    assert [one.number for one in broken_off(before, order)] == [6, 7, 8]
    taken = before.model_copy(update={"taken": 8})
    assert [one.number for one in broken_off(taken, order)] == [6, 7], "it was taken: nothing to tell"
    assert len(broken_off(before.model_copy(update={"taken": None}), order)) == 2


class Sleeping(Environment):
    def command(self, *_: object) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-c", "import time; time.sleep(60)"], dict(os.environ)


def test_a_group_whose_number_cannot_be_written_down_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is full just then: each try to start it again left one."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def noted(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        started.append(popen(*arguments, **options))
        return started[-1]

    def full(path: Path, content: Typed) -> None:
        if path.name == "group.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_file(path, content)

    monkeypatch.setattr(subprocess, "Popen", noted)
    monkeypatch.setattr(groups, "write_file", full)
    with socket.socket() as listener, pytest.raises(OSError, match="No space"):
        groups.start(tmp_path, 1, Settings(bundle=tmp_path), listener, Sleeping("host", "host"))
    [child] = started
    try:
        assert child.returncode is not None
    finally:
        child.kill()
        child.wait()
