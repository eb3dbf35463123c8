"""Cores and GPUs that a job has to itself."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from supervised_jobs import SOURCE

from assay.isolation import names as name_module
from assay.isolation import places
from assay.isolation.machine import machine_memory_mb, owns_cores, share_of_memory_mb
from assay.isolation.places import Place, current, parse_list, share, take, take_all, visible_gpus

CORES = sorted(os.sched_getaffinity(0))
HOLDER = """
import json, sys
from assay.isolation import names, places
names.NAMES = sys.argv[1]
place = places.take_all("cpu") if sys.argv[2] == "all" else places.take(threads=int(sys.argv[2]), device="cpu")
print(json.dumps([place.cores, place.warnings]), flush=True)
sys.stdin.read()
"""

Holder = tuple["subprocess.Popen[str]", list[int] | None, list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> str:
    """Names that no job beside this test asks for."""
    monkeypatch.setattr(name_module, "NAMES", f"assay-test-{secrets.token_hex(8)}")
    share(os.environ)
    monkeypatch.setenv(places.SHARED, os.environ[places.SHARED])
    if not owns_cores():
        pytest.skip("a quota divides the time on these cores")
    return name_module.NAMES


@pytest.fixture
def hold(names: str) -> Iterator[Callable[[str], Holder]]:
    """Starts a process that takes so many cores and keeps them."""
    started: list[subprocess.Popen[str]] = []

    def start(threads: str) -> Holder:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, names, threads],
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        return process, *json.loads(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_no_two_processes_get_the_same_core(hold: Callable[[str], Holder]) -> None:
    found = [hold("1")[1] for _ in CORES]
    assert sorted(core for cores in found for core in cores or []) == CORES
    _, cores, warnings = hold("1")
    assert cores is None and "fewer than 1 were free" in warnings[0]


def test_a_core_is_free_again_when_its_process_is_killed(hold: Callable[[str], Holder]) -> None:
    process, cores, _ = hold(str(len(CORES)))
    assert cores == CORES and hold("1")[1] is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert hold(str(len(CORES)))[1] == CORES


def test_what_is_not_enough_is_not_kept(hold: Callable[[str], Holder]) -> None:
    assert hold(str(len(CORES) + 1))[1] is None
    assert hold(str(len(CORES)))[1] == CORES


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_a_job_that_is_to_be_alone_says_who_else_was_there(hold: Callable[[str], Holder]) -> None:
    _, other, _ = hold("1")
    assert other is not None
    _, cores, warnings = hold("all")
    assert cores == [core for core in CORES if core not in other]
    assert warnings == [f"cores: other jobs had 1 of {len(CORES)} meanwhile"]


def test_a_place_is_left_and_can_be_taken_again(names: str) -> None:
    place = take_all("cpu")
    assert place.cores == CORES and take(threads=1, device="cpu").cores is None
    place.leave()
    again = take(threads=1, device="cpu")
    assert again.cores is not None and len(again.cores) == 1
    again.leave()


@pytest.mark.parametrize("network", [None, "net:[1]"])
def test_none_is_taken_where_jobs_do_not_see_each_other(
    network: str | None, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(places.SHARED)
    if network is not None:
        monkeypatch.setenv(places.SHARED, network)
    assert take(threads=1, device="cpu") == Place() == take_all("cpu")


def test_a_job_knows_its_place_until_it_is_let_off_it() -> None:
    told: dict[str, str] = {}
    before = os.sched_getaffinity(0)
    try:
        Place([CORES[0]], ["GPU-a"], ["odd"], {"processes": "polling"}).enter(told)
        assert os.sched_getaffinity(0) == {CORES[0]} and told["CUDA_VISIBLE_DEVICES"] == "GPU-a"
        assert current(told) == Place([CORES[0]], ["GPU-a"], ["odd"], {"processes": "polling"})
    finally:
        os.sched_setaffinity(0, before)
    if len(CORES) > 1:
        assert current(told).cores is None and "let off" in current(told).warnings[-1]
    assert current({}) == Place()


@pytest.mark.parametrize(("text", "cores"), [("0", {0}), ("0-3,8\n", {0, 1, 2, 3, 8}), ("2,4", {2, 4})])
def test_lists_of_cpus(text: str, cores: set[int]) -> None:
    assert parse_list(text) == cores


A, B, C = ("GPU-aa1", "H100"), ("GPU-ab2", "H100"), ("GPU-cc3", "T4")


@pytest.mark.parametrize(
    ("found", "chosen", "order", "expected"),
    [
        ([A, B], None, None, [A, B]),
        ([A, B], "1", None, [B]),
        ([A, B], "1,0", None, [B, A]),
        ([A, C], "1", None, []),  # the fastest comes first, and nothing here tells which that is
        ([A, C], "1", "PCI_BUS_ID", [C]),
        ([A, B, C], "GPU-cc", None, [C]),
        ([A, B], "GPU-a", None, []),  # two begin so
        ([A, B], "0,7,1", None, [A]),  # CUDA stops at what it does not know
        ([A, B], "", None, []),
        ([A, B], "-1", None, []),
    ],
)
def test_gpus_that_a_variable_chooses(
    found: list[tuple[str, str]], chosen: str | None, order: str | None, expected: list[tuple[str, str]]
) -> None:
    assert visible_gpus(found, chosen, order) == [uuid for uuid, _ in expected]


def test_memory_is_shared_by_threads() -> None:
    whole = share_of_memory_mb(4, 4)
    assert 0 < whole < machine_memory_mb() <= int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    assert share_of_memory_mb(1, 4) == pytest.approx(whole / 4, abs=1)
    assert share_of_memory_mb(9, 4) == whole
    least = whole // 2
    assert share_of_memory_mb(1, 4, least=least) == least, "however many cores the machine has"
    assert share_of_memory_mb(3, 4, least=least) == pytest.approx(whole * 3 / 4, abs=1)
    assert share_of_memory_mb(1, 4, least=whole * 2) == whole, "no more than there is"
