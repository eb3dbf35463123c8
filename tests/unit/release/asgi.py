"""One request to an ASGI application, without a server."""

from typing import Any, NamedTuple

import orjson


class Response(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


async def request(
    application: Any,
    path: str = "/predict",
    body: bytes = b"",
    *,
    method: str = "POST",
    parts: list[bytes] | None = None,
    ends: bool = True,
    **headers: str,
) -> Response:
    """parts: the body as it comes in; where it does not end, nothing more ever does. Names of headers with _ for -."""
    import asyncio

    waiting = parts if parts is not None else [body]
    sent: list[dict[str, Any]] = []
    given = {"content_type": "application/json", **headers}
    if parts is None:
        given = {"content_length": str(len(body)), **given}
    names = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting) or not ends}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "method": method,
        "headers": names,
    }
    await application(scope, receive, send)
    start, *bodies = sent
    return Response(start["status"], dict(start["headers"]), b"".join(one["body"] for one in bodies))
