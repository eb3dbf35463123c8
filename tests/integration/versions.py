"""Two versions and an identity service that do as they are told: real servers, whose answers tests can read.

python -m versions version PORT KEEP_ALIVE      a model's version; ROLE names it, the file BEHAVIOUR says how it does
python -m versions identity PORT KEEP_ALIVE     the identity service: `Bearer NAME` is the user NAME, unless NAME begins with `bad`
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from assay.release.routing.copies import Copies
from assay.release.security.salt import user_digest

Scope = dict[str, Any]
COPIES = Copies(Path(os.environ["COPIES"])) if "COPIES" in os.environ else None


async def version(scope: Scope, receive: Any, send: Any) -> None:
    """Answers with what it got. Behaviours: good, hang, crash, redirect, an HTTP status, slow SECONDS.

    A file beside that of the behaviour has a byte for each request to /predict.
    """
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    content, more = b"", True
    while more:
        message = await receive()
        content += message.get("body", b"")
        more = message.get("more_body", False)
    given = dict(scope["headers"])
    if COPIES is not None and b"x-assay-shadow" not in given:
        COPIES.offer(given, content)
    behaviour = Path(os.environ["BEHAVIOUR"]).read_text().split()
    if scope["path"].startswith("/health"):
        behaviour = ["good"]
    else:
        with Path(os.environ["BEHAVIOUR"]).with_suffix(".got").open("a") as file:
            file.write(".")
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    status = int(behaviour[0]) if behaviour[0].isdigit() else 200
    if behaviour[0] == "hang":
        await asyncio.sleep(60)
    if behaviour[0] == "slow":
        await asyncio.sleep(float(behaviour[1]))
    if b"x-assay-shadow" in given:
        with Path(os.environ["BEHAVIOUR"]).with_suffix(".shadows").open("a") as file:
            file.write(json.dumps(headers) + "\n")
    if behaviour[0] == "crash":
        os._exit(1)
    body = json.dumps({"role": os.environ["ROLE"], "headers": headers, "bytes": len(content)}).encode()
    extra = [(b"x-accel-redirect", b"/_assay/front")] if behaviour[0] == "redirect" else []
    await answer(send, status, body, [(b"content-type", b"application/json"), *extra])


async def identity(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    token = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
    with Path(os.environ["ASKED"]).open("a") as file:
        file.write(token + "\n")
    if not token or token.startswith("bad"):
        await answer(send, 401, b"", [])
        return
    seconds = b"1" if token.startswith("brief") else b"600"
    user = user_digest(os.environ["SALT"].encode(), token).encode()
    await answer(send, 200, b"", [(b"x-assay-user", user), (b"x-accel-expires", seconds)])


async def answer(send: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


class OneWrite(HttpToolsProtocol):
    """An answer goes out whole, as a real version's does: killed between its head and its body, no front could save it."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Together(transport, self.loop))


class Together:
    """A transport that sends at once what was written in one turn of the loop."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts:
            self._transport.write(b"".join(parts))


if __name__ == "__main__":
    uvicorn.run(
        {"version": version, "identity": identity}[sys.argv[1]],
        port=int(sys.argv[2]),
        timeout_keep_alive=int(sys.argv[3]),
        log_level="warning",
        http=OneWrite,
    )
