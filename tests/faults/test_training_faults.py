"""Trainings that are killed, asked to end, doubled, or find damaged checkpoints."""

import json
import random
import signal
import time
from pathlib import Path

import pytest
from training_processes import SETTINGS, digits, essence, finish, lines, start, wait_for_checkpoint

from assay.records import Record

__all__ = ["digits"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Record:
    return finish(tmp_path_factory.mktemp("undisturbed"), digits)


def test_killed_at_random_moments_it_ends_with_the_same_bits(
    tmp_path: Path, digits: Path, undisturbed: Record
) -> None:
    generator = random.Random(1)
    kills = 0
    while kills < 4:
        running = start(tmp_path, digits)
        wait_for_checkpoint(tmp_path, running)
        time.sleep(generator.uniform(0.0, 0.6))
        if running.poll() is not None:
            break
        running.kill()
        running.wait()
        kills += 1
    record = finish(tmp_path, digits)
    assert kills >= 2
    assert essence(record) == essence(undisturbed)
    assert record.resumed and record.attempts > 1
    assert record.metrics["train_seconds"].value is None, "the timing of a resumed run is left out"
    attempts = [line["attempt"] for line in lines(tmp_path)]
    assert attempts == sorted(attempts) and len(set(attempts)) > 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_saves_says_so_and_goes_on(
    number: signal.Signals, tmp_path: Path, digits: Path, undisturbed: Record
) -> None:
    settings = SETTINGS | {"training": SETTINGS["training"] | {"checkpoint_seconds": 1000}}
    running = start(tmp_path, digits, settings)
    end = time.monotonic() + 60
    log = tmp_path / "train" / "log.jsonl"
    while not (log.exists() and '"epoch": 1' in log.read_text()):
        assert running.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    running.send_signal(number)
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 128 + number, output
    assert "goes on from here" in output
    assert not (tmp_path / "train" / "record.json").exists(), "an interrupted run is no result"
    assert lines(tmp_path)[-1]["event"] == "checkpoint"
    assert essence(finish(tmp_path, digits, settings)) == essence(undisturbed)


def interrupted(folder: Path, digits: Path) -> None:
    running = start(folder, digits)
    wait_for_checkpoint(folder, running)
    while not (folder / "checkpoint" / "state.previous.pt").exists():
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.wait()


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
    first = start(tmp_path, digits)
    wait_for_checkpoint(tmp_path, first)
    first.send_signal(signal.SIGSTOP)
    second = start(tmp_path, digits)
    assert second.stdout is not None
    said = second.stdout.readline()
    assert f"process {first.pid}" in said and "waiting" in said
    first.send_signal(signal.SIGCONT)
    second.communicate(timeout=120)
    assert first.poll() == 0, "the first had ended before the second did"
    assert second.returncode == 0
    assert essence(Record.read(tmp_path / "train" / "record.json")) == essence(undisturbed)


def test_a_killed_run_loses_at_most_a_second_of_its_log(tmp_path: Path, digits: Path) -> None:
    settings = SETTINGS | {"training": SETTINGS["training"] | {"epochs": 1000, "checkpoint_seconds": 1000}}
    running = start(tmp_path, digits, settings)
    log = tmp_path / "train" / "log.jsonl"
    end = time.monotonic() + 60
    while not (log.exists() and '"epoch": 3' in log.read_text()):
        assert running.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    time.sleep(1.5)
    running.kill()
    killed = time.time()
    running.wait()
    text = log.read_text()
    whole = [json.loads(line) for line in text[: text.rindex("\n")].splitlines()]
    from datetime import datetime

    last = datetime.fromisoformat(whole[-1]["timestamp"]).timestamp()
    assert killed - last < 1.0
    with log.open("a") as file:
        file.write('{"torn": ')
    other = SETTINGS | {"training": SETTINGS["training"] | {"epochs": 1}}
    finish(tmp_path, digits, other)
    assert all("torn" not in line for line in lines(tmp_path))
