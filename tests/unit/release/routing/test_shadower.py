"""What the shadow does with the copies that come: which are sent, which wait, and how they count."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.release.layout import Layout
from assay.release.routing import shadower
from assay.release.routing.copies import Copies
from assay.release.routing.shadower import Counts, Program
from assay.release.routing.upstream import NoAnswer, Upstream


class Candidate:
    """Answers with the status that the body says; with none to an empty one."""

    def __init__(self) -> None:
        self.asked: list[Upstream] = []

    async def ask(self, asked: Upstream, _: float) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        self.asked.append(asked)
        if not asked.body.strip():
            raise NoAnswer(504, "nothing")
        return int(asked.body), [], b""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    layout = Layout(tmp_path)
    layout.shadow.parent.mkdir(parents=True)
    layout.shadow_log.parent.mkdir(parents=True)
    made = Program(layout)
    made._versions = Candidate()  # type: ignore[assignment]
    yield made
    made._socket.close()


def wish(program: Program, share: float, address: str = "127.0.0.1:1") -> None:
    beside = program._path.with_suffix(".new")
    beside.write_text(json.dumps({"share": share, "address": address}))
    beside.replace(program._path)
    program._tell()


def copied(program: Program, *bodies: bytes, begin: int = 0) -> None:
    copies = Copies(program._layout.shadow_queue)
    for number, body in enumerate(bodies, begin):
        copies.offer({b"x-request-id": b"r%d" % number, b"authorization": b"Bearer t"}, body)
        program._receive()


async def sent(program: Program) -> None:
    """All that wait."""
    work = asyncio.ensure_future(program._work())
    while not program._queue.empty():
        await asyncio.sleep(0)
    work.cancel()


def test_a_share_of_the_copies_is_sent_and_those_stay_while_it_grows(program: Program) -> None:
    chosen: list[set[str]] = []
    for share in (0.0, 0.1, 0.5, 1.0):
        wish(program, share)
        chosen.append({str(number) for number in range(4000) if program._wanted(str(number))})
    assert chosen[0] <= chosen[1] <= chosen[2] <= chosen[3] and list(map(len, chosen))[::3] == [0, 4000]
    assert 300 < len(chosen[1]) < 500 and 1800 < len(chosen[2]) < 2200
    wish(program, 1.0, "")
    copied(program, b"200")
    assert program.counts == Counts(received=1, left_out=1), "there is nobody to send it to"


def test_each_copy_is_counted_by_what_became_of_it(program: Program) -> None:
    wish(program, 1.0)
    copied(program, b"200", b"422", b"500", b" ")
    asyncio.run(sent(program))
    assert program.counts == Counts(received=4, answered=3, failed=2)
    lines = [json.loads(line) for line in program._log.read_text().splitlines()]
    assert [(line["route"], line["status"], line["headers"] == "-") for line in lines] == [
        *(("shadow", status, False) for status in (200, 422, 500)),
        ("shadow", 504, True),
    ]
    headers = dict(program._versions.asked[0].headers)  # type: ignore[attr-defined]
    assert (headers[b"x-assay-shadow"], headers[b"authorization"]) == (b"1", b"Bearer t")


def test_what_waits_is_bounded_in_number_and_bytes(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    wish(program, 1.0)
    monkeypatch.setattr(shadower, "WAITING_BYTES", 100)
    copied(program, b"200".ljust(80), b"200".ljust(80), b"200")
    assert (program.counts.lost, program._queue.qsize()) == (1, 2)
    asyncio.run(sent(program))
    copied(program, b"200".ljust(500), begin=3)
    assert (program.counts.lost, program._queue.qsize()) == (1, 1), "a large one waits alone"
    asyncio.run(sent(program))
    copied(program, *[b""] * (shadower.WAITING + 10), begin=4)
    assert (program.counts.lost, program._queue.qsize()) == (11, shadower.WAITING)
