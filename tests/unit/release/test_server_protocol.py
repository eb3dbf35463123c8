"""The short way through HTTP answers as uvicorn's own does: real sockets, whatever comes in whatever pieces."""

import asyncio
import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from made_bundle import made_bundle, made_results
from test_server_application import json_body, made
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from assay.release.bundle.read import read
from assay.release.schema import Batching, Limits
from assay.release.security.refusal import no_identity
from assay.release.server.model import load_model
from assay.release.server.plugs import Plugs
from assay.release.server.protocol import ShortProtocol

BODY = json_body([[7] * 64])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return read(made_bundle(made_results(tmp_path_factory.mktemp("protocol"), seeds=1), "mlp"))


@pytest.fixture(scope="module")
def model(bundle):
    return load_model(bundle)


@pytest.fixture
def protocols(monkeypatch):
    """Of the connections, in the order in which they were made."""
    found = []

    def noted(protocol, *given, made=ShortProtocol.connection_made):
        found.append(protocol)
        made(protocol, *given)

    monkeypatch.setattr(ShortProtocol, "connection_made", noted)
    return found


def post(body=BODY, *headers, path="/predict", version="1.1", length=None):
    said = f"Content-Length: {len(body) if length is None else length}"
    lines = [f"POST {path} HTTP/{version}", "Host: x", "Content-Type: application/json", said, *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Conversation:
    """Bytes to a server and answers from it."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, *pieces):
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.005)

    async def answer(self):
        """Status, headers, body; None where the connection is closed."""
        async with asyncio.timeout(120):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, body

    async def closed(self):
        async with asyncio.timeout(120):
            return await self.reader.read(1) == b""


def converse(application, *talks, short=True):
    """Each talk is a coroutine function over a connection of its own; they run one after another."""

    async def all_of_them():
        config = Config(
            application, lifespan="off", ws="none", access_log=False, proxy_headers=False, log_config=None
        )
        config.load()
        kind = partial(ShortProtocol, application) if short else HttpToolsProtocol
        make = partial(kind, config=config, server_state=ServerState(), app_state={})
        server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        try:
            for talk in talks:
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
                await talk(Conversation(reader, writer))
                writer.close()
        finally:
            server.close()

    asyncio.run(all_of_them())


REQUESTS = {
    "short": [post()],
    "in pieces": [post()[:40], post()[40:200], post()[200:]],
    "byte by byte of the head": [*(bytes([one]) for one in post()[:20]), post()[20:]],
    "with a query": [post(path="/predict?a=1")],
    "of the past": [post(version="1.0")],
    "chunked": [
        b"POST /predict HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    ],
    "expecting": [post(b"", "Expect: 100-continue", length=len(BODY)), BODY],
    "refused": [post(b"{}")],
    "empty": [post(b"")],
    "too large": [post(b"x" * 3000)],
    "too large by its word": [post(b"", length=10**12)],
    "elsewhere": [post(path="/other")],
    "closing": [post(BODY, "Connection: close")],
    "not a number": [post(BODY, length="abc")],
    "no HTTP": [b"hello\r\n\r\n"],
}


@pytest.mark.parametrize("name", REQUESTS)
def test_both_ways_answer_alike(bundle, model, name):
    def outcome(short):
        found = []

        async def talk(conversation):
            await conversation.send(*REQUESTS[name])
            head = await conversation.reader.readuntil(b"\r\n\r\n")
            if b" 100 " in head.split(b"\r\n")[0]:
                head = await conversation.reader.readuntil(b"\r\n\r\n")
            lines = head.decode().lower().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:] if line)
            body = await conversation.reader.readexactly(int(headers["content-length"]))
            content = json.loads(body) if body.startswith(b"{") else body
            if isinstance(content, dict):
                content.pop("request_id", None)
            found.extend([lines[0], content, headers.get("connection"), headers["content-type"]])

        converse(made(bundle, model, limits=Limits(body_bytes=2000)), talk, short=short)
        return found

    assert outcome(True) == outcome(False)


@pytest.mark.parametrize("size", [1, 4])
def test_a_connection_answers_many_requests_in_their_order(bundle, model, size):
    inputs, expected = bundle.golden()
    application = made(bundle, model, batching=Batching(size=size, wait_ms=1))
    tolerance = bundle.manifest.golden.tolerance

    async def talk(conversation):
        for place in range(5):
            await conversation.send(post(json_body(inputs[place : place + 1])))
            status, headers, body = await conversation.answer()
            assert status == 200 and "connection" not in headers
            assert np.abs(np.array(json.loads(body)["outputs"]) - expected[place]).max() <= tolerance
        await conversation.send(b"GET /health/live HTTP/1.1\r\n\r\n")
        assert (await conversation.answer())[0] == 200
        await conversation.send(post())
        assert (await conversation.answer())[0] == 200

    converse(application, talk)


def test_each_request_of_a_connection_is_let_in_or_refused_by_itself(bundle, model):
    application = made(bundle, model)

    def identify(values):
        if values != [b"Bearer good"]:
            raise no_identity("nobody")
        return "u"

    application.predictor._plugs = Plugs(identify=identify)

    async def talk(conversation):
        for token, expected in (("bad", 401), ("good", 200), ("bad", 401), ("good", 200)):
            await conversation.send(post(BODY, f"Authorization: Bearer {token}"))
            status, headers, _ = await conversation.answer()
            assert status == expected and "connection" not in headers
        await conversation.send(post())
        assert (await conversation.answer())[0] == 401

    converse(application, talk)


@pytest.mark.parametrize("target", ["/predict", "/predict?a=1"])
def test_what_was_signed_is_the_target_as_it_came(bundle, model, target):
    application, signed = made(bundle, model), []
    application.predictor._plugs = Plugs(check=lambda *said: signed.append(said))

    async def talk(conversation):
        await conversation.send(post(BODY, "X-Request-Id: r", path=target))
        assert (await conversation.answer())[0] == 200

    converse(application, talk)
    [(method, asked, headers, body, request_id)] = signed
    assert (method, asked, body, request_id) == (b"POST", target.encode(), BODY, b"r")
    assert headers[b"x-request-id"] == b"r"


def test_requests_sent_ahead_are_answered_in_order_or_to_be_sent_again(bundle, model):
    bodies = [json_body([[value] * 64]) for value in (1, 2, 3)]
    singles = []

    async def one_by_one(conversation):
        for body in bodies:
            await conversation.send(post(body))
            singles.append(json.loads((await conversation.answer())[2])["outputs"])

    async def ahead(conversation):
        await conversation.send(b"".join(map(post, bodies)))
        for single in singles:
            assert json.loads((await conversation.answer())[2])["outputs"] == single

    async def ahead_of_a_batch(conversation):
        await conversation.send(b"".join(map(post, bodies)))
        status, headers, body = await conversation.answer()
        assert status == 200 and json.loads(body)["outputs"] == singles[0]
        assert headers["connection"] == "close" and await conversation.closed()

    converse(made(bundle, model), one_by_one, ahead)
    converse(made(bundle, model, batching=Batching(size=4, wait_ms=20)), ahead_of_a_batch)


def test_a_body_that_does_not_come_ends_the_connection(bundle, model):
    async def talk(conversation):
        await conversation.send(post()[:-10])
        status, headers, body = await conversation.answer()
        assert status == 408 and json.loads(body)["error"] == "body_time"
        assert headers["connection"] == "close" and await conversation.closed()

    async def gone(conversation):
        await conversation.send(post()[:-10])

    converse(made(bundle, model, limits=Limits(timeout_seconds=0.1)), gone, talk)


def test_a_body_that_came_while_the_worker_stood_still_is_read(bundle, model, protocols):
    """The time for it is over by then, and the timer comes first: what lies in the socket is read all the same."""

    async def talk(conversation):
        whole = post()
        await conversation.send(whole[:-10])
        while protocols[0]._slow is None:
            await asyncio.sleep(0.001)
        conversation.writer.write(whole[-10:])
        timer = protocols[0]._slow
        over = timer._callback
        timer.cancel()
        over()
        assert (await conversation.answer())[0] == 200

    converse(made(bundle, model), talk)


def test_when_it_closes_the_next_answer_is_the_last(bundle, model):
    application = made(bundle, model)

    async def talk(conversation):
        await conversation.send(post())
        assert "connection" not in (await conversation.answer())[1]
        application.closing = True
        await conversation.send(post())
        status, headers, _ = await conversation.answer()
        assert status == 200 and headers["connection"] == "close" and await conversation.closed()

    converse(application, talk)


def test_a_worker_that_ends_answers_the_request_that_it_has_and_ends_idle_connections(
    bundle, model, protocols
):
    async def half(conversation):
        whole = post()
        await conversation.send(whole[:-10])
        while not protocols[-1]._short:
            await asyncio.sleep(0.001)
        protocols[-1].shutdown()
        await conversation.send(whole[-10:])
        status, headers, _ = await conversation.answer()
        assert status == 200 and headers["connection"] == "close" and await conversation.closed()

    async def idle(conversation):
        await conversation.send(post())
        assert (await conversation.answer())[0] == 200
        protocols[-1].shutdown()
        assert await conversation.closed()

    converse(made(bundle, model), half, idle)


def test_who_does_not_read_answers_is_not_read_from(bundle, model, protocols):
    async def talk(conversation):
        await conversation.send(post())
        assert (await conversation.answer())[0] == 200
        protocols[0].pause_writing()
        await conversation.send(post())
        assert (await conversation.answer())[0] == 200 and protocols[0].flow.read_paused
        protocols[0].resume_writing()
        await conversation.send(post())
        assert (await conversation.answer())[0] == 200

    converse(made(bundle, model), talk)


def test_a_defect_is_a_500_that_tells_nothing(bundle, model, capsys, monkeypatch):
    application = made(bundle, dataclasses.replace(model))

    def broken(*_):
        raise KeyError("inside")

    monkeypatch.setattr(application.predictor, "_scored", broken)

    async def talk(conversation):
        await conversation.send(post())
        status, headers, body = await conversation.answer()
        assert status == 500 and b"inside" not in body and headers["connection"] == "close"

    converse(application, talk)
    assert "KeyError" in capsys.readouterr().err
