"""The prediction log: one JSON line per prediction, one file at a time per worker, never in a request's way.

A request hands over what it has (`PredictionLog.put`, no copy, no system call). The thread that hands over makes the lines too,
of so many at once and once their answers are on their way: another that computes beside it takes the interpreter from one
request after the other. That other writes, and makes the lines of the few that wait where little comes. What waits is bounded:
when the disk does not keep up, new lines are dropped and counted.
Files are never renamed: a full one is closed and another begun, so collectors that follow by name miss nothing.
"""

import atexit
import contextlib
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from assay.release.observations import Prediction

logger = logging.getLogger(__name__)

WAITING = 10_000
"""Most predictions that wait for the disk."""
HELD = 64 * 2**20
"""Most bytes of lines that wait for it."""
AGE = 0.25
"""Longest that a line waits while the disk keeps up, in seconds."""
BATCH = 16
"""Lines that are made at once, at least, in 0.1 to 0.3 ms: fewer cost more each, more make the requests behind them wait."""
WRITE = 2**14
"""Bytes after which a write is begun: more can wait in one."""
QUIET = 60.0
"""Least seconds between two warnings about the same log."""


class Served(NamedTuple):
    """One request and its answer, as the server has them. The arrays are not changed afterwards."""

    request_id: str
    model_version: str
    latency_ms: float
    inputs: npt.NDArray[np.float32]
    """[samples, ...], as the client sent them."""
    outputs: npt.NDArray[np.float32] | None
    """[samples, classes]; None: the model gave no answer."""
    timestamp: float
    status: int = 200
    user: str = ""
    assigned: str = ""
    route: str = ""
    shadow: bool = False
    queue_ms: float | None = None
    batch_size: int | None = None


class Counts(NamedTuple):
    """Since the worker began."""

    written: int
    dropped: int
    waiting: int


def lines(batch: Sequence[Served]) -> list[bytes]:
    """One line each, newline included, in order. Summaries of requests of the same size are computed together."""
    groups: dict[tuple[int, int | None], list[int]] = {}
    for index, served in enumerate(batch):
        classes = None if served.outputs is None else served.outputs.shape[1]
        groups.setdefault((served.inputs[0].size, classes), []).append(index)
    made = [b""] * len(batch)
    for indices in groups.values():
        for index, text in zip(indices, _alike([batch[index] for index in indices]), strict=True):
            made[index] = text
    return made


def _alike(group: Sequence[Served]) -> Iterator[bytes]:
    """The lines of requests whose samples have the same size."""
    samples = [
        np.ascontiguousarray(served.inputs, dtype="<f4").reshape(len(served.inputs), -1) for served in group
    ]
    inputs = _summary(np.concatenate(samples) if len(samples) > 1 else samples[0])
    answers = [served.outputs for served in group if served.outputs is not None]
    outputs = _highest(np.concatenate(answers)) if answers else None
    begin = 0
    for served, flat in zip(group, samples, strict=True):
        own = slice(begin, begin := begin + len(flat))
        digest = hashlib.sha256(flat.data).hexdigest()[:32]
        yield _line(served, digest, [column[own] for column in inputs], outputs and outputs[own])


def _summary(flat: npt.NDArray[np.float32]) -> list[list[float | None]]:
    """Mean, standard deviation, least and largest of each row of [samples, values], to six decimals."""
    mean = np.add.reduce(flat, axis=1) / flat.shape[1]
    apart = flat - mean[:, None]
    std = np.sqrt(np.einsum("ij,ij->i", apart, apart) / flat.shape[1])
    least, largest = np.minimum.reduce(flat, axis=1), np.maximum.reduce(flat, axis=1)
    return [np.round(column.astype(np.float64), 6).tolist() for column in (mean, std, least, largest)]


def _highest(scores: npt.NDArray[np.float32]) -> list[tuple[int, float, int]]:
    """Of each row its best class, that one's score, and how many scores are not finite."""
    wrong = scores.shape[1] - np.count_nonzero(np.isfinite(scores), axis=1)
    best = np.round(np.maximum.reduce(scores, axis=1).astype(np.float64), 6)
    return list(zip(scores.argmax(axis=1).tolist(), best.tolist(), wrong.tolist(), strict=True))


def _line(
    served: Served,
    digest: str,
    inputs: list[list[float | None]],
    outputs: list[tuple[int, float, int]] | None,
) -> bytes:
    prediction: Prediction = {
        "timestamp": served.timestamp,
        "request_id": served.request_id,
        "model_version": served.model_version,
        "status": served.status,
        "latency_ms": round(served.latency_ms, 3),
        "queue_ms": None if served.queue_ms is None else round(served.queue_ms, 3),
        "batch_size": served.batch_size,
        "user": served.user,
        "assigned": served.assigned,
        "route": served.route,
        "shadow": served.shadow,
        "input_shape": list(served.inputs.shape),
        "input_digest": digest,
        "input_mean": inputs[0],
        "input_std": inputs[1],
        "input_min": inputs[2],
        "input_max": inputs[3],
        "output_class": None if outputs is None else [best for best, _, _ in outputs],
        "output_value": None if outputs is None else [value for _, value, _ in outputs],
        "non_finite": sum(wrong for _, _, wrong in outputs or ()),
    }
    return orjson.dumps(prediction, option=orjson.OPT_APPEND_NEWLINE)


