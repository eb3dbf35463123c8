"""The ASGI application of one worker."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from assay.release.schema import Limits
from assay.release.security.refusal import Refusal
from assay.release.server.documents import page
from assay.release.server.metrics import Metrics
from assay.release.server.predictor import Answer, Predictor
from assay.release.server.refusals import RefusedRequest

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_LENGTH = b"content-length"


class Application:
    """Answers requests. `closing`: whether connections are asked to end with their next answer.

    health: what `/health/ready` says of this version. It is only made once the model gave the expected outputs.
    """

    def __init__(
        self,
        predictor: Predictor,
        metrics: Metrics,
        limits: Limits,
        health: dict[str, Any],
        interface: bytes,
    ) -> None:
        self.predictor = predictor
        self.metrics = metrics
        self.limits = limits
        self._health = health
        self._interface = interface
        self.closing = False
        self._gets: dict[str, Callable[[], Answer]] = {
            "/health/live": lambda: Answer(200, b'{"live":true}'),
            "/health/ready": self._ready,
            "/metrics": lambda: Answer(200, self.metrics.text(), b"text/plain; version=0.0.4; charset=utf-8"),
            "/openapi.json": lambda: Answer(200, self._interface),
            "/docs": lambda: Answer(200, page(self._interface), b"text/html; charset=utf-8"),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "started with lifespan off and without websockets"
        path, method = scope["path"], scope["method"]
        if path == "/predict" and method == "POST":
            answer = await self._predict(scope, receive)
        else:
            answer = self._other(path, method)
        await _send(answer, send, close=self.closing or answer.close)

    async def _predict(self, scope: Scope, receive: Receive) -> Answer:
        began = time.perf_counter()
        headers = dict(scope["headers"])
        try:
            user = self.predictor.identify(scope["headers"])
            body = await self._body(headers, receive)
        except Refusal as refused:
            return self.predictor.refuse_unread(refused, headers, began)
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        answer = self.predictor.answer(user, headers, target, body, time.perf_counter())
        return answer if isinstance(answer, Answer) else await answer

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Raises: RefusedRequest for one that is too large, comes too slowly, or ends before it is whole."""
        declared = headers.get(_LENGTH, b"0")
        if not declared.isdigit() or int(declared) > self.limits.body_bytes:
            raise self.too_large(declared)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.timeout_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RefusedRequest(
                            400, "body_size", "the connection ended before the body", close=True
                        )
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self.limits.body_bytes:
                        raise self.too_large(None)
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise RefusedRequest(
                408,
                "body_time",
                f"the body was not whole after {self.limits.timeout_seconds:g} s",
                close=True,
            ) from None

    def too_large(self, declared: bytes | None) -> RefusedRequest:
        said = f"{declared.decode('latin-1')} bytes are" if declared else "it is"
        return RefusedRequest(
            413,
            "body_size",
            f"{said} too large; write at most {self.limits.body_bytes} bytes in one request",
            close=True,
        )

    def _ready(self) -> Answer:
        body = orjson.dumps({"ready": not self.closing} | self._health)
        return Answer(503 if self.closing else 200, body)

    def _other(self, path: str, method: str) -> Answer:
        get = self._gets.get(path)
        if get is not None and method in ("GET", "HEAD"):
            return get()
        known = get is not None or path == "/predict"
        allowed = b"POST" if path == "/predict" else b"GET, HEAD"
        places = ", ".join(["POST /predict", *(f"GET {place}" for place in self._gets)])
        reason = f"{method} {path} is not here; there are {places}"
        body = orjson.dumps({"error": "method" if known else "path", "reason": reason[:500]})
        return Answer(
            405 if known else 404, body, headers=((b"allow", allowed),) if known else (), close=True
        )


async def _send(answer: Answer, send: Send, *, close: bool) -> None:
    headers = [
        (b"content-type", answer.content_type),
        (_LENGTH, b"%d" % len(answer.body)),
        *answer.headers,
    ]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
