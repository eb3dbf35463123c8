"""Trainings that are killed, asked to end, doubled, or find damaged checkpoints."""

import json
import random
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest
from held import Held, wait_for
from training_processes import SECONDS, SETTINGS, digits, essence, finish, held_since, lines, start

from assay.records import Record

__all__ = ["digits"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Record:
    return finish(tmp_path_factory.mktemp("undisturbed"), digits)


def test_killed_at_random_moments_it_ends_with_the_same_bits(
    tmp_path: Path, digits: Path, undisturbed: Record
) -> None:
    generator = random.Random(1)
    for number in range(10):  # where this test is stopped for long, it comes too late to kill
        folder = tmp_path / str(number)
        if killed_often(folder, digits, generator):
            break
    record = finish(folder, digits)
    assert essence(record) == essence(undisturbed)
    assert record.resumed and record.attempts > 1
    assert record.metrics["train_seconds"].value is None, "the timing of a resumed run is left out"
    attempts = [line["attempt"] for line in lines(folder)]
    assert attempts == sorted(attempts) and len(set(attempts)) > 1


def killed_often(folder: Path, digits: Path, generator: random.Random) -> bool:
    """Whether it had not ended before."""
    for _ in range(4):
        running = start(folder, digits)
        end = time.monotonic() + SECONDS
        while running.poll() is None and not (folder / "checkpoint" / "state.pt").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(generator.uniform(0.0, 0.6))
        running.kill()
        running.communicate()
        if (folder / "train" / "record.json").exists():
            return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_saves_says_so_and_goes_on(
    number: signal.Signals, tmp_path: Path, digits: Path, undisturbed: Record
) -> None:
    settings = SETTINGS | {"training": SETTINGS["training"] | {"checkpoint_seconds": 1000}}
    held = Held(tmp_path / "hold", 50)
    running = start(tmp_path, digits, settings, **held.variables)
    held.wait(running)
    running.send_signal(number)
    held.release()
    output, _ = running.communicate(timeout=SECONDS)
    assert running.returncode == 128 + number, output
    assert "goes on from here" in output
    assert not (tmp_path / "train" / "record.json").exists(), "an interrupted run is no result"
    assert lines(tmp_path)[-1]["event"] == "checkpoint"
    assert essence(finish(tmp_path, digits, settings)) == essence(undisturbed)


def interrupted(folder: Path, digits: Path) -> None:
    held = held_since(folder, "state.previous.pt")
    running = start(folder, digits, **held.variables)
    held.wait(running)
    running.kill()
    running.communicate()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, digits: Path, undisturbed: Record
) -> None:
    interrupted(tmp_path, digits)
    current = tmp_path / "checkpoint" / "state.pt"
    current.write_bytes(current.read_bytes()[: current.stat().st_size // 2])
    record = finish(tmp_path, digits)
    assert essence(record) == essence(undisturbed)
    assert record.resumed
    assert any("could not be read" in warning for warning in record.warnings)


def test_a_checkpoint_of_other_settings_is_not_continued(tmp_path: Path, digits: Path) -> None:
    interrupted(tmp_path, digits)
    other = SETTINGS | {"training": SETTINGS["training"] | {"epochs": 2}}
    record = finish(tmp_path, digits, other)
    assert not record.resumed and len(record.details["history"]) == 2
    assert any("other settings" in warning for warning in record.warnings)
    assert {line["attempt"] for line in lines(tmp_path)} == {1}, "the log of the other run is gone"


def test_how_often_it_is_saved_is_no_other_setting(tmp_path: Path, digits: Path, undisturbed: Record) -> None:
    interrupted(tmp_path, digits)
    other = SETTINGS | {"training": SETTINGS["training"] | {"checkpoint_seconds": 1000}}
    record = finish(tmp_path, digits, other)
    assert record.resumed and essence(record) == essence(undisturbed)


def test_a_second_process_waits_for_the_first(tmp_path: Path, digits: Path, undisturbed: Record) -> None:
    held = held_since(tmp_path)
    first = start(tmp_path, digits, **held.variables)
    held.wait(first)
    second = start(tmp_path, digits)
    assert second.stdout is not None
    said = second.stdout.readline()
    assert f"process {first.pid}" in said and "waiting" in said
    held.release()
    second.communicate(timeout=SECONDS)
    assert first.poll() == 0, "the first had ended before the second did"
    assert second.returncode == 0
    assert essence(Record.read(tmp_path / "train" / "record.json")) == essence(undisturbed)


def test_a_killed_run_loses_at_most_a_second_of_its_log(tmp_path: Path, digits: Path) -> None:
    """The best of some: a training that was itself stopped, or got no core, before it was killed had nothing to log."""
    log = tmp_path / "train" / "log.jsonl"
    assert any(seconds_lost(tmp_path, digits, log) < 1.0 for _ in range(8))
    with log.open("a") as file:
        file.write('{"torn": ')
    other = SETTINGS | {"training": SETTINGS["training"] | {"epochs": 1}}
    finish(tmp_path, digits, other)
    assert all("torn" not in line for line in lines(tmp_path))


def seconds_lost(folder: Path, digits: Path, log: Path) -> float:
    """Between the last line of the log and the training's end by SIGKILL."""
    settings = SETTINGS | {
        "training": SETTINGS["training"] | {"epochs": 100_000, "checkpoint_seconds": 10_000}
    }
    log.unlink(missing_ok=True)
    running = start(folder, digits, settings)
    wait_for(lambda: log.exists() and '"epoch": 3' in log.read_text(), running)
    time.sleep(1.5)
    killed = time.time()
    running.kill()
    running.communicate()
    text = log.read_text()
    last = json.loads(text[: text.rindex("\n")].splitlines()[-1])
    return killed - datetime.fromisoformat(last["timestamp"]).timestamp()
