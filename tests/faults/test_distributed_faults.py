"""Runs on several devices: what they share with one device, and how they end when a rank or a node does."""

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from held import Held
from ports import claim
from safetensors.torch import load_file
from training_processes import (
    SECONDS,
    SETTINGS,
    digits,
    essence,
    finish,
    held_since,
    lines,
    samplers,
    start,
    wait_for_checkpoint,
)

from assay.config.arm import Execution
from assay.forkserver import VARIABLE, Server
from assay.records import ASKED_TO_END, Record
from assay.training.measured import no_metrics
from assay.training.rendezvous import PORTS, meeting

__all__ = ["digits"]

Running = subprocess.Popen[str]


def settings(devices: int = 2, nodes: int = 1, **training: Any) -> dict[str, Any]:
    """A network with batch norm, mixed images, accumulated gradients and averaged weights."""
    execution = {"device": "cpu", "devices": devices, "nodes": nodes}
    changed = SETTINGS["training"] | {"epochs": 4, "clip_norm": 1.0, "label_smoothing": 0.1} | training
    return SETTINGS | {"training": changed, "execution": execution}


def without_dropout(changed: dict[str, Any]) -> dict[str, Any]:
    return changed | {"model": {"source": "builtin:cnn", "options": {"width": 8, "dropout": 0.0}}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Record:
    return finish(tmp_path_factory.mktemp("undisturbed"), digits, settings())


def rank_process(rank: int, launcher: int) -> int:
    """Which process a run's rank is, by the process that started it."""
    wanted = f"\0RANK={rank}\0".encode()
    for folder in Path("/proc").iterdir():
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == launcher and wanted in b"\0" + (folder / "environ").read_bytes():
                return int(folder.name)
        except (OSError, ValueError, IndexError):
            continue
    raise AssertionError(f"no rank {rank}")


def runs(process: int) -> bool:
    """One that ended and that its new parent has not fetched yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(*processes: int) -> None:
    end = time.monotonic() + SECONDS
    while alive := [process for process in processes if runs(process)]:
        assert time.monotonic() < end, f"{alive} outlived what started them"
        time.sleep(0.05)


def ended(running: Running) -> str:
    """What it printed; that it ends at all is what is tested."""
    output, _ = running.communicate(timeout=SECONDS)
    return output


def free_job() -> int:
    """The number of a job whose port nobody has: tests beside this one run jobs of their own."""
    while True:
        job = secrets.randbelow(PORTS)
        environment = {"SLURM_JOB_ID": str(job), "SLURM_NNODES": "2", "SLURM_NODEID": "0"}
        place = meeting(
            Execution(nodes=2), environment | {"SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "localhost"}
        )
        if claim(place.port):
            return job


def two_nodes(folder: Path, digits: Path, changed: dict[str, Any]) -> tuple[Running, Running]:
    """The same command twice, each as Slurm's variables would have it on a node of its own."""
    common = {
        "SLURM_JOB_ID": str(free_job()),
        "SLURM_STEP_ID": "0",
        "SLURM_NNODES": "2",
        "SLURM_STEP_NODELIST": "nowhere[08-09]",
        "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
        "SLURM_LOCALID": "0",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    first, second = (start(folder, digits, changed, SLURM_NODEID=str(n), **common) for n in (0, 1))
    return first, second


def test_two_devices_match_one(tmp_path: Path, digits: Path) -> None:
    """The same batches, and weights as far apart as sums in another order are."""
    one = finish(tmp_path / "one", digits, without_dropout(settings(1, epochs=2)))
    two = finish(tmp_path / "two", digits, without_dropout(settings(2, epochs=2)))
    assert one.batches_sha256 == two.batches_sha256 is not None
    first, second = (load_file(tmp_path / name / "train" / "model.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(
            second[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )
    for before, after in zip(one.details["history"], two.details["history"], strict=True):
        assert after["train_loss"] == pytest.approx(before["train_loss"], rel=1e-4)
        assert after["validation_loss"] == pytest.approx(before["validation_loss"], rel=1e-3)
    assert [place["rank"] for place in two.details["ranks"]] == [0, 1]
    assert all(place["host"] == socket.gethostname() for place in two.details["ranks"])
    assert "ranks" not in one.details
    steps = [line["step"] for line in lines(tmp_path / "two") if line["event"] == "step"]
    assert steps == sorted(set(steps)), "one process writes the log"
    files = {path.name for path in (tmp_path / "two" / "train").iterdir()}
    assert files == {"record.json", "log.jsonl", "telemetry.jsonl", "model.safetensors"}
    assert len(samplers(tmp_path / "two")) == 1, "one process starts a sampler"
    assert two.telemetry is not None and two.telemetry.samples >= 2
    assert [told for told in two.warnings if not told.startswith("cores:")] == []
    assert one.metrics.keys() == two.metrics.keys() and "train_energy" in two.metrics


def test_repeated_it_gives_the_same_bits(tmp_path: Path, digits: Path, undisturbed: Record) -> None:
    assert essence(finish(tmp_path, digits, settings())) == essence(undisturbed)


def test_a_killed_rank_ends_the_run_and_is_named(tmp_path: Path, digits: Path, undisturbed: Record) -> None:
    held = held_since(tmp_path)
    running = start(tmp_path, digits, settings(), **held.variables)
    held.wait(running)
    victim, other = rank_process(1, running.pid), rank_process(0, running.pid)
    os.kill(victim, signal.SIGKILL)
    held.release()
    output = ended(running)
    named = f"rank 1 (process {victim}) on {socket.gethostname()}: ended by SIGKILL"
    assert running.returncode == 1 and named in output, output
    assert not Path(f"/proc/{other}").exists(), "nothing is left behind"
    assert not (tmp_path / "train" / "record.json").exists(), (
        "a rank that was killed is no result of the arm's"
    )
    last = lines(tmp_path)[-1]
    assert last["event"] == "failed" and last["rank"] == 1 and named in last["message"]
    failure = Record.read(tmp_path / "train" / "failure.json")
    assert failure.outcome == "failed" and failure.message == named
    record = finish(tmp_path, digits, settings())
    assert essence(record) == essence(undisturbed) and record.resumed
    assert any(named in warning for warning in record.warnings)
    assert not (tmp_path / "train" / "failure.json").exists() and not (tmp_path / "checkpoint").exists()


def test_killed_whole_it_leaves_no_rank_and_ends_with_the_same_bits(
    tmp_path: Path, digits: Path, undisturbed: Record
) -> None:
    held = held_since(tmp_path)
    running = start(tmp_path, digits, settings(), **held.variables)
    held.wait(running)
    ranks = [rank_process(rank, running.pid) for rank in (0, 1)]
    beside = samplers(tmp_path)
    assert len(beside) == 1
    running.kill()
    running.communicate(timeout=SECONDS)
    gone(*ranks, *beside)
    assert essence(finish(tmp_path, digits, settings())) == essence(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_asked_to_end_all_ranks_save_the_same_step(
    number: signal.Signals, tmp_path: Path, digits: Path, undisturbed: Record
) -> None:
    held = Held(tmp_path / "hold", 50)
    running = start(tmp_path, digits, settings(checkpoint_seconds=1000), **held.variables)
    held.wait(running)
    running.send_signal(number)
    held.release()
    output = ended(running)
    assert running.returncode == 128 + number, output
    assert ASKED_TO_END.format(signal=number.value) in output
    assert lines(tmp_path)[-1]["event"] == "checkpoint"
    record = finish(tmp_path, digits, settings(checkpoint_seconds=1000))
    assert essence(record) == essence(undisturbed) and record.resumed


def test_asked_to_end_before_it_began(tmp_path: Path, digits: Path) -> None:
    running = start(tmp_path, digits, settings(epochs=10_000))
    end = time.monotonic() + SECONDS
    while True:
        assert running.poll() is None and time.monotonic() < end
        try:
            rank_process(0, running.pid)
            break
        except AssertionError:
            time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    output = ended(running)
    assert running.returncode == 128 + signal.SIGTERM, output
    assert ASKED_TO_END.format(signal=signal.SIGTERM.value) in output


def test_another_number_of_devices_is_refused_and_costs_nothing(
    tmp_path: Path, digits: Path, undisturbed: Record
) -> None:
    held = held_since(tmp_path)
    running = start(tmp_path, digits, settings(), **held.variables)
    held.wait(running)
    running.send_signal(signal.SIGTERM)
    held.release()
    ended(running)
    for devices in (1, 4):
        other = start(tmp_path, digits, settings(devices))
        output = ended(other)
        assert other.returncode == 1
        assert "write `execution: {devices: 2, nodes: 1}` to go on, or remove" in output
    assert essence(finish(tmp_path, digits, settings())) == essence(undisturbed)


FAULTY = """
import os, torch
class Net(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear, self.calls = torch.nn.Linear(inputs, outputs), 0
    def forward(self, images):
        self.calls += 1
        if self.calls > 5 and os.environ.get("RANK") == "1":
            {fault}
        return self.linear(images.flatten(1))
def net(num_classes, in_channels, image_size):
    return Net(in_channels * image_size**2, num_classes)
"""


def faulty(folder: Path, fault: str) -> dict[str, Any]:
    (folder / "faulty.py").write_text(FAULTY.format(fault=fault))
    return settings() | {"model": {"source": "faulty:net"}}


def test_memory_that_runs_out_on_any_rank_is_the_runs_result(tmp_path: Path, digits: Path) -> None:
    changed = faulty(tmp_path, "raise MemoryError('no more of it')")
    record = finish(tmp_path, digits, changed, module_root=tmp_path)
    assert record.outcome == "out_of_memory"
    assert (
        record.message is not None
        and record.message.startswith("rank 1 ")
        and "no more of it" in record.message
    )
    assert (
        record.metrics["validation_accuracy"].value is None and record.metrics["train_seconds"].value is None
    )
    assert record.metrics.keys() == no_metrics().keys()
    assert record.telemetry is not None, "what the machine did until then"
    assert lines(tmp_path)[-1]["event"] == "finished"
    assert load_file(tmp_path / "train" / "model.safetensors") == {}
    assert not (tmp_path / "checkpoint").exists(), "the run is done"


def test_divergence_is_decided_by_all_ranks(tmp_path: Path, digits: Path) -> None:
    changed = faulty(tmp_path, "images = images * float('nan')")
    record = finish(tmp_path, digits, changed, module_root=tmp_path)
    assert record.outcome == "diverged"


def test_an_error_on_one_rank_is_told_with_its_traceback(tmp_path: Path, digits: Path) -> None:
    changed = faulty(tmp_path, "raise TypeError('not this')")
    running = start(tmp_path, digits, changed, module_root=tmp_path)
    output = ended(running)
    assert running.returncode == 1
    assert "TypeError: not this" in output and "faulty.py" in output
    assert lines(tmp_path)[-1]["rank"] == 1
    assert not (tmp_path / "train" / "record.json").exists()


def test_two_nodes_train_what_two_devices_of_one_do(
    tmp_path: Path, digits: Path, undisturbed: Record
) -> None:
    nodes = two_nodes(tmp_path, digits, settings(1, 2))
    for running in nodes:
        output = ended(running)
        assert running.returncode == 0, output
    record = Record.read(tmp_path / "train" / "record.json")
    assert record.batches_sha256 == undisturbed.batches_sha256
    assert record.weights_sha256 == undisturbed.weights_sha256
    assert len(record.details["ranks"]) == 2


def test_a_rank_killed_on_one_node_ends_the_others_too(tmp_path: Path, digits: Path) -> None:
    first, second = two_nodes(tmp_path, digits, settings(1, 2, epochs=10_000))
    wait_for_checkpoint(tmp_path, first)
    victim = rank_process(1, second.pid)
    os.kill(victim, signal.SIGKILL)
    for running in (first, second):
        output = ended(running)
        assert running.returncode == 1 and f"rank 1 (process {victim})" in output and "SIGKILL" in output, (
            output
        )
    assert lines(tmp_path)[-1]["rank"] == 1


@pytest.mark.parametrize("lost", [0, 1])
def test_a_node_that_dies_ends_the_others_too(lost: int, tmp_path: Path, digits: Path) -> None:
    both = two_nodes(tmp_path, digits, settings(1, 2, epochs=10_000))
    wait_for_checkpoint(tmp_path, both[0])
    both[lost].kill()
    both[lost].communicate(timeout=SECONDS)
    output = ended(both[1 - lost])
    assert both[1 - lost].returncode == 1, output
    assert ("the first node" if lost == 0 else "node 1") in output and "does not answer any more" in output


def test_a_signal_to_one_node_ends_all_at_the_same_step(tmp_path: Path, digits: Path) -> None:
    both = two_nodes(tmp_path, digits, settings(1, 2, epochs=10_000))
    wait_for_checkpoint(tmp_path, both[0])
    both[1].send_signal(signal.SIGUSR1)
    for running in both:
        output = ended(running)
        assert running.returncode == 128 + signal.SIGUSR1, output


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    os.environ.pop(VARIABLE)
    yield server
    server.stop()


def test_jobs_that_are_forked_from_a_loaded_process(
    server: Server, tmp_path: Path, digits: Path, undisturbed: Record
) -> None:
    through = {VARIABLE: server.address}
    held = held_since(tmp_path)
    running = start(tmp_path, digits, settings(), **through, **held.variables)
    held.wait(running)
    running.send_signal(signal.SIGTERM)
    held.release()
    output = ended(running)
    assert running.returncode == 128 + signal.SIGTERM, output
    running = start(tmp_path, digits, settings(), **through)
    output = ended(running)
    assert running.returncode == 0, output
    assert essence(Record.read(tmp_path / "train" / "record.json")) == essence(undisturbed)


def test_a_client_that_is_killed_takes_the_ranks_along(server: Server, tmp_path: Path, digits: Path) -> None:
    running = start(tmp_path, digits, settings(epochs=10_000), **{VARIABLE: server.address})
    wait_for_checkpoint(tmp_path, running)
    forked = int((tmp_path / ".lock").read_text().split()[0])
    assert forked != running.pid
    ranks = [rank_process(rank, forked) for rank in (0, 1)]
    running.kill()
    running.communicate(timeout=SECONDS)
    gone(forked, *ranks)


def test_without_slurm_several_nodes_are_refused(tmp_path: Path, digits: Path) -> None:
    running = start(tmp_path, digits, settings(1, 2))
    output = ended(running)
    assert running.returncode == 1
    assert "execution.nodes: 2, but SLURM_NNODES is not set" in output and "srun --nodes=2" in output
