"""The prediction log: whole lines, in bounded time and space, and no request waits for it."""

import errno
import fcntl
import hashlib
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from assay.release import log
from assay.release.log import PredictionLog, Served, lines, prune
from assay.release.observations import Prediction

PATIENCE = 60.0
_close = os.close


def served(number: int = 0, samples: int = 1, **changes: Any) -> Served:
    pixels = np.arange(samples * 12, dtype=np.float32).reshape(samples, 2, 2, 3)
    scores = np.tile(np.array([0.25, 0.5, 0.25], dtype=np.float32), (samples, 1))
    return Served(f"r{number}", "v1", 1.25, pixels, scores, 1e9)._replace(**changes)


def written(folder: Path) -> list[dict[str, Any]]:
    texts = [path.read_text() for path in sorted(folder.glob("*.jsonl"))]
    assert all(text.endswith("\n") for text in texts if text), "half a line"
    return [json.loads(text) for text in "".join(texts).splitlines()]


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def test_a_line_has_what_was_promised() -> None:
    one = served(samples=2, user="u", assigned="stable", route="split", queue_ms=0.5, batch_size=4)
    found = json.loads(lines([one])[0])
    assert set(found) == set(Prediction.__annotations__)
    assert found["input_shape"] == [2, 2, 2, 3]
    assert found["input_digest"] == hashlib.sha256(one.inputs.tobytes()).hexdigest()[:32]
    assert found["input_mean"] == [5.5, 17.5]
    assert found["input_std"] == pytest.approx([np.arange(12).std()] * 2, abs=1e-5)
    assert (found["input_min"], found["input_max"]) == ([0, 12], [11, 23])
    assert (found["output_class"], found["output_value"], found["non_finite"]) == ([1, 1], [0.5, 0.5], 0)
    assert (found["latency_ms"], found["queue_ms"], found["batch_size"]) == (1.25, 0.5, 4)


def test_lines_made_together_are_those_made_apart() -> None:
    other = served(3)._replace(inputs=np.ones((2, 5), np.float32), outputs=None, status=500)
    batch = [served(0), served(1, samples=3), other, served(4, samples=2)]
    assert lines(batch) == [lines([one])[0] for one in batch]
    assert json.loads(lines(batch)[2])["output_value"] is None


def test_scores_that_are_not_finite_are_counted_and_null() -> None:
    scores = np.array([[math.nan, 1.0, math.inf]], np.float32)
    found = json.loads(lines([served(outputs=scores)])[0])
    assert (found["non_finite"], found["output_value"]) == (2, [None])


def test_all_that_was_put_is_there_after_the_end(tmp_path: Path) -> None:
    writer = PredictionLog(tmp_path / "logs")
    for number in range(500):
        writer.put(served(number))
    writer.close(PATIENCE)
    assert [found["request_id"] for found in written(tmp_path / "logs")] == [f"r{n}" for n in range(500)]
    assert writer.counts() == (500, 0, 0)
    writer.put(served())
    assert writer.counts().dropped == 1


