"""A supervised job behaves as one that is not, ends with all that it started, and is ended where it crosses a bound."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from leaderless import leaderless, threads
from supervised_jobs import Supervised, is_alive, wait_for_end

from assay.isolation.attempts import Attempt, last_attempt
from assay.isolation.processes import end_descendants

SLEEPER = """
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    Path("sleeper").write_text(str(os.getpid()))
    time.sleep(600)
while not Path("sleeper").exists() or not Path("sleeper").read_text():
    time.sleep(0.01)
"""


FOUR_THAT_HOLD = """
for _ in range(4):
    if os.fork() == 0:
        held = bytearray(os.urandom(1 << 20) * 100)
        time.sleep(600)
time.sleep(600)
"""
"""Children that together hold more than the bound."""


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=400)
    return process.returncode, out, errors


def attempt(folder: Path) -> Attempt:
    found = last_attempt(folder)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("body", "status", "ended", "number"),
    [
        ("sys.exit(0)", 0, "completed", None),
        ("sys.exit(3)", 3, "error", None),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "error", signal.SIGKILL),
        ("raise ValueError('planted')", 1, "error", None),
    ],
)
def test_a_job_ends_as_it_would_alone(
    body: str, status: int, ended: str, number: int | None, supervised: Supervised, tmp_path: Path
) -> None:
    assert finish(supervised(f"print('result', flush=True)\n{body}"))[:2] == (status, "result\n")
    found = attempt(tmp_path)
    assert (found.ended, found.signal, found.memory_bound_mb) == (ended, number, 300)


def test_without_bounds_nothing_is_forked(supervised: Supervised, tmp_path: Path) -> None:
    process = supervised("print(os.getpid())", memory_mb=None, processes=None)
    assert finish(process)[1] == f"{process.pid}\n" and last_attempt(tmp_path) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_job(number: signal.Signals, supervised: Supervised, tmp_path: Path) -> None:
    body = f"""
def save(received, _):
    os.write(1, b"saved\\n")  # print may be under way
    sys.exit(128 + received)
signal.signal({number.value}, save)
print("ready", flush=True)
time.sleep(300)
"""
    process = supervised(body)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    status, output, errors = finish(process)
    assert (status, output) == (128 + number, "saved\n"), errors
    assert (attempt(tmp_path).ended, attempt(tmp_path).signal) == ("interrupted", number)


def test_what_a_job_leaves_running_ends_with_it(supervised: Supervised, tmp_path: Path) -> None:
    assert finish(supervised(SLEEPER))[0] == 0
    assert not is_alive(int((tmp_path / "sleeper").read_text()))


def test_what_comes_to_the_supervisor_while_it_looks_is_ended(supervised: Supervised) -> None:
    """A supervisor that waits for its core after each kill finds the killed one dead, and its children gone elsewhere."""
    late = """
def kill(process, number, kill=os.kill):
    kill(process, number)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
os.kill = kill
"""
    assert "crossed out_of_memory" in finish(supervised(FOUR_THAT_HOLD, before=late))[1], (
        "its pipe was held on to"
    )


def test_who_has_lost_only_its_first_thread_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory, its files and the children of its other threads are held until the last of them is gone."""
    told: list[int] = []
    kill = os.kill

    def late(process: int, number: int) -> None:
        told.append(process)
        if told.count(process) > 1:
            kill(process, number)

    with leaderless() as (parent, process):
        assert threads(process) == 2
        monkeypatch.setattr(os, "kill", late)
        end_descendants(parent)
        monkeypatch.undo()
        assert told[:2] == [process, process] and threads(process) == 1


def test_a_job_ends_with_its_supervisor(supervised: Supervised, tmp_path: Path) -> None:
    process = supervised("print(os.getpid(), flush=True)\ntime.sleep(600)")
    assert process.stdout is not None
    job = int(process.stdout.readline())
    process.kill()
    process.wait()
    wait_for_end(job)
    assert attempt(tmp_path).ended is None, "nothing was left to write it"


