"""Requests to versions and to the identity service, over connections that are kept for a second."""

import asyncio
import ssl
from dataclasses import dataclass

import anyio._backends._asyncio  # noqa: F401  # else imported within the first request
import httpcore  # noqa: F401  # likewise
import httpx

IDLE_SECONDS = 1.0
"""Below what any server keeps: a request never meets a connection that is closing."""
CONNECT_SECONDS = 1.0
MOST_CONNECTIONS = 512

Headers = list[tuple[bytes, bytes]]


class NoAnswer(Exception):
    """status: 502 where there was none, 504 where it took too long."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Upstream:
    """What is asked of whom."""

    address: str
    """`IP:PORT` or `unix:/PATH`."""
    method: str
    target: bytes
    headers: Headers
    body: bytes


class Versions:
    """Connections by address."""

    def __init__(self) -> None:
        self._transports: dict[str, httpx.AsyncHTTPTransport] = {}
        self._unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        """No version speaks TLS; httpx would read all authorities for each."""

    async def ask(self, asked: Upstream, seconds: float, *, last: bool = False) -> tuple[int, Headers, bytes]:
        """Status, headers and body as they are sent. last: nobody else is asked, so that a connection may take all of the time.

        Raises: NoAnswer.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(asked, seconds if last else min(seconds, CONNECT_SECONDS), seconds)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise NoAnswer(504, str(error)) from error
        except (httpx.TransportError, OSError, ValueError) as error:
            raise NoAnswer(502, str(error)) from error

    async def _ask(self, asked: Upstream, connect: float, seconds: float) -> tuple[int, Headers, bytes]:
        host = "assay" if asked.address.startswith("unix:") else asked.address
        request = httpx.Request(
            asked.method,
            httpx.URL(f"http://{host}", raw_path=asked.target),
            headers=asked.headers,
            content=asked.body,
            extensions={"timeout": {"connect": connect, "read": seconds, "write": seconds, "pool": seconds}},
        )
        answer = await self._transport(asked.address).handle_async_request(request)
        try:
            body = b"".join([part async for part in answer.aiter_raw()])
        finally:
            await answer.aclose()
        return answer.status_code, answer.headers.raw, body

    def _transport(self, address: str) -> httpx.AsyncHTTPTransport:
        if address not in self._transports:
            self._transports[address] = httpx.AsyncHTTPTransport(
                uds=address.removeprefix("unix:") if address.startswith("unix:") else None,
                trust_env=False,
                verify=self._unused,
                limits=httpx.Limits(
                    max_connections=MOST_CONNECTIONS,
                    max_keepalive_connections=64,
                    keepalive_expiry=IDLE_SECONDS,
                ),
            )
        return self._transports[address]
