"""How a profile block is told to be, from what its job and its samplers write."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from watched_runs import Clock

from assay.isolation.attempts import Evidence
from assay.monitoring.block import BlockFiles
from assay.monitoring.state import Block
from assay.profiling.gates import Gate
from assay.records import Code, Environment, Outcome, Record
from assay.telemetry.beside import Sampler

SILENCE = 60.0


def evidence_of(folder: Path) -> Evidence:
    """Of a block on another machine."""
    evidence = Evidence(folder, 1000.0)
    evidence.attempt = replace(evidence.attempt, host="elsewhere")
    evidence._write()
    return evidence


def visit(folder: Path, arm: str, number: int, attempt: int = 1) -> None:
    """A visit's telemetry, begun and ended."""
    (folder / arm).mkdir(exist_ok=True)
    identity = {"visit": number, "attempt": attempt}
    with Sampler(folder / arm / "telemetry.jsonl", interval=0.02, identity=identity) as sampler:
        sampler.mark("before", measurement="inference@1")
        time.sleep(0.1)


def leave(folder: Path, arm: str, outcome: Outcome, *gates: Gate, rejected: tuple[Gate, ...] = ()) -> None:
    Record(
        stage="profile",
        experiment="e",
        arm=arm,
        block=0,
        outcome=outcome,
        message=None if outcome == "completed" else "why",
        started="2026-01-01T00:00:00.000000Z",
        finished="2026-01-01T00:01:00.000000Z",
        code=Code(version="1", sources_sha256="0"),
        environment=Environment(host="n1", platform="", python="", packages={}, cpu="", cpu_count=1),
        details={
            "gates": [gate.model_dump() for gate in gates],
            "rejected": [[gate.model_dump() for gate in rejected]],
            "visits": [{}, {}],
        },
    ).write(folder / arm / "record.json")


def test_visits_are_counted_and_the_time_left_goes_by_them(tmp_path: Path, clock: Clock) -> None:
    block = BlockFiles(tmp_path, 0, ["a", "b"])
    assert block.look(clock.moment, SILENCE) == Block(0, visits=4)
    evidence_of(tmp_path)
    found = block.look(clock.after(1), SILENCE)
    assert (found.state, found.visits_done, found.seconds_left) == ("running", None, None)
    visit(tmp_path, "a", 0)
    visit(tmp_path, "b", 1)
    found = block.look(clock.after(9), SILENCE)
    assert (found.state, found.visits_done, found.visits, found.attempt) == ("running", 2, 4, 1)
    assert found.seconds_left == pytest.approx(10, abs=2)
    visit(tmp_path, "b", 0, attempt=2)
    found = block.look(clock.after(1), SILENCE)
    assert (found.visits_done, found.attempt, found.seconds_left) == (1, 2, None), "repeated: a gate tripped"


def test_a_block_whose_job_dies_or_hangs(tmp_path: Path, clock: Clock) -> None:
    block, evidence = BlockFiles(tmp_path, 0, ["a"]), evidence_of(tmp_path)
    (tmp_path / "a").mkdir()
    with Sampler(tmp_path / "a" / "telemetry.jsonl", interval=0.02, identity={"visit": 0, "attempt": 1}):
        time.sleep(1.3)
        assert block.look(clock.moment, SILENCE).state == "running"
        time.sleep(1.2)
        found = block.look(clock.after(1), 0.1)  # ten times that, since the visit began
        assert found.state == "stalled" and found.why is not None and "its process lives" in found.why
    for _ in range(8):
        found = block.look(clock.after(10), SILENCE)
    assert (found.state, found.why) == ("killed", "no sign of life for 1 min 10 s")
    evidence.end("interrupted", 15)
    found = block.look(clock.after(1), SILENCE)
    assert (found.state, found.why) == ("interrupted", "asked to end by SIGTERM")


def test_an_invalid_block_tells_its_gates(tmp_path: Path, clock: Clock) -> None:
    tripped = Gate(name="throttling", status="tripped", bound=0.05, found=0.4, message="hot")
    held = Gate(name="clock_drift", status="held", bound=0.05, found=0.0)
    block = BlockFiles(tmp_path, 0, ["a", "b"])
    leave(tmp_path, "a", "invalid", tripped, held, rejected=(tripped,))
    assert block.look(clock.moment, SILENCE).state == "waiting", "one record is missing"
    leave(tmp_path, "b", "invalid", tripped, held, rejected=(tripped,))
    found = block.look(clock.after(1), SILENCE)
    assert (found.state, found.tripped, found.rejected) == ("invalid", ("throttling",), ("throttling",))
    assert found.seconds == 60 and found.visits_done == 4


def test_an_arm_that_fails_is_the_blocks_state(tmp_path: Path, clock: Clock) -> None:
    block = BlockFiles(tmp_path, 0, ["a", "b"])
    leave(tmp_path, "a", "completed")
    leave(tmp_path, "b", "out_of_memory")
    found = block.look(clock.moment, SILENCE)
    assert (found.state, found.why) == ("out_of_memory", "why")
    assert found.arms == {"a": "completed", "b": "out_of_memory"}
    (tmp_path / "b" / "record.json").unlink()
    assert block.look(clock.after(20), SILENCE).state == "waiting"