class PredictionLog:
    """The log of one worker. Made after the worker has been forked.

    folder: of the version's logs, made where it is missing, also when it is removed meanwhile.
    megabytes: size at which a file is closed and another begun. files: closed ones that are kept, of all workers.
    told: called with how many lines were `written` or `dropped`, by any thread.
    later: runs what it is given when answers have been sent, in the thread that puts; else it is run at once.
    """

    def __init__(
        self,
        folder: Path,
        megabytes: float = 100,
        files: int = 10,
        told: Callable[[str, int], None] = lambda *_: None,
        later: Callable[[Callable[[], None]], object] = lambda work: work(),
    ) -> None:
        self._folder, self._bytes, self._files = folder, int(megabytes * 1e6), files
        self._told, self._later = told, later
        self._queue: deque[Served] = deque()
        self._made: deque[list[bytes]] = deque()
        self._taking = threading.RLock()
        """Of `_queue` and `_made` together: lines are written in the order of requests. Held for a batch at most."""
        self._put = self._put_bytes = self._taken_bytes = 0
        self._refused = self._lost = self._written = 0
        self._pending: list[bytes] = []
        self._file: int | None = None
        self._path: Path | None = None
        self._size = self._number = 0
        self._warned = -QUIET
        self._wake, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def put(self, served: Served) -> None:
        """Takes a microsecond, and never waits for the disk. Called by one thread."""
        waiting, held = self._waiting(), self._put_bytes - self._taken_bytes
        if waiting >= WAITING or held > HELD or self._ended.is_set():
            self._refused += 1
            self._told("dropped", 1)
            return
        self._put += 1
        self._queue.append(served)
        if len(self._queue) == BATCH:
            self._later(self._make)

    def _make(self) -> None:
        """The lines of all that were handed over."""
        with self._taking:
            made = self._lines(list(self._queue))
            self._queue.clear()
            self._put_bytes += sum(map(len, made))
            self._made.append(made)
        if self._waiting() > WAITING // 4 or self._put_bytes - self._taken_bytes > HELD // 4:
            self._wake.set()

    def counts(self) -> Counts:
        return Counts(self._written, self._refused + self._lost, self._waiting())

    def _waiting(self) -> int:
        return self._put - self._written - self._lost

    def close(self, seconds: float = 5.0) -> None:
        """Write what waits, for as long at most; what could not be written counts as dropped. At exit, if not before."""
        atexit.unregister(self.close)
        self._ended.set()
        self._wake.set()
        self._thread.join(seconds)
        if not self._thread.is_alive():
            lost = self._waiting()
            self._lost += lost
            self._told("dropped", lost)
            self._close_file()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._wake.wait(AGE / 2)
            self._wake.clear()
            self._drain()
        self._drain()

    def _drain(self) -> None:
        """Write what was made, or where nothing was, the few that wait. Until the disk refuses: then what waits goes on waiting."""
        few = not self._made
        while self._pending or self._made or (self._queue and (few or self._ended.is_set())):
            if not self._pending:
                few = few and bool(self._made)
                self._take()
            if not self._pending:
                continue
            try:
                self._write(b"".join(self._pending))
            except OSError as error:
                # Where nothing can be written, it may be that nothing can be removed either.
                with contextlib.suppress(OSError):
                    if self._path is not None and not self._size:
                        self._path.unlink(missing_ok=True)
                self._close_file()
                self._warn(f"{self._folder}: the prediction log cannot be written: {error.strerror}")
                return
            self._written += len(self._pending)
            self._told("written", len(self._pending))
            self._pending = []

    def _take(self) -> None:
        """Lines that were made, as many as one write takes, or else those of what waits."""
        few: list[Served] = []
        size = 0
        with self._taking:
            while self._made and size < WRITE:
                made = self._made.popleft()
                size += sum(map(len, made))
                self._pending += made
            if not self._pending:
                # One by one: what is put meanwhile stays.
                few.extend(self._queue.popleft() for _ in range(len(self._queue)))
        self._taken_bytes += size
        self._pending += self._lines(few)

    def _lines(self, batch: list[Served]) -> list[bytes]:
        try:
            return lines(batch)
        except Exception:
            # One of them has no line. It is found, and costs none of the others theirs.
            made: list[bytes] = []
            for served in batch:
                try:
                    made += lines([served])
                except Exception as error:
                    with self._taking:
                        self._lost += 1
                    self._told("dropped", 1)
                    self._warn(f"request {served.request_id}: no line of the prediction log: {error}")
            return made

    def _write(self, lines: bytes) -> None:
        """All of them or none: a file never ends in half a line. Raises: OSError."""
        file = self._opened()
        done = 0
        try:
            while done < len(lines):
                done += os.write(file, lines[done:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, self._size)
            raise
        self._size += done
        if self._size >= self._bytes:
            self._close_file()

    def _opened(self) -> int:
        """The file in use; another where there is none, or somebody removed it."""
        if self._file is not None and self._path is not None:
            if os.fstat(self._file).st_nlink:
                return self._file
            self._close_file()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        # To the microsecond: no two logs, of whatever process, begin a file of the same name.
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        self._path = self._folder / f"{stamp}-{os.getpid()}-{self._number:06d}.jsonl"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        self._file, self._size = os.open(self._path, flags, 0o640), 0
        # Ends with the worker, however that ends: no other worker takes the file for a closed one.
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        prune(self._folder, self._files)
        return self._file

    def _close_file(self) -> None:
        file, self._file, self._path = self._file, None, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def _warn(self, text: str) -> None:
        if time.monotonic() - self._warned >= QUIET:
            self._warned = time.monotonic()
            logger.warning("%s; predictions go on, dropped lines are counted", text)


def prune(folder: Path, files: int) -> None:
    """Remove the oldest closed files beyond as many. A file is closed when nobody holds its lock."""
    closed = [path for path in sorted(folder.glob("*.jsonl")) if _closed(path)]
    for path in closed[: max(0, len(closed) - files)]:
        path.unlink(missing_ok=True)


def _closed(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True
