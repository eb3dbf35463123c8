"""Groups of workers as their files say they are: which live, when they are ended, who has their socket. And orders by file."""

import os
import signal
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from assay.release.server import groups, handover
from assay.release.server.files import (
    GroupFiles,
    Process,
    Service,
    Wanted,
    Worker,
    this_process,
    write_file,
)
from assay.release.server.groups import KEPT_FOLDERS, Group, numbers, remove_ended
from assay.release.server.settings import Settings
from assay.release.server.swap_command import order, outcome


def group(folder: Path, **says: Any) -> Group:
    """Of a master and a worker, both of them this process."""
    files = GroupFiles(folder)
    files.workers.mkdir(parents=True, exist_ok=True)
    write_file(files.group, this_process())
    write_file(files.worker(1), Worker(**{"process": this_process(), "state": "ready"} | says))
    return Group(1, files, Settings(bundle=folder))


def test_a_process_that_has_another_s_number_is_not_taken_for_it(tmp_path: Path) -> None:
    ours = this_process()
    assert ours.alive and not Process(pid=ours.pid, started=ours.started + 1).alive
    made = group(tmp_path, process=Process(pid=ours.pid, started=ours.started + 1))
    assert made.led and made.workers == []


def test_a_group_is_whole_when_each_of_its_workers_is_ready(tmp_path: Path) -> None:
    made = group(tmp_path)
    assert not made.whole, "it is to have two"
    write_file(made.files.worker(2), Worker(process=this_process(), state="loading"))
    assert not made.whole
    write_file(made.files.worker(2), Worker(process=this_process(), state="ready"))
    assert made.whole


@pytest.mark.parametrize(("says", "asked"), [({"connections": 1}, 90), ({"accepting": True}, 90), ({}, 2)])
def test_a_group_is_asked_to_end_when_nobody_is_connected_or_patience_is_over_and_at_last_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: dict[str, Any], asked: int
) -> None:
    now, sent = [1000.0], list[tuple[float, int, int]]()
    monkeypatch.setattr(groups.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        groups, "send", lambda processes, number: sent.append((now[0] - 1000, len(processes), number))
    )
    made = group(tmp_path, **says)
    made.begin_ending()
    while not sent or sent[-1][2] != signal.SIGKILL:
        assert not made.ended(patience=90) and now[0] < 2000
        now[0] += 1
    grace = made.settings.serving.limits.timeout_seconds + groups._KILL_SECONDS
    assert sent == [(asked + 1, 1, signal.SIGTERM), (asked + 1 + grace + 1, 2, signal.SIGKILL)]


def test_folders_of_the_last_groups_that_ended_are_kept(tmp_path: Path) -> None:
    group(tmp_path / "3")
    for number in (1, 2, *range(4, 12)):
        (tmp_path / str(number)).mkdir()
    remove_ended(tmp_path)
    assert numbers(tmp_path) == [3, *range(12 - KEPT_FOLDERS, 12)]


@pytest.mark.parametrize(("user", "given"), [(os.getuid(), 1), (0, 1), (65_533, 0)])
def test_the_socket_is_handed_to_this_user_and_root_alone(
    monkeypatch: pytest.MonkeyPatch, user: int, given: int
) -> None:
    sent: list[list[int]] = []
    monkeypatch.setattr(handover.socket, "send_fds", lambda _, __, files: sent.append(files))

    class Caller:
        def __enter__(self) -> "Caller":
            return self

        def __exit__(self, *_: object) -> None:
            """Closed."""

        def getsockopt(self, *_: object) -> bytes:
            return struct.pack("3i", 1, user, 0)

    class Listener:
        def accept(self) -> tuple[Caller, str]:
            return Caller(), ""

    with socket.socket() as listening:
        handover.give(Listener(), listening)  # type: ignore[arg-type]
    assert len(sent) == given


def supervised(folder: Path) -> Path:
    write_file(folder / "service.json", Service(process=this_process(), address="::1", port=1, role="stable"))
    return folder


def test_each_order_has_a_number_of_its_own(tmp_path: Path) -> None:
    supervised(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: order(tmp_path, "back"), range(40)))
    assert sorted(found) == list(range(1, 41))


def test_who_waits_for_an_order_that_another_overtook_is_told(tmp_path: Path) -> None:
    number = order(supervised(tmp_path), "back")
    assert outcome(tmp_path, number) is None
    write_file(tmp_path / "wanted.json", Wanted(number=number + 1, action="retire"))
    with pytest.raises(ValueError, match="another order came before this one was taken"):
        outcome(tmp_path, number)
    (tmp_path / "service.json").unlink()
    with pytest.raises(ValueError, match="no `assay release serve` runs there"):
        outcome(tmp_path, number)
