"""What the kernel holds a job to: tried with the kernel that is here."""

import os
import re
import signal
from pathlib import Path

import pytest
from supervised_jobs import Supervised, wait_for_end

from assay.isolation import containment
from assay.isolation.attempts import last_attempt
from assay.isolation.containment import Containment, contain, make_groups
from assay.isolation.machine import control_groups

tried = contain(100, 100)
HELD_BY = tried.held_by
tried.remove()
needs_group = pytest.mark.skipif(
    HELD_BY["processes"] != "control group", reason="no control group may be made here"
)
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


@needs_group
def test_a_job_gets_a_group_of_its_own_which_goes_with_it(supervised: Supervised, tmp_path: Path) -> None:
    process = supervised("print(Path('/proc/self/cgroup').read_text())")
    out, _ = process.communicate(timeout=400)
    assert re.search(rf":pids:.*/assay-\d+-{process.pid}$|^0::.*/assay-\d+-{process.pid}$", out, re.MULTILINE)
    attempt = last_attempt(tmp_path)
    assert attempt is not None and attempt.bounds_held_by is not None
    assert attempt.bounds_held_by["processes"] == "control group"
    for controller in ("pids", "memory"):
        for own in control_groups(controller):
            assert not list(own.glob(f"assay-*-{process.pid}"))


@needs_group
def test_the_kernel_refuses_what_looks_would_miss(supervised: Supervised, tmp_path: Path) -> None:
    """Every process ends by its own exception within milliseconds: the count of refusals tells."""
    out, errors = supervised("while hogging(): os.fork() or os.setsid()").communicate(timeout=400)
    assert "125 and one more asked for, more than the bound of 100" in out, errors[-2000:]


@needs_group
def test_the_kernel_ends_what_takes_memory_faster_than_looks(supervised: Supervised, tmp_path: Path) -> None:
    """The supervisor is stopped meanwhile: what bounds the hog is the kernel alone."""
    if HELD_BY["memory"] != "control group":
        pytest.skip("no control group bounds memory here")
    body = """
os.kill(os.getppid(), signal.SIGSTOP)
print(os.getpid(), flush=True)
held = []
while len(held) < 100:
    held.append(bytearray(os.urandom(1 << 20) * 16))
print("nobody stopped this", flush=True)
"""
    process = supervised(body)
    assert process.stdout is not None
    job = int(process.stdout.readline())
    wait_for_end(job)
    process.send_signal(signal.SIGCONT)
    out, errors = process.communicate(timeout=400)
    assert out.startswith("crossed out_of_memory") and "more than the bound of 300 MiB" in out, out + errors


@needs_group
def test_groups_that_a_killed_supervisor_left_are_taken_away(tmp_path: Path) -> None:
    left = next(iter(control_groups("pids"))) / f"assay-{containment._pid_namespace()}-4194305"
    made = make_groups({"pids": 50})
    parent = made["pids"].parent
    Containment(50, made).remove()
    left = parent / left.name
    left.mkdir()
    Containment(50, make_groups({"pids": 50})).remove()
    assert not left.exists() and not list(parent.glob(f"assay-*-{os.getpid()}"))


def test_version_2_gives_a_group_beside_its_own_unless_the_job_got_out_of_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "app.slice" / "own.scope"
    own.mkdir(parents=True)
    for folder, enabled in ((own, ""), (own.parent, "cpu memory pids")):
        (folder / "cgroup.controllers").write_text("cpu memory pids")
        (folder / "cgroup.subtree_control").write_text(enabled)
    monkeypatch.setattr(containment, "control_groups", lambda _: iter((own, own.parent, tmp_path)))

    def useful() -> list[Path]:
        return [
            folder
            for folder, controllers in containment._parents(["pids", "memory"])
            if "pids" in controllers
        ]

    assert useful() == [own.parent]
    (own / "memory.max").write_text("1000000\n")
    assert useful() == []


@needs_root
def test_others_than_root_are_bounded_by_a_user_namespace(supervised: Supervised, tmp_path: Path) -> None:
    body = """
status = Path("/proc/self/status").read_text()
assert "CapEff:\\t0000000000000000" in status and os.getuid() == 65534, status
os.chmod("own", 0o400)
try:
    open("own", "w")
except PermissionError:
    print("no privilege")
"""
    (tmp_path / "own").touch()
    os.chown(tmp_path / "own", 65534, 65534)
    out, errors = supervised(body, nobody=True, groups=False).communicate(timeout=400)
    attempt = last_attempt(tmp_path)
    assert attempt is not None and attempt.bounds_held_by is not None, errors
    if attempt.bounds_held_by["processes"] != "user namespace":
        pytest.skip("this kernel lets nobody have a user namespace")
    assert out == "no privilege\n", errors
    out, errors = supervised("forks()", nobody=True, groups=False).communicate(timeout=400)
    count = re.match(r"crossed too_many_processes .*: (\d+) at once, more than the bound of 100;", out)
    assert count is not None, out + errors[-2000:]
    assert 100 < int(count[1]) <= 130, "the kernel's limit is a quarter above the bound"


@needs_root
def test_a_job_in_a_namespace_ends_with_its_supervisor(supervised: Supervised) -> None:
    process = supervised("print(os.getpid(), flush=True)\ntime.sleep(600)", nobody=True, groups=False)
    assert process.stdout is not None
    job = int(process.stdout.readline())
    process.kill()
    process.wait()
    wait_for_end(job)
