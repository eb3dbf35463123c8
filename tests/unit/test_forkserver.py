"""The server that forks jobs: the child behaves as a process of its own, and ends with its client and owner."""

import array
import errno
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from assay import forkserver
from assay.forkserver import VARIABLE, Server

ENTRY = """
import os, signal, sys, time
from pathlib import Path

def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if argv[0] == "report":
        threads = len(os.listdir("/proc/self/task"))
        print("torch" in sys.modules, os.getcwd(), os.environ.get("PLANTED"), os.getpid(), threads)
        print("to stderr", file=sys.stderr)
        return int(argv[1])
    if argv[0] == "temporary":
        import tempfile
        print(tempfile.gettempdir())
        return 0
    if argv[0] == "raise":
        raise RuntimeError("planted failure")
    if argv[0] == "compute":
        import torch
        torch.manual_seed(0)
        torch.set_num_threads(2)
        a = torch.randn(400, 400)
        print(float((a @ a).sum()))
        return 0
    if argv[0] == "fork":
        if os.fork() == 0:
            os.setsid()
            Path(argv[1]).write_text(str(os.getpid()))
        time.sleep(600)
        return 0
    if argv[0] == "wait":
        time.sleep(600)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: (Path(argv[2]).write_text("asked to end"), sys.exit(7)))
    Path(argv[1]).write_text(str(os.getpid()))
    time.sleep(600)
    return 0

if __name__ == "__main__":
    from assay.forkserver import dispatch
    dispatch(__file__, main)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    path = tmp_path / "entry.py"
    path.write_text(ENTRY)
    return path


def start(entry: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    source = str(Path(__file__).parents[2] / "src")
    return subprocess.Popen(
        [sys.executable, str(entry), *arguments],
        env=os.environ | {"PYTHONPATH": source} | environment,
        cwd=entry.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "condition not reached in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_child_has_torch_loaded_and_the_clients_world(server: Server, entry: Path) -> None:
    client = start(entry, "report", "3", PLANTED="seen")
    output, errors = client.communicate(timeout=300)
    loaded, folder, planted, pid, threads = output.split()
    assert (loaded, folder, planted) == ("True", str(entry.parent), "seen")
    assert int(pid) != client.pid
    assert threads == "1", "the server must fork without threads"
    assert errors == "to stderr\n"
    assert client.returncode == 3


def test_without_server_the_entry_point_does_its_own_work(entry: Path) -> None:
    client = start(entry, "report", "3", **{VARIABLE: str(entry.parent / "no-such-socket")})
    output, _ = client.communicate(timeout=300)
    assert output.split()[0] == "False" and int(output.split()[3]) == client.pid
    assert client.returncode == 3


def test_same_bits_in_a_fork_and_in_a_fresh_process(server: Server, entry: Path) -> None:
    forked, _ = start(entry, "compute").communicate(timeout=300)
    fresh, _ = start(entry, "compute", **{VARIABLE: ""}).communicate(timeout=300)
    assert forked and forked == fresh


def test_exception_reaches_the_client(server: Server, entry: Path) -> None:
    client = start(entry, "raise")
    _, errors = client.communicate(timeout=300)
    assert client.returncode == 1
    assert "planted failure" in errors


def test_signal_is_handed_on(server: Server, entry: Path, tmp_path: Path) -> None:
    started, ended = tmp_path / "pid", tmp_path / "ended"
    client = start(entry, "sleep", str(started), str(ended))
    wait_for(lambda: started.exists() and started.read_text() != "")
    client.terminate()
    assert client.wait(timeout=300) == 7
    assert ended.read_text() == "asked to end"


def test_a_signal_after_the_childs_end_does_not_hide_how_it_ended(entry: Path) -> None:
    """A client that stood still finds both, the status from a server that has closed the connection."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        address = f"{folder}/socket"  # a path of pytest's may be too long for one
        listener.bind(address)
        listener.listen()
        with start(entry, "wait", **{VARIABLE: address}) as client:
            connection, _ = listener.accept()
            wait_for(lambda: catches(client.pid, signal.SIGUSR1))
            client.send_signal(signal.SIGSTOP)
            request = connection.recv(4)
            connection.recv(*struct.unpack("!I", request), socket.MSG_WAITALL)
            connection.sendall(struct.pack("!I", 7))
            connection.close()
            client.terminate()
            client.send_signal(signal.SIGCONT)
            _, errors = client.communicate(timeout=300)
        assert client.returncode == 7, errors


