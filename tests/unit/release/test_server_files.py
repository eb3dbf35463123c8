"""Files in which processes meet, looked at while they are written."""

import os
import signal
from pathlib import Path

import pytest
from leaderless import leaderless, wait_until_dead

from assay.release import ports
from assay.release.ports import free_port
from assay.release.routing.processes import ended
from assay.release.server.files import GroupFiles, Worker, process_of, this_process, write_quickly


def test_a_worker_is_one_while_it_writes_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a version of two would be whole with one."""
    files = GroupFiles(tmp_path)
    files.workers.mkdir()
    ready = Worker(process=this_process(), state="ready")
    seen: list[int] = []
    replace = Path.replace

    def looked_at(self: Path, target: Path) -> Path:
        seen.append(len(files.living_workers()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", looked_at)
    for _ in range(2):
        write_quickly(files.worker(1), ready)
    assert seen == [0, 1] and files.living_workers() == [ready]


def test_a_port_is_one_that_no_connection_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert ports.FIRST <= free_port() < least
    monkeypatch.setattr(ports, "_RANGE", tmp_path / "none")
    assert free_port() >= 1024, "where the kernel says nothing, one that it gives"


def test_a_process_is_there_until_the_last_of_its_threads_is_gone() -> None:
    """Its files and ports are held until then."""
    with leaderless() as (_, process):
        assert process_of(process).alive and not ended(process)
        os.kill(process, signal.SIGKILL)
        wait_until_dead(process)
        assert not process_of(process).alive and ended(process)