HOG = """
held = []
while len(held) < 28:  # 448 MiB: half as much again as the bound, however late somebody looks
    held.append(bytearray(os.urandom(1 << 20) * 16))
time.sleep(300)
"""


@pytest.mark.parametrize("groups", [True, False])
def test_more_memory_than_the_bound_is_a_result(groups: bool, supervised: Supervised, tmp_path: Path) -> None:
    status, out, errors = finish(supervised(HOG, groups=groups))
    assert status == 0 and out.startswith("crossed out_of_memory memory: "), out + errors
    assert "more than the bound of 300 MiB; if it needs so much, write bounds: {memory_mb: 600}" in out
    found = attempt(tmp_path)
    assert found.ended == "out_of_memory" and found.peak_memory_mb is not None
    assert 300 < found.peak_memory_mb < 600


def test_what_children_hold_counts(supervised: Supervised) -> None:
    assert "crossed out_of_memory" in finish(supervised(FOUR_THAT_HOLD))[1]


def test_pages_that_processes_share_count_once(supervised: Supervised) -> None:
    body = """
held = bytearray(os.urandom(1 << 20) * 100)
children = []
for _ in range(4):
    children.append(os.fork())
    if children[-1] == 0:
        time.sleep(0.5)
        os._exit(0)
for child in children:
    os.waitpid(child, 0)
"""
    assert finish(supervised(body))[:2] == (0, "")


@pytest.mark.parametrize("groups", [True, False])
def test_a_mapped_file_does_not_count(groups: bool, supervised: Supervised, tmp_path: Path) -> None:
    kind = subprocess.check_output(["stat", "--file-system", "--format=%T", str(tmp_path)], text=True)
    if groups and kind.strip() == "tmpfs":
        pytest.skip("files in memory are memory to the kernel")
    body = """
import mmap
with open("data", "r+b") as file, mmap.mmap(file.fileno(), 0) as data:
    print(sum(data[page] for page in range(0, len(data), 1 << 14)))
    time.sleep(0.2)
"""
    with (tmp_path / "data").open("wb") as file:
        file.truncate(400 << 20)
    assert finish(supervised(body, groups=groups))[:2] == (0, "0\n")


def test_a_supervisor_that_was_stopped_goes_on(supervised: Supervised) -> None:
    process = supervised("print('ready', flush=True)\ntime.sleep(0.5)")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    process.send_signal(signal.SIGCONT)
    assert finish(process)[0] == 0


def test_a_job_may_be_tried_again_with_more(supervised: Supervised, tmp_path: Path) -> None:
    status, out, errors = finish(supervised(HOG, at_memory_bound="retry"))
    assert (status, out) == (1, "") and "to be started again with more memory" in errors
    assert attempt(tmp_path).ended == "out_of_memory"
    assert finish(supervised("pass", memory_mb=600))[0] == 0
    assert (attempt(tmp_path).attempt, attempt(tmp_path).ended) == (2, "completed")


def test_forks_without_end_are_a_result_whoever_holds_them(supervised: Supervised, tmp_path: Path) -> None:
    status, out, errors = finish(supervised("forks()"))
    assert status == 0 and out.startswith("crossed too_many_processes "), out + errors[-2000:]
    assert "more than the bound of 100; if it needs so many, write bounds: {processes: 200}" in out
    assert attempt(tmp_path).ended == "too_many_processes"


def test_without_the_kernel_looks_find_too_many_processes(supervised: Supervised, tmp_path: Path) -> None:
    slowly = """
while hogging():
    time.sleep(0.005)
    if os.fork() == 0:
        time.sleep(300)
        os._exit(0)
time.sleep(300)
"""
    out = finish(supervised(slowly, groups=False))[1]
    assert out.startswith("crossed too_many_processes "), out
    held_by = attempt(tmp_path).bounds_held_by
    assert held_by is not None and held_by["memory"] == "polling"
    assert os.getuid() != 0 or held_by["processes"] == "polling"


def test_threads_count_too(supervised: Supervised) -> None:
    body = """
import threading
for _ in range(110):
    threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
time.sleep(300)
"""
    assert "crossed too_many_processes" in finish(supervised(body))[1]