def catches(process: int, number: int) -> bool:
    caught = re.search(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    assert caught is not None
    return bool(int(caught[1], 16) >> (number - 1) & 1)


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_killed_client_takes_its_child_along(server: Server, entry: Path, tmp_path: Path) -> None:
    started = tmp_path / "pid"
    client = start(entry, "sleep", str(started), str(tmp_path / "ended"))
    wait_for(lambda: started.exists() and started.read_text() != "")
    child = int(started.read_text())
    assert alive(child)
    client.kill()
    wait_for(lambda: not alive(child))


def test_a_client_and_its_child_that_end_together_take_nobody_along(
    server: Server, entry: Path, tmp_path: Path
) -> None:
    """The server hears of both at once, because a client that connects and says nothing holds it up."""
    started = tmp_path / "pid"
    client = start(entry, "sleep", str(started), str(tmp_path / "ended"))
    wait_for(lambda: started.exists() and started.read_text() != "")
    child = int(started.read_text())
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(server.address)
        time.sleep(0.2)
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: not alive(child))
        client.kill()
        client.wait()
    still_serves(entry)


def still_serves(entry: Path) -> None:
    client = start(entry, "report", "3")
    output, errors = client.communicate(timeout=300)
    assert client.returncode == 3 and output.startswith("True"), errors


def asked(server: Server, entry: Path, *arguments: str) -> tuple[socket.socket, bytes]:
    """A connection over which files were handed, and the request that is to follow."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    content = {"script": str(entry), "argv": arguments, "cwd": str(entry.parent), "env": environment}
    request = json.dumps(content).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server.address)
    files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
    connection.sendmsg([struct.pack("!I", len(request))], files)
    return connection, request


def test_a_client_killed_while_it_asks_takes_nobody_along(server: Server, entry: Path) -> None:
    connection, request = asked(server, entry, "report", "3")
    connection.sendall(request[:10])
    connection.close()
    still_serves(entry)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_where_no_process_can_be_started_one_client_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(forkserver.os, "fork", refused)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
        ours.sendmsg([struct.pack("!I", 2)], files)
        ours.sendall(b"{}")
        before, mask = open_files(), signal.pthread_sigmask(signal.SIG_BLOCK, [])
        assert forkserver._fork(theirs, ()) is None
        assert ours.recv(4, socket.MSG_WAITALL) == b"", "the client hears of it"
    assert open_files() == before - 2, "files of the client stay open"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    assert "no process could be started" in capsys.readouterr().err


def test_a_signal_before_the_child_has_begun_is_not_lost(server: Server, entry: Path) -> None:
    for _ in range(20):
        connection, request = asked(server, entry, "wait")
        with connection:
            connection.sendall(request + bytes([signal.SIGTERM]))
            connection.settimeout(300)
            status = connection.recv(4, socket.MSG_WAITALL)
        assert struct.unpack("!I", status) == (128 + signal.SIGTERM,)


def test_a_childs_temporary_files_are_where_its_client_wants_them(
    server: Server, entry: Path, tmp_path: Path
) -> None:
    out, errors = start(entry, "temporary", TMPDIR=str(tmp_path)).communicate(timeout=300)
    assert out == f"{tmp_path}\n", errors


def test_all_ends_with_the_owner(entry: Path, tmp_path: Path) -> None:
    """An owner killed outright leaves neither server nor children behind, nor the files that PyTorch made for them.

    Nor what a child left that died a moment after it: the server, which a silent client holds up, hears of both at once.
    """
    temporary = Path(tempfile.mkdtemp())  # a socket's path is short
    owner_code = (
        "import subprocess, sys, time; from assay.forkserver import Server; s = Server();"
        "p = subprocess.Popen([sys.executable, *sys.argv[1:]]); print(s._process.pid, s.address, flush=True); time.sleep(600)"
    )
    started = tmp_path / "pid"
    owner = subprocess.Popen(
        [sys.executable, "-c", owner_code, str(entry), "sleep", str(started), str(tmp_path / "ended")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    number, address = owner.stdout.readline().split()
    server_pid = int(number)
    wait_for(lambda: started.exists() and started.read_text() != "")
    child = int(started.read_text())
    forked = tmp_path / "forked"
    with (
        start(entry, "fork", str(forked), **{VARIABLE: address}) as client,
        socket.socket(socket.AF_UNIX) as silent,
    ):
        wait_for(lambda: forked.exists() and forked.read_text() != "")
        stray = int(forked.read_text())
        silent.connect(address)
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        parent = parent_of(stray)
        os.kill(parent, signal.SIGKILL)
        wait_for(lambda: parent_of(stray) == server_pid)
        silent.close()
        client.communicate(timeout=300)
    wait_for(lambda: not alive(child) and not alive(server_pid))
    assert not alive(stray)
    assert Path(address).is_relative_to(temporary)
    temporary.rmdir()
