"""uvicorn's HTTP protocol with a short way for what nearly all requests are.

A `POST /predict` of known length is answered from the parser's callbacks, without the objects, task and messages that ASGI asks
for; that halves what a request costs beside the model. Everything else goes uvicorn's own way, to the same application.
"""

import asyncio
import http
import sys
import time
import traceback
from collections.abc import Awaitable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from assay.release.security.refusal import Refusal
from assay.release.server.application import Application
from assay.release.server.predictor import Answer
from assay.release.server.refusals import RefusedRequest

_PATH = b"/predict"
_GRACE_SECONDS = 0.1
"""Beyond the time for a body: what came while this process stood still is read before it counts as missing."""
_STATUS = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in http.HTTPStatus
}


class ShortProtocol(HttpToolsProtocol):
    """One connection. `_short`: the request that is being read or answered goes the short way."""

    def __init__(self, application: Application, **given: Any) -> None:
        super().__init__(**given)
        self._application = application
        self._predictor = application.predictor
        self._limits = application.limits
        self._short = False
        self._answering = False
        self._over = False
        """Nothing more is read: the connection ends with the answer that is being made."""
        self._parts: list[bytes] = []
        self._known: dict[bytes, bytes] = {}
        self._user = ""
        self._refused: Refusal | None = None
        self._keep = True
        self._slow: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        super().data_received(data)
        if self._short and not self._answering and self._slow is None and not self.transport.is_closing():
            self._slow = self.loop.call_later(self._limits.timeout_seconds, self._late)

    def on_message_begin(self) -> None:
        if self._answering:  # a second request before the first is answered: the client is to send it again
            self._over = True
            return
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._over:
            return
        if not self._is_short():
            super().on_headers_complete()
            return
        self._short = True
        self._parts = []
        self._keep = self.parser.should_keep_alive()
        self._refused = None
        try:
            self._user = self._predictor.identify(self.headers)
        except Refusal as refused:
            self._refused = refused

    def _is_short(self) -> bool:
        if self.url != _PATH or self.parser.get_method() != b"POST" or self.expect_100_continue:
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        if self.parser.get_http_version() != "1.1" or self.parser.should_upgrade():
            return False
        self._known = dict(self.headers)
        length = self._known.get(b"content-length", b"")
        return length.isdigit() and int(length) <= self._limits.body_bytes

    def on_body(self, body: bytes) -> None:
        if self._over:
            return
        if self._short:
            self._parts.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._over:
            return
        if not self._short:
            super().on_message_complete()
            return
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        began = time.perf_counter()
        try:
            if self._refused is not None:
                answer: Answer | Awaitable[Answer] = self._predictor.refuse_unread(
                    self._refused, self._known, began
                )
            else:
                body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                answer = self._predictor.answer(self._user, self._known, _PATH, body, began)
        except Exception as error:
            answer = _broken(error)
        if isinstance(answer, Answer):
            self._write(answer)
        else:
            self._answering = True
            task = self.loop.create_task(self._later(answer))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _later(self, answer: Awaitable[Answer]) -> None:
        try:
            found = await answer
        except Exception as error:
            found = _broken(error)
        self._answering = False
        self._write(found)

    def _write(self, answer: Answer) -> None:
        """One answer in one write."""
        self._short = False
        transport = self.transport
        if transport.is_closing():
            return
        close = self._over or answer.close or self._application.closing or not self._keep
        lines = [_STATUS[answer.status]]
        for name, value in (*self.server_state.default_headers, *answer.headers):
            lines.append(b"%s: %s\r\n" % (name, value))
        lines.append(
            b"content-type: %s\r\ncontent-length: %d\r\n%s\r\n"
            % (answer.content_type, len(answer.body), b"connection: close\r\n" if close else b"")
        )
        lines.append(answer.body)
        transport.write(b"".join(lines))
        self.server_state.total_requests += 1
        if close:
            self._over = True
            transport.close()
            return
        if self.flow.write_paused:  # who does not read answers is not read from
            self.flow.pause_reading()
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _late(self) -> None:
        """libuv runs timers before it reads."""
        self._slow = self.loop.call_later(_GRACE_SECONDS, self._too_slow)

    def _too_slow(self) -> None:
        self._slow = None
        if self._short and not self._answering:
            seconds = self._limits.timeout_seconds
            refused = RefusedRequest(
                408, "body_time", f"the body was not whole after {seconds:g} s", close=True
            )
            self._write(self._predictor.refuse_unread(refused, self._known, time.perf_counter() - seconds))

    def resume_writing(self) -> None:
        super().resume_writing()
        self.flow.resume_reading()

    def shutdown(self) -> None:
        """An idle connection ends, another with its answer."""
        if self._short:
            self._keep = False
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._slow is not None:
            self._slow.cancel()
        self._over = True
        super().connection_lost(exc)


def _broken(error: Exception) -> Answer:
    """For a defect of ours: told in the log, never to the caller."""
    traceback.print_exception(error, file=sys.stderr)
    return Answer(500, b'{"error":"internal","reason":"the server failed"}', close=True)
