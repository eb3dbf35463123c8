"""The front's log as it is found: half written, rotated, truncated, torn by a full disk."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from made_access import line

from assay.release.observations import Access, Attempt
from assay.release.routing.access import AccessReader, parse
from assay.release.routing.rotation import shift


def test_both_attempts() -> None:
    attempts = (Attempt("candidate", 500, 0.1), Attempt("stable", 200, 0.15))
    assert parse(line()) == Access(1.5, "r", "u", "candidate", "split", attempts, 200, 0.25, 0.1, 3)


@pytest.mark.parametrize(
    ("changes", "statuses"),
    [
        ({"statuses": "504, 200", "headers": "-, 0.1"}, [None, 200]),
        ({"statuses": "502, 200", "headers": "-, 0.1", "times": "-, 0.1"}, [None, 200]),
        ({"statuses": "502, 200"}, [502, 200]),
        ({"addresses": "127.0.0.1:2 : 127.0.0.1:1", "statuses": "500 : 200", "headers": "1 : 1", "times": "1 : 1"}, [500, 200]),
        ({"status": 499, "statuses": "500, -", "headers": "0.1, -"}, [500, 499]),
        ({"status": 499, "statuses": "504, -", "headers": "-, -"}, [None, 499]),
    ],
)  # fmt: skip
def test_no_answer_is_no_status(changes: dict[str, object], statuses: list[int | None]) -> None:
    access = parse(line(**changes))
    assert access is not None and [attempt.status for attempt in access.attempts] == statuses


def test_what_reached_no_version_is_counted_apart(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.write_bytes(line(status=429, addresses="", statuses="", times="", headers="") + line())
    reader = AccessReader(path)
    assert len(reader.read()) == 1 and (reader.refused, reader.damaged) == (1, 0)


@pytest.mark.parametrize(
    "bad", [b"null\n", b"[]\n", b"{}\n", b"\xff\n", line(addresses="127.0.0.1:9"), line(statuses="")]
)
def test_damage_is_counted_and_the_rest_read(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "access.jsonl"
    path.write_bytes(line(request_id="1") + bad + line(request_id="2"))
    reader = AccessReader(path)
    assert [access.request_id for access in reader.read()] == ["1", "2"]
    assert reader.damaged == 1


def test_a_line_torn_by_a_full_disk_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.write_bytes(line(request_id="1")[:40] + line(request_id="2"))
    reader = AccessReader(path)
    assert [access.request_id for access in reader.read()] == ["2"] and reader.damaged == 1


def test_every_line_once_at_any_cut(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    content = b"".join(line(request_id=str(number)) for number in range(5))
    reader, found = AccessReader(path), []
    assert reader.read() == []
    for end in range(0, len(content) + 1, 7):
        path.write_bytes(content[:end])
        found += reader.read()
    path.write_bytes(content)
    found += reader.read()
    assert [access.request_id for access in found] == list("01234")
    path.write_bytes(line(request_id="new"))
    assert [access.request_id for access in reader.read()] == ["new"], "truncated"
    with path.open("ab") as log:
        log.write(line(request_id="next"))
    assert [access.request_id for access in reader.read()] == ["next"], "none for a second time"


def test_what_was_there_before_is_passed_over_where_it_is_not_wanted(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.with_name("access.jsonl.1").write_bytes(line(request_id="1"))
    path.write_bytes(line(request_id="2"))
    reader = AccessReader(path)
    reader.skip()
    with path.open("ab") as log:
        log.write(line(request_id="3"))
    assert [access.request_id for access in reader.read()] == ["3"]


def test_rotation_loses_nothing_and_a_reader_that_was_killed_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    reader, found = AccessReader(path), []
    for number in range(9):
        with path.open("ab") as old:
            old.write(line(request_id=f"{number}a"))
            if number % 2:
                found += reader.read()
                reader = AccessReader(path, positions=json_round(reader.positions))
            if number % 3 == 2:
                assert shift(path, 1, 3)
            # nginx writes to the old file until it is told to reopen.
            old.write(line(request_id=f"{number}b"))
    found += reader.read()
    assert sorted(access.request_id for access in found) == sorted(f"{n}{x}" for n in range(9) for x in "ab")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "access.jsonl.1",
        "access.jsonl.2",
        "access.jsonl.3",
    ]


def test_a_log_that_is_moved_while_it_is_looked_for_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between finding a file and reading it, and between finding one and the next."""
    path = tmp_path / "access.jsonl"
    path.write_bytes(line(request_id="old"))
    assert shift(path, 1, 5)
    path.write_bytes(line(request_id="1"))
    reader = AccessReader(path)
    found = [access.request_id for access in reader.read()]
    stat, open_, moves = Path.stat, Path.open, [3, 6, 9, 12]
    calls = 0

    def move() -> None:
        nonlocal calls
        calls += 1
        if calls in moves and not moved.is_set():
            moved.set()
            assert shift(path, 1, 5)
            with open_(path, "wb") as file:
                file.write(line(request_id=f"after {calls}"))
            moved.clear()

    def moving(of: Any) -> Any:
        def does(self: Path, *given: Any, **named: Any) -> Any:
            if not moved.is_set():
                move()
            return of(self, *given, **named)

        return does

    moved = threading.Event()
    monkeypatch.setattr(Path, "stat", moving(stat))
    monkeypatch.setattr(Path, "open", moving(open_))
    for _ in range(6):
        found += [access.request_id for access in reader.read()]
    monkeypatch.undo()
    found += [access.request_id for access in reader.read()]
    assert sorted(found) == sorted(["old", "1", *(f"after {call}" for call in moves)])
    assert reader.damaged == 0


def json_round(positions: dict[int, int]) -> dict[int, int]:
    return {int(inode): at for inode, at in json.loads(json.dumps(positions)).items()}


def test_small_logs_stay(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert not shift(path, 0, 3)
    path.write_bytes(b"12")
    assert not shift(path, 3, 3) and shift(path, 2, 1)
