"""Who computes on a GPU: real processes, GPUs of the library that stands in for NVML."""

import json
import os
import secrets
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import standin
from supervised_jobs import SOURCE

from assay.isolation import places
from assay.isolation.gpu_places import MOST_RUNS, Shared
from assay.isolation.places import Place, current, take

HOLDER = """
import json, os, sys
from pathlib import Path
from assay.isolation import gpu_places, names, places
names.NAMES, gpu_places.PATIENCE_SECONDS = sys.argv[1], 0.0
places.GPU = Path("/")  # there, as if a driver were
arguments = json.loads(sys.argv[2])
place = places.take_all("cuda") if arguments is None else places.take(threads=0, device="cuda", **arguments)
place.cores = None
place.enter()
told = json.loads(os.environ[places.TAKEN]) | {"visible": os.environ.get("CUDA_VISIBLE_DEVICES")}
print(json.dumps(told), flush=True)
sys.stdin.read()
"""


class Job:
    """A process that takes a place and keeps it until it is ended."""

    def __init__(self, names: str, arguments: dict[str, int] | None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, names, json.dumps(arguments)],
            env=os.environ | {"PYTHONPATH": str(SOURCE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def place(self) -> dict[str, Any]:
        """Once it has one."""
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        found: dict[str, Any] = json.loads(line)
        return found

    def waits(self) -> None:
        """Returns once it says so."""
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert "waiting for a GPU" in line, line

    def has_none(self) -> bool:
        return not select.select([self.process.stdout], [], [], 0)[0]

    def end(self) -> None:
        """As hard as can be: nothing is given back but by the kernel."""
        self.process.kill()
        self.process.communicate()


Start = Callable[..., Job]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standin.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def start(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Start]:
    """Starts jobs on a machine of as many GPUs as the test is marked with, one without a mark."""
    mark = request.node.get_closest_marker("parametrize")
    count = request.node.callspec.params.get("gpus", 1) if mark else 1
    cards = [standin.card(uuid) for uuid in (standin.UUID, standin.OTHER)[:count]]
    standin.install(monkeypatch, library, tmp_path / "scenario", *cards)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(places.SHARDS, raising=False)
    monkeypatch.setenv(places.SHARED, str(Path("/proc/self/ns/net").readlink()))
    started: list[Job] = []
    names = f"assay-test-{secrets.token_hex(8)}"

    def one(alone: bool = False, **arguments: int) -> Job:
        started.append(Job(names, None if alone else arguments))
        return started[-1]

    yield one
    for job in started:
        job.end()


def test_so_many_runs_share_a_gpu_and_no_more(start: Start) -> None:
    first = start(runs=2)
    found = first.place()
    assert found["shared"] == {"gpu": standin.UUID, "place": 0, "runs": 2, "others": 0}
    assert found["visible"] == standin.UUID and found["gpus"] == [standin.UUID] and not found["warnings"]
    second = start(runs=2).place()
    assert second["shared"] == {"gpu": standin.UUID, "place": 1, "runs": 2, "others": 1}
    third = start(runs=2)
    third.waits()
    assert third.has_none()
    first.end()
    assert third.place()["shared"] == {"gpu": standin.UUID, "place": 0, "runs": 2, "others": 1}


@pytest.mark.parametrize("gpus", [2])
def test_runs_spread_over_gpus(start: Start, gpus: int) -> None:
    found = [start(runs=2).place()["shared"] for _ in range(2 * gpus)]
    assert {(one["gpu"], one["place"]) for one in found} == {
        (uuid, place) for uuid in (standin.UUID, standin.OTHER) for place in range(2)
    }
    assert [one["place"] for one in found] == [0, 0, 1, 1], "the emptiest first"


@pytest.mark.parametrize("alone", [{"alone": True}, {"runs": 1}], ids=["profile", "a run of its own"])
def test_who_is_to_be_alone_waits_for_an_empty_gpu_and_nobody_joins(
    start: Start, alone: dict[str, int]
) -> None:
    sharing = start(runs=2)
    sharing.place()
    measuring = start(**alone)
    measuring.waits()
    joining = start(runs=2)  # there is a place, and it is not to be had any more
    joining.waits()
    assert measuring.has_none() and joining.has_none()
    sharing.end()
    found = measuring.place()
    assert found["shared"] is None and not found["warnings"]
    assert joining.has_none()
    measuring.end()
    assert joining.place()["shared"]["others"] == 0


@pytest.mark.parametrize("gpus", [2])
def test_a_gpu_that_is_empty_is_not_waited_for(start: Start, gpus: int) -> None:
    assert start(runs=2).place()["visible"] == standin.UUID
    found = start(alone=True).place()
    assert found["visible"] == standin.OTHER
    assert found["warnings"] == [f"GPUs: other jobs had {standin.UUID} meanwhile"]
    assert start(runs=2).place()["shared"]["place"] == 1, "the other GPU stays open"


@pytest.mark.parametrize("gpus", [2])
def test_who_needs_several_holds_none_while_waiting(start: Start, gpus: int) -> None:
    single = start(devices=1)
    assert single.place()["gpus"] == [standin.UUID]
    both = start(devices=gpus)
    both.waits()
    other = start(devices=1)
    assert other.place()["gpus"] == [standin.OTHER]
    single.end()
    other.end()
    assert both.place()["gpus"] == [standin.UUID, standin.OTHER]


def test_more_gpus_than_there_are_are_not_waited_for(start: Start) -> None:
    found = start(devices=2).place()
    assert found["gpus"] is None and "2 asked for, and 1 there" in found["warnings"][0]


def test_a_share_of_slurms_is_shared_with_nobody_knows_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(places.SHARED, raising=False)
    assert take(threads=1, device="auto", runs=4) == Place(), "Slurm gives GPUs out"
    monkeypatch.setenv(places.SHARDS, "1")
    assert take(threads=1, device="auto", runs=4).shared == Shared(None, None, 4, None)
    assert take(threads=1, device="auto").shared == Shared(None, None, None, None)
    assert take(threads=1, device="cpu", runs=4).shared is None


def test_runs_that_do_not_see_each_other_share_with_nobody_knows_whom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(places.SHARDS, raising=False)
    monkeypatch.setenv(places.SHARED, "net:[1]")
    assert take(threads=1, device="auto", runs=4).shared == Shared(None, None, 4, None)
    assert take(threads=1, device="auto") == Place()


def test_a_job_is_told_its_share() -> None:
    told: dict[str, str] = {}
    place = Place(gpus=["GPU-a"], shared=Shared("GPU-a", 3, MOST_RUNS, 2))
    place.enter(told)
    assert current(told) == place and told["CUDA_VISIBLE_DEVICES"] == "GPU-a"
