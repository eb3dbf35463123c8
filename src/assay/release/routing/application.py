"""What a worker of Assay's own front does with a request: who asks, which version, and the other one where that fails."""

import asyncio
import hmac
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from assay.release.observations import Role
from assay.release.routing.forwarded import client
from assay.release.routing.gunicorn import FOLDER
from assay.release.routing.held import Active, Held
from assay.release.routing.identities import FILE as IDENTITIES
from assay.release.routing.identities import Identities
from assay.release.routing.lines import Lines
from assay.release.routing.nginx import ERRORS
from assay.release.routing.rates import FILE as RATES
from assay.release.routing.rates import Rates
from assay.release.routing.split import Choice
from assay.release.routing.upstream import NoAnswer, Upstream, Versions

FAILOVER = frozenset([500, 502, 503, 504])
CLIENT_LEFT = 499
DRAINED = 16
"""Times the largest body: as much of a larger one is read, and thrown away."""
ANONYMOUS = Choice("stable", "anonymous")
PLAIN = ("/health/live", "/health/ready", "/docs", "/openapi.json")
_OWN = frozenset(
    b"host connection keep-alive transfer-encoding te trailer upgrade proxy-connection content-length expect "
    b"x-forwarded-for x-forwarded-proto x-request-id x-assay-user x-assay-assigned x-assay-route x-assay-shadow "
    b"x-assay-front x-assay-share x-assay-generation".split()
)
"""Of a client's headers, those that are not passed on: the front's own, and those of the connection."""
_KEPT_BACK = frozenset(
    b"connection keep-alive transfer-encoding content-length server date upgrade trailer x-request-id cache-control "
    b"x-content-type-options x-frame-options referrer-policy strict-transport-security".split()
)
"""Of a version's headers likewise; and all that begin with `x-accel-`."""

_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_QUERY = re.compile(rb"[\x21-\x7e]{0,16384}")
"""What can be sent on. A request that cannot would seem to be a version's failure."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class Refused(Exception):
    """Answered by the front itself."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Request:
    """One request of `/predict` on its way."""

    held: Held
    halted: bool
    began: float = field(default_factory=time.perf_counter)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    user: str = ""
    client: str = ""
    """Address of whoever asks."""
    choice: Choice = ANONYMOUS
    tries: list[tuple[str, int | None, float, bool]] = field(default_factory=list)
    """Address, status (None: left before), seconds, whether the version answered."""

    def line(self, status: int, size: int, path: str) -> dict[str, Any]:
        """As nginx writes it."""
        held = self.held
        return {
            "timestamp": round(time.time(), 6),
            "request_id": self.id,
            "user": self.user,
            "assigned": self.choice.assigned,
            "route": self.choice.route,
            "status": status,
            "seconds": round(time.perf_counter() - self.began, 6),
            "share": 0 if self.halted else held.share,
            "generation": held.generation,
            "stable": held.stable,
            "candidate": held.candidate or "",
            "addresses": ", ".join(address for address, *_ in self.tries),
            "statuses": ", ".join("-" if status is None else str(status) for _, status, _, _ in self.tries),
            "times": ", ".join(f"{seconds:.6f}" for _, _, seconds, _ in self.tries),
            "headers": ", ".join(f"{seconds:.6f}" if said else "-" for _, _, seconds, said in self.tries),
            "path": path,
            "bytes": size,
        }


