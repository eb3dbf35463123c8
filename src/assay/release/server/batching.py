"""Requests that wait at the same time go through the model together."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.release.server.refusals import RefusedRequest

Array = NDArray[np.float32]
INLINE_SECONDS = 0.005
"""A batch that takes longer runs in a thread, so that health and other requests are answered meanwhile."""


class Scored(NamedTuple):
    scores: Array
    queued: float
    """Seconds from the request to the start of the forward pass."""


class _Waiting(NamedTuple):
    samples: Array
    since: float
    result: "asyncio.Future[Scored]"


class Batcher:
    """Collects samples until there are `size`, or the first has waited for `wait` seconds.

    inline: run the model in the event loop. Else one batch at a time runs in a thread, and what comes meanwhile is the next.
    A request is never divided: one with more than `size` samples is a batch of its own. waiting: requests that may
    wait; more are refused.
    """

    def __init__(
        self,
        scores: Callable[[Array], Array],
        *,
        size: int,
        wait: float,
        inline: bool,
        waiting: int = 1024,
    ) -> None:
        self._scores = scores
        self._size, self._wait, self._most = size, wait, waiting
        self._queue: deque[_Waiting] = deque()
        self._samples = 0
        self._thread = None if inline else ThreadPoolExecutor(1, thread_name_prefix="model")
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None

    def put(self, samples: Array) -> "asyncio.Future[Scored]":
        """Raises: RefusedRequest where too many wait."""
        if len(self._queue) >= self._most:
            raise RefusedRequest(
                503,
                "overloaded",
                f"{self._most} requests wait for the model already; send it again later",
                headers=((b"retry-after", b"1"),),
            )
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Scored] = loop.create_future()
        self._queue.append(_Waiting(samples, time.perf_counter(), result))
        self._samples += len(samples)
        if self._samples >= self._size:
            self._flush()
        elif self._timer is None and not self._busy:
            self._timer = loop.call_later(self._wait, self._flush)
        return result

    def _flush(self) -> None:
        """Run what waits; in a thread, as much as is one batch."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and not self._busy:
            batch = self._take()
            if not batch:
                continue
            samples = batch[0].samples if len(batch) == 1 else np.concatenate([one.samples for one in batch])
            began = time.perf_counter()
            if self._thread is None:
                try:
                    _deliver(batch, self._scores(samples), began)
                except Exception as error:
                    _fail(batch, error)
                continue
            self._busy = True
            job = asyncio.get_running_loop().run_in_executor(self._thread, self._scores, samples)
            job.add_done_callback(partial(self._done, batch, began))

    def _take(self) -> list[_Waiting]:
        """The next batch, without those whose caller has gone."""
        batch: list[_Waiting] = []
        count = 0
        while self._queue and (not batch or count + len(self._queue[0].samples) <= self._size):
            one = self._queue.popleft()
            self._samples -= len(one.samples)
            if not one.result.done():
                batch.append(one)
                count += len(one.samples)
        return batch

    def _done(self, batch: list[_Waiting], began: float, job: "asyncio.Future[Array]") -> None:
        self._busy = False
        error = job.exception()
        if error is None:
            _deliver(batch, job.result(), began)
        else:
            _fail(batch, error)
        self._flush()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def _deliver(batch: list[_Waiting], scores: Array, began: float) -> None:
    first = 0
    for one in batch:
        last = first + len(one.samples)
        if not one.result.done():
            one.result.set_result(Scored(scores[first:last], began - one.since))
        first = last


def _fail(batch: list[_Waiting], error: BaseException) -> None:
    for one in batch:
        if not one.result.done():
            one.result.set_exception(error)
