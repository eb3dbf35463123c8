"""Files in which processes meet, looked at while they are written."""

from pathlib import Path

import pytest

from assay.release import ports
from assay.release.ports import free_port
from assay.release.server.files import GroupFiles, Worker, this_process, write_quickly


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
