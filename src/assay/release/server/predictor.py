"""One request to `/predict`, from its headers and body to an answer."""

import asyncio
import math
import os
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Iterable
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from assay.release.log import Served
from assay.release.schema import Serving
from assay.release.security.refusal import Refusal
from assay.release.server.batching import INLINE_SECONDS, Batcher
from assay.release.server.inputs import JSON, RAW, Inputs
from assay.release.server.metrics import Metrics
from assay.release.server.model import Model
from assay.release.server.plugs import Headers, Plugs
from assay.release.server.refusals import RefusedRequest

_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
_SHADOW = b"x-assay-shadow"
_ERROR_SECONDS = 1.0
"""Between two tracebacks in the worker's log: a model that fails for every request must not fill the disk."""


class Answer(NamedTuple):
    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    close: bool = False


class _Request(NamedTuple):
    """A request that was let in and understood."""

    request_id: str
    user: str
    headers: Headers
    body: bytes
    samples: NDArray[np.float32]
    began: float


class Predictor:
    """Of one worker."""

    def __init__(
        self,
        model: Model,
        classes: list[str],
        shape: tuple[int, int, int],
        version: str,
        serving: Serving,
        plugs: Plugs,
        metrics: Metrics,
    ) -> None:
        self._model = model
        self._inputs = Inputs(shape, serving.limits.samples)
        self._plugs, self._metrics = plugs, metrics
        self._timeout = serving.limits.timeout_seconds
        self._tail = b',"classes":%s,"model_version":%s,"request_id":"' % (
            orjson.dumps(classes),
            orjson.dumps(version),
        )
        self._version = version
        self._last_error = -math.inf
        size = serving.batching.size
        inline = model.device == "cpu" and model.seconds * size < INLINE_SECONDS
        self.batcher = (
            None
            if inline and size == 1
            else Batcher(
                model.scores,
                size=size,
                wait=serving.batching.wait_ms / 1000 if size > 1 else 0.0,
                inline=inline,
            )
        )

    def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Who asks, before the body is read. Raises: Refusal."""
        if self._plugs.identify is None:
            return ""
        return self._plugs.identify([value for name, value in headers if name == b"authorization"])

    def answer(
        self, user: str, headers: Headers, target: bytes, body: bytes, began: float
    ) -> Answer | Awaitable[Answer]:
        """At once where the model runs in the event loop. began: `perf_counter` when the request was whole."""
        request_id = _request_id(headers)
        try:
            if self._plugs.check is not None:
                self._plugs.check(b"POST", target, headers, body, request_id.encode())
            samples = self._inputs.read(headers.get(b"content-type", b""), body)
            request = _Request(request_id, user, headers, body, samples, began)
            if self.batcher is not None:
                return self._later(request)
            started = time.perf_counter()
            try:
                scores = self._model.scores(samples)
            except Exception as error:
                return self._failed(request, error)
            return self._scored(request, scores, started - began)
        except Refusal as refused:
            return self.refuse(refused, request_id, began)

    async def _later(self, request: _Request) -> Answer:
        assert self.batcher is not None
        try:
            async with asyncio.timeout(self._timeout):
                scores, _ = scored = await self.batcher.put(request.samples)
        except TimeoutError:
            refused = RefusedRequest(
                503, "timeout", f"no answer within {self._timeout:g} s; send it again later"
            )
        except RefusedRequest as overloaded:
            refused = overloaded
        except Exception as error:
            return self._failed(request, error)
        else:
            return self._scored(request, scores, scored.queued)
        return self.refuse(refused, request.request_id, request.began)

    def _scored(self, request: _Request, scores: NDArray[np.float32], queued: float) -> Answer:
        if not np.isfinite(scores).all():
            refused = RefusedRequest(500, "non_finite", "the model gave NaN or infinity for this input")
            return self._end(
                request, scores, queued, self._refusal(refused, request.request_id), "non_finite"
            )
        if RAW in request.headers.get(b"accept", b""):
            described = (
                (b"x-request-id", request.request_id.encode()),
                (b"x-model-version", self._version.encode()),
            )
            answer = Answer(200, scores.astype("<f4", copy=False).tobytes(), RAW, described)
        else:
            outputs = orjson.dumps(np.ascontiguousarray(scores), option=orjson.OPT_SERIALIZE_NUMPY)
            body = b'{"outputs":%s%s%s"}' % (outputs, self._tail, request.request_id.encode())
            answer = Answer(200, body)
        return self._end(request, scores, queued, answer, "ok")

    def _failed(self, request: _Request, error: Exception) -> Answer:
        now = time.monotonic()
        if now - self._last_error > _ERROR_SECONDS:
            self._last_error = now
            print(f"request {request.request_id}: the model failed", file=sys.stderr)
            traceback.print_exception(error)
        refused = RefusedRequest(
            500, "model_error", "the model failed on this input; nothing is known of why here"
        )
        return self._end(request, None, None, self._refusal(refused, request.request_id), "model_error")

    def _end(
        self,
        request: _Request,
        scores: NDArray[np.float32] | None,
        queued: float | None,
        answer: Answer,
        code: str,
    ) -> Answer:
        """Count, write down and copy a request that came to the model."""
        seconds = time.perf_counter() - request.began
        self._metrics.count(code, seconds, queued, len(request.samples))
        headers = request.headers
        shadow = _SHADOW in headers
        if self._plugs.log is not None:
            self._plugs.log(
                Served(
                    request.request_id,
                    self._version,
                    seconds * 1000,
                    request.samples,
                    scores,
                    time.time(),
                    answer.status,
                    request.user,
                    headers.get(b"x-assay-assigned", b"").decode("latin-1"),
                    headers.get(b"x-assay-route", b"").decode("latin-1"),
                    shadow,
                    None if queued is None else queued * 1000,
                )
            )
        if self._plugs.shadow is not None and not shadow:
            self._plugs.shadow(headers, request.body)
        return answer

    def refuse(self, refused: Refusal, request_id: str, began: float) -> Answer:
        """Count and answer a request that the model did not see."""
        self._metrics.count(refused.code, time.perf_counter() - began, None, 0)
        return self._refusal(refused, request_id)

    def refuse_unread(self, refused: Refusal, headers: Headers, began: float) -> Answer:
        """One whose body was not read to its end."""
        return self.refuse(refused, _request_id(headers), began)

    def _refusal(self, refused: Refusal, request_id: str) -> Answer:
        body = orjson.dumps({"error": refused.code, "reason": refused.reason, "request_id": request_id})
        close = isinstance(refused, RefusedRequest) and refused.close
        return Answer(refused.status, body, JSON, refused.headers, close)


def _request_id(headers: Headers) -> str:
    """The front's, or a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return os.urandom(16).hex()
