"""Parts of Assay's own front: what it holds, and log lines that must cost nobody anything."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay.release.routing.application import Refused, _body
from assay.release.routing.held import FILE, Active, Held
from assay.release.routing.lines import Lines
from assay.release.routing.plan import GO
from assay.release.routing.upstream import NoAnswer, Upstream, Versions

HELD = Held(
    generation=1,
    share=1.0,
    salt="0" * 32,
    token="t",
    stable="127.0.0.1:1",
    candidate="127.0.0.1:2",
    identity=None,
    early=[],
    testers=[],
    any_tester=False,
    header="x-assay-version",
    body_bytes=10,
    timeout_seconds=1.0,
    per_address=None,
    access="access.jsonl",
    secure=False,
    trusted_proxies=[],
)


def hold(folder: Path, held: Held) -> Path:
    generation = folder / "generations" / str(held.generation)
    generation.mkdir(parents=True)
    (generation / FILE).write_text(held.text())
    (generation / GO).touch()
    (folder / "new").symlink_to(generation)
    (folder / "new").replace(folder / "active")
    return generation


def test_a_change_is_seen_at_the_next_look_and_a_halt_too(tmp_path: Path) -> None:
    first = hold(tmp_path, HELD)
    active = Active(tmp_path)
    assert active.now() == (HELD, False)
    (first / GO).unlink()
    assert active.now() == (HELD, True)
    chosen = replace(HELD, share=0.0, early=["e"], testers=["t"])
    for held, user, wish in ((HELD, "u", ""), (chosen, "e", ""), (chosen, "t", "candidate")):
        assert held.split.choose(user, wish).assigned == "candidate"
        assert held.stopped.choose(user, wish).assigned == "stable"
    second = replace(HELD, generation=2, share=0.0)
    hold(tmp_path, second)
    assert active.now() == (second, False)


def test_a_change_that_could_not_be_read_is_read_at_the_next_look(tmp_path: Path) -> None:
    """As where a worker had no descriptor left: it went on with the generation before, share and all."""
    hold(tmp_path, HELD)
    active = Active(tmp_path)
    assert active.now() == (HELD, False)
    second = replace(HELD, generation=2, share=0.0)
    file = hold(tmp_path, second) / FILE
    file.rename(tmp_path / "away")
    with pytest.raises(OSError):
        active.now()
    (tmp_path / "away").rename(file)
    assert active.now() == (second, False)


def test_lines_go_to_the_file_that_has_the_name(tmp_path: Path) -> None:
    path, lines = tmp_path / "log", Lines()
    lines.write(str(path), {"n": 1})
    path.rename(tmp_path / "log.1")
    lines.write(str(path), {"n": 2})
    assert json.loads((tmp_path / "log.1").read_bytes()) == {"n": 1} and json.loads(path.read_bytes()) == {
        "n": 2
    }
    assert lines.lost == 0 and path.stat().st_mode & 0o007 == 0


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("where", ["/dev/full", "/nowhere/log"])
def test_lines_that_cannot_be_written_are_counted(where: str) -> None:
    lines = Lines()
    before = open_files()
    for _ in range(5):
        lines.write(where, {"n": 1})
    assert lines.lost == 5 and open_files() <= before + 1


def test_a_line_of_which_a_part_was_written_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines()
    monkeypatch.setattr("os.write", lambda _, content: len(content) - 1)
    lines.write(str(tmp_path / "log"), {"n": 1})
    assert lines.lost == 1


def read_body(held: Held, *parts: bytes, end: str = "over") -> tuple[bytes | int, int]:
    """What becomes of a body, and how many parts of it were read. end: `over`, `gone` (the client) or `late`."""
    left = list(parts)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait() if end == "late" else None
            return {"type": "http.disconnect"}
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left) or end != "over"}

    try:
        return asyncio.run(asyncio.wait_for(_body(receive, held), 60)), len(parts) - len(left)
    except Refused as refused:
        return refused.status, len(parts) - len(left)


def test_a_body_is_read_as_far_as_it_may_be() -> None:
    held = replace(HELD, timeout_seconds=0.02)
    assert read_body(HELD, b"12345", b"67890") == (b"1234567890", 2)
    assert read_body(HELD, b"12345", b"678901") == (413, 2)
    assert read_body(HELD, *[b"12345678"] * 15) == (413, 15), "else its client would see no answer"
    assert read_body(HELD, *[b"1234567890"] * 40) == (413, 17), "but not for ever"
    assert read_body(HELD, b"1", end="gone") == (499, 1)
    assert read_body(held, b"1", end="late") == (408, 1)


def test_nobody_there_is_no_answer() -> None:
    async def ask() -> None:
        await Versions().ask(Upstream("127.0.0.1:1", "GET", b"/", [(b"host", b"x")], b""), 5.0)

    with pytest.raises(NoAnswer) as error:
        asyncio.run(ask())
    assert error.value.status == 502