def test_lines_are_made_by_who_puts_and_the_few_that_are_left_by_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that makes them beside requests stands in the way of each."""
    makers: dict[str, set[str]] = {}

    def noted(batch: list[Served]) -> list[bytes]:
        makers.setdefault(threading.current_thread().name, set()).update(one.request_id for one in batch)
        return lines(batch)

    monkeypatch.setattr(log, "lines", noted)
    monkeypatch.setattr(log, "AGE", PATIENCE)
    writer = PredictionLog(tmp_path)
    for number in range(2 * log.BATCH + 3):
        writer.put(served(number))
    writer.close(PATIENCE)
    own = threading.current_thread().name
    assert makers.keys() == {own, "prediction-log"} and len(makers[own]) == 2 * log.BATCH
    assert makers["prediction-log"] == {f"r{2 * log.BATCH + place}" for place in range(3)}


def test_lines_wait_until_answers_are_sent_and_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "AGE", PATIENCE)
    sent: list[Callable[[], None]] = []
    writer = PredictionLog(tmp_path, later=sent.append)
    for number in range(log.BATCH + 3):
        writer.put(served(number))
    assert len(sent) == 1 and not writer._made, "nothing is made while requests are answered"
    sent.pop()()
    assert [len(made) for made in writer._made] == [log.BATCH + 3]
    for number in range(log.BATCH):  # the loop ends, and never runs what it was given
        writer.put(served(log.BATCH + 3 + number))
    writer.close(PATIENCE)
    assert [found["request_id"] for found in written(tmp_path)] == [f"r{n}" for n in range(2 * log.BATCH + 3)]
    assert writer.counts() == (2 * log.BATCH + 3, 0, 0)


def test_what_is_put_while_lines_are_taken_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two lines of what takes them."""
    monkeypatch.setattr(log, "AGE", PATIENCE)
    writer = PredictionLog(tmp_path)
    numbers = iter(range(log.BATCH - 1))

    def put(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code is PredictionLog._take.__code__ and event == "line":
            for number in itertools.islice(numbers, 1):
                writer.put(served(number))
        return put

    before = sys.gettrace()
    sys.settrace(put)
    try:
        writer._take()
    finally:
        sys.settrace(before)
    number = next(numbers)
    writer.put(served(number))
    writer.close(PATIENCE)
    assert sorted(int(found["request_id"][1:]) for found in written(tmp_path)) == list(range(number + 1))
    assert number > 3 and writer.counts() == (number + 1, 0, 0)


def test_a_line_does_not_wait_for_the_next(tmp_path: Path) -> None:
    writer = PredictionLog(tmp_path)
    writer.put(served())
    eventually(lambda: written(tmp_path))
    writer.close(PATIENCE)


def test_a_line_waits_for_a_quarter_of_a_second_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class Noted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return super().wait(timeout)

    monkeypatch.setattr(log.threading, "Event", Noted)
    writer = PredictionLog(tmp_path)
    writer.put(served())
    eventually(lambda: written(tmp_path))
    writer.close(PATIENCE)
    assert 0 < max(waits) <= 0.25


def test_a_line_is_not_for_everybody_and_a_trouble_is_told_once_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = PredictionLog(tmp_path)
    for one in (served(0), served(1, user=object()), served(2, user=object())):
        writer.put(one)
    writer.close(PATIENCE)
    assert [path.stat().st_mode & 0o007 for path in tmp_path.iterdir()] == [0]
    assert writer.counts() == (1, 2, 0) and len(caplog.records) == 1


def test_files_are_closed_by_size_and_the_oldest_removed(tmp_path: Path) -> None:
    writer = PredictionLog(tmp_path, megabytes=1e-6, files=3)
    for number in range(6):
        writer.put(served(number))
        eventually(lambda number=number: writer.counts().written > number)
    writer.close(PATIENCE)
    prune(tmp_path, 3)
    assert [found["request_id"] for found in written(tmp_path)] == ["r3", "r4", "r5"]


def test_a_living_worker_s_file_is_never_removed(tmp_path: Path) -> None:
    old = tmp_path / "20000101T000000-1-000001.jsonl"
    old.write_text("{}\n")
    with old.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        prune(tmp_path, 0)
        assert old.exists()
    prune(tmp_path, 0)
    assert not old.exists()


def test_a_removed_folder_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    writer = PredictionLog(folder)
    writer.put(served(0))
    eventually(lambda: writer.counts().written == 1)
    shutil.rmtree(folder)
    writer.put(served(1))
    eventually(lambda: writer.counts().written == 2)
    writer.close(PATIENCE)
    assert [found["request_id"] for found in written(folder)] == ["r1"]


def test_what_waits_is_written_when_the_folder_can_be_again(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    writer = PredictionLog(tmp_path / "logs")
    writer.put(served(0))
    eventually(lambda: writer.counts().waiting == 1 and not writer._queue)
    (tmp_path / "logs").unlink()
    eventually(lambda: writer.counts().written == 1)
    writer.close(PATIENCE)


FULL = """
import resource, sys, time
from pathlib import Path
from assay.release.log import PredictionLog
sys.path.insert(0, sys.argv[2])
from test_log import served
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
writer = PredictionLog(Path(sys.argv[1]))
for number in range(200):
    writer.put(served(number))
deadline = time.monotonic() + 1
while time.monotonic() < deadline:  # it tries again and again
    time.sleep(0.1)
writer.close(60)
print(*writer.counts())
"""


@pytest.mark.parametrize("limit", [2_000, 20_000])
def test_a_full_disk_costs_lines_that_are_counted_and_leaves_no_half_line(tmp_path: Path, limit: int) -> None:
    """The kernel refuses what goes beyond so many bytes of a file, in the middle of the first or the second batch."""
    source = str(Path(log.__file__).parents[2])
    arguments = [sys.executable, "-c", FULL, str(tmp_path), str(Path(__file__).parent), str(limit)]
    done = subprocess.run(
        arguments, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": source}, check=True
    )
    counted, dropped, waiting = map(int, done.stdout.split())
    assert counted + dropped == 200
    assert dropped == 200 if limit < 5_000 else counted >= log.BATCH
    assert waiting == 0
    assert len(written(tmp_path)) == counted
    assert all(path.stat().st_size for path in tmp_path.iterdir()), "empty files pile up"
    assert "cannot be written" in done.stderr


def test_a_disk_that_is_made_read_only_for_a_while_ends_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the empty file can be removed then."""

    def refused(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as read_only:
        read_only.setattr(log.os, "write", refused)
        read_only.setattr(Path, "unlink", refused)
        read_only.setattr(log.os, "close", lambda file: (_close(file), refused()))
        writer = PredictionLog(tmp_path)
        writer.put(served())
        eventually(lambda: writer._number > 1 or not writer._thread.is_alive())
    eventually(lambda: writer.counts().written == 1)
    writer.close(PATIENCE)


def test_a_disk_that_hangs_delays_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that does not return: what waits is bounded, what is beyond is dropped and counted."""
    hangs = threading.Event()
    write = os.write

    def stuck(file: int, data: bytes) -> int:
        hangs.wait(PATIENCE)
        return write(file, data)

    monkeypatch.setattr(log.os, "write", stuck)
    monkeypatch.setattr(log, "WAITING", 100)
    writer = PredictionLog(tmp_path)
    for number in range(1000):
        writer.put(served(number))
    counts = writer.counts()
    assert counts.written == 0
    assert counts.dropped >= 1000 - 100 - log.BATCH
    writer.close(seconds=0.05)
    hangs.set()
    eventually(lambda: not writer._thread.is_alive())
    assert writer.counts().written + writer.counts().dropped == 1000


def test_lines_that_wait_are_bounded_by_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "HELD", 0)
    (tmp_path / "logs").write_text("no folder: nothing is written")
    writer = PredictionLog(tmp_path / "logs")
    for number in range(200):
        writer.put(served(number))
    assert writer.counts().dropped > 0
    writer.close(PATIENCE)
    assert writer.counts() == (0, 200, 0)


def test_a_request_without_a_line_costs_no_other_its_line(tmp_path: Path) -> None:
    writer = PredictionLog(tmp_path)
    for one in (served(0), served(1, user=object()), served(2)):
        writer.put(one)
    writer.close(PATIENCE)
    assert [found["request_id"] for found in written(tmp_path)] == ["r0", "r2"]
    assert writer.counts() == (2, 1, 0)


def test_who_counts_is_told_of_every_line(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    writer = PredictionLog(tmp_path, told=lambda what, count: told.append((what, count)))
    for one in (served(0), served(1, user=object()), served(2)):
        writer.put(one)
    writer.close(PATIENCE)
    writer.put(served(3))
    totals = {what: sum(count for kind, count in told if kind == what) for what in ("written", "dropped")}
    assert totals == {"written": 2, "dropped": 2}


def test_a_process_that_ends_writes_what_waits(tmp_path: Path) -> None:
    text = "import sys; sys.path.insert(0, sys.argv[2]); from test_log import *; PredictionLog(Path(sys.argv[1])).put(served())"
    source = str(Path(log.__file__).parents[2])
    arguments = [sys.executable, "-c", text, str(tmp_path), str(Path(__file__).parent)]
    subprocess.run(arguments, env={**os.environ, "PYTHONPATH": source}, check=True)
    assert len(written(tmp_path)) == 1