class Application:
    """ASGI, one per worker."""

    def __init__(self, folder: Path) -> None:
        self._active = Active(folder)
        self._versions = Versions()
        self._identities = Identities(self._versions, folder / IDENTITIES)
        self._lines = Lines()
        self._rates = Rates(folder / RATES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "lifespan is off"
        held, halted = self._active.now()
        scope["headers"] = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        request = Request(held, halted, client=_client(scope, held))
        if scope["path"] == "/predict":
            await self._predict(request, scope, receive, send)
        elif scope["path"] == "/_assay/front" and _opened(scope, held.token):
            share, early = (0, False) if halted else (held.share, bool(held.early and held.candidate))
            said = {"generation": held.generation, "share": share, "early": early, "worker": os.getpid()}
            await _answer(send, request, 200, [], orjson.dumps(said))
        elif scope["path"] in PLAIN:
            await self._plain(request, scope, send)
        else:
            await _refuse(send, request, 404)

    async def _predict(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        try:
            status, headers, body = await self._answered(request, scope, receive)
            size = len(body)
            if status != CLIENT_LEFT:
                await _answer(send, request, status, headers, body)
        except Refused as refused:
            status = refused.status
            await _refuse(send, request, status)
        self._lines.write(request.held.access, request.line(status, size, scope["path"]))

    async def _answered(self, request: Request, scope: Scope, receive: Receive) -> tuple[int, Headers, bytes]:
        held = request.held
        if held.per_address and not self._rates.take(request.client, held.per_address):
            raise Refused(429)
        if not _can_be_sent(scope):
            raise Refused(400)
        body = await _body(receive, held)
        authorization = [value for name, value in scope["headers"] if name == b"authorization"]
        if held.identity is not None and len(authorization) == 1:
            request.user = await self._identities.user(held.identity, authorization[0], held.salt)
        wishes = [value.decode("latin-1") for name, value in scope["headers"] if name == held.header.encode()]
        split = held.stopped if request.halted else held.split
        request.choice = split.choose(request.user, wishes[0] if len(wishes) == 1 else "")
        trying = asyncio.ensure_future(self._tried(request, scope, body))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({trying, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not trying.done():
                trying.cancel()
                await asyncio.wait({trying})
                return CLIENT_LEFT, [], b""
            return trying.result()
        finally:
            leaving.cancel()

    async def _tried(self, request: Request, scope: Scope, body: bytes) -> tuple[int, Headers, bytes]:
        """The candidate's answer where it gives one; else the stable version's."""
        held = request.held
        headers = _forwarded(scope, request)
        roles: list[Role] = ["candidate", "stable"] if request.choice.assigned == "candidate" else ["stable"]
        for role in roles:
            address = held.stable if role == "stable" else held.candidate
            assert address is not None
            last = role == "stable"
            began = time.perf_counter()
            try:
                query = scope["query_string"]
                target = b"/predict" + (b"?" + query if query else b"")
                asked = Upstream(address, scope["method"], target, headers, body)
                answer = await self._versions.ask(asked, held.timeout_seconds / 2, last=last)
            except NoAnswer as error:
                request.tries.append((address, error.status, time.perf_counter() - began, False))
                if last:
                    raise Refused(error.status) from error
            except asyncio.CancelledError:
                request.tries.append((address, None, time.perf_counter() - began, False))
                raise
            else:
                request.tries.append((address, answer[0], time.perf_counter() - began, True))
                if last or answer[0] not in FAILOVER:
                    return answer
        raise AssertionError("the stable version is always last")

    async def _plain(self, request: Request, scope: Scope, send: Send) -> None:
        """What a version says of itself comes from the stable one, as no user's request."""
        held = request.held
        if not _can_be_sent(scope):
            await _refuse(send, request, 400)
            return
        asked = Upstream(held.stable, "GET", scope["path"].encode(), _forwarded(scope, request), b"")
        try:
            await _answer(send, request, *await self._versions.ask(asked, held.timeout_seconds / 2))
        except NoAnswer as error:
            await _refuse(send, request, error.status)


def application() -> Application:
    """For gunicorn: `assay.release.routing.application:application()`."""
    return Application(Path(os.environ[FOLDER]))


def _opened(scope: Scope, token: str) -> bool:
    given = [value for name, value in scope["headers"] if name == b"x-assay-front"]
    return len(given) == 1 and hmac.compare_digest(given[0], token.encode())


def _client(scope: Scope, held: Held) -> str:
    peer = str((scope.get("client") or [""])[0])
    if not held.trusted:
        return peer
    return client(
        peer, [value for name, value in scope["headers"] if name == b"x-forwarded-for"], held.trusted
    )


def _can_be_sent(scope: Scope) -> bool:
    return _QUERY.fullmatch(scope["query_string"]) is not None and all(
        _VALUE.fullmatch(value) for _, value in scope["headers"]
    )


def _forwarded(scope: Scope, request: Request) -> Headers:
    """A header with an underscore goes no further: some servers take it for one with a hyphen."""
    header = request.held.header.encode()
    passed = [
        (name, value)
        for name, value in scope["headers"]
        if name not in _OWN and name != header and b"_" not in name
    ]
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    own = {
        b"host": hosts[0] if len(hosts) == 1 else b"assay",
        b"x-forwarded-for": request.client.encode(),
        b"x-forwarded-proto": b"https" if request.held.secure else b"http",
        b"x-request-id": request.id.encode(),
        b"x-assay-assigned": request.choice.assigned.encode(),
        b"x-assay-route": request.choice.route.encode(),
    }
    if request.user:
        own[b"x-assay-user"] = request.user.encode()
    return [*passed, *own.items()]


async def _body(receive: Receive, held: Held) -> bytes:
    """Raises: Refused for one that is too large or too slow."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(held.timeout_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(CLIENT_LEFT)
                part = message.get("body", b"")
                size += len(part)
                if size <= held.body_bytes:
                    parts.append(part)
                # A client that still sends when it is answered sees a broken connection, and no answer.
                if size > DRAINED * held.body_bytes or not message.get("more_body", False):
                    break
    except TimeoutError:
        raise Refused(408) from None
    if size > held.body_bytes:
        raise Refused(413)
    return b"".join(parts)


async def _left(receive: Receive) -> None:
    """Until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refuse(send: Send, request: Request, status: int) -> None:
    text = ERRORS.get(status, "the request was not understood")
    if status != CLIENT_LEFT:
        await _answer(
            send, request, status, [(b"content-type", b"application/json")], orjson.dumps({"error": text})
        )


async def _answer(send: Send, request: Request, status: int, headers: Headers, body: bytes) -> None:
    kept = [
        (n, v) for n, v in headers if n.lower() not in _KEPT_BACK and not n.lower().startswith(b"x-accel-")
    ]
    own = [
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request.id.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-store"),
    ]
    if request.held.secure:
        own.append((b"strict-transport-security", b"max-age=31536000"))
    await send({"type": "http.response.start", "status": status, "headers": [*kept, *own]})
    await send({"type": "http.response.body", "body": body})
