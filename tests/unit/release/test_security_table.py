"""The table that workers share: bounded, one step at a time, and nobody who dies in it holds up the others."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from assay.release.security.table import BUCKET, FullError, Table

NOW = 1000.0


def key(number: int, bucket: int = 0) -> bytes:
    """In a table of any size in that bucket."""
    return (bucket).to_bytes(8, "little") + number.to_bytes(8, "little")


def put(table: Table, name: bytes, value: int, ends: int = 2000, now: float = NOW) -> None:
    table.change(name, now, lambda _: (value, ends))


def test_values_are_kept_until_they_end(tmp_path: Path) -> None:
    table = Table(tmp_path / "t", 4 * BUCKET)
    put(table, key(1), 7, ends=1001)
    put(table, key(2), 2**64 - 1)
    assert (table.get(key(1), NOW), table.get(key(2), NOW), table.get(key(3), NOW)) == (7, 2**64 - 1, None)
    assert table.get(key(1), 1001) is None
    seen: list[int | None] = []
    table.change(key(1), 1001, lambda known: seen.append(known))
    assert seen == [None]


def test_what_has_ended_makes_room_and_what_has_not_does_not(tmp_path: Path) -> None:
    table = Table(tmp_path / "t", BUCKET)
    for number in range(BUCKET):
        put(table, key(number), number, ends=1100 + number)
    with pytest.raises(FullError):
        put(table, key(99), 99)
    assert [table.get(key(number), NOW) for number in range(BUCKET)] == list(range(BUCKET))
    put(table, key(99), 99, now=1100.0)
    assert (table.get(key(99), 1100), table.get(key(1), 1100), table.get(key(0), NOW)) == (99, 1, None)


def test_where_it_may_the_first_to_end_goes(tmp_path: Path) -> None:
    table = Table(tmp_path / "t", BUCKET, evict=True)
    for number in range(BUCKET + 1):
        put(table, key(number), number, ends=1100 + number)
    assert table.get(key(0), NOW) is None
    assert table.get(key(BUCKET), NOW) == BUCKET


def test_who_dies_between_a_key_and_its_value_leaves_a_place_that_has_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the value of the key that was there before."""
    table = Table(tmp_path / "t", BUCKET, evict=True)
    for number in range(BUCKET):
        put(table, key(number), number)
    values = table._values

    class Dead:
        def __setitem__(self, slot: int, value: int) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(table, "_values", Dead())
    with pytest.raises(KeyboardInterrupt):
        put(table, key(99), 99)
    monkeypatch.setattr(table, "_values", values)
    assert table.get(key(99), NOW) is None and table.get(key(BUCKET - 1), NOW) == BUCKET - 1


def test_a_part_of_two_keys_is_not_a_key(tmp_path: Path) -> None:
    """Keys lie side by side: sixteen bytes of two of them may spell a third."""
    table = Table(tmp_path / "t", BUCKET)
    put(table, bytes(8) + b"A" * 8, 1)
    put(table, b"B" * 8 + bytes(8), 2)
    assert table.get(b"A" * 8 + b"B" * 8, NOW) is None


def test_another_file_or_size_is_refused(tmp_path: Path) -> None:
    Table(tmp_path / "t", BUCKET).close()
    with pytest.raises(ValueError, match="remove it"):
        Table(tmp_path / "t", 2 * BUCKET)
    (tmp_path / "other").write_text("something else, and kept\n")
    with pytest.raises(ValueError, match="remove it"):
        Table(tmp_path / "other", BUCKET)
    assert (tmp_path / "other").read_text() == "something else, and kept\n"


def test_its_room_is_taken_at_the_start(tmp_path: Path) -> None:
    """A map over a file with holes would end the worker by a signal when the disk is full."""
    Table(tmp_path / "t", 64 * BUCKET).close()
    found = (tmp_path / "t").stat()
    assert found.st_blocks * 512 >= found.st_size
    assert found.st_mode & 0o777 == 0o600


def _count(path: Path, begin: Any) -> None:
    table = Table(path, BUCKET)
    begin.wait()
    for _ in range(2000):
        table.change(key(1), NOW, lambda known: ((known or 0) + 1, 2000))


def test_no_change_of_many_processes_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(3)
    workers = [context.Process(target=_count, args=(tmp_path / "t", begin)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert Table(tmp_path / "t", BUCKET).get(key(1), NOW) == 6000


def _hang(path: Path, inside: Any) -> None:
    def update(_: int | None) -> None:
        inside.set()
        time.sleep(600)

    Table(path, 2 * BUCKET).change(key(1), NOW, update)


def test_who_is_killed_in_a_change_or_stopped_in_it_holds_up_nobody_elsewhere(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    table, inside = Table(tmp_path / "t", 2 * BUCKET), context.Event()
    worker = context.Process(target=_hang, args=(tmp_path / "t", inside))
    worker.start()
    assert inside.wait(300)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    put(table, key(1, bucket=1), 1)  # another bucket: no wait
    assert table.get(key(1), NOW) is None  # nor for reading the same
    os.kill(worker.pid, signal.SIGKILL)
    put(table, key(1), 5)
    assert table.get(key(1), NOW) == 5
    worker.join()
