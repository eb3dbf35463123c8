"""Jobs forked from a process that has PyTorch loaded.

`import torch` takes longer than a short training. While a workflow runs on the machine of its Snakemake
process, one server imports the heavy modules once; an entry point then becomes a thin client that hands its
arguments, environment and open files to the server, which forks a child to do the work. The child starts
as a fresh process would: no PyTorch operation has run in the server, so no thread pool, CUDA context or
random state is inherited.

What happens to the client happens to the child: it gets the client's signals and dies with it. All of it
ends with the Snakemake process, however that ends. Without a server an entry point does its own work.
"""

import array
import contextlib
import importlib.util
import json
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from assay.isolation.processes import adopt_orphans, children, end_descendants

VARIABLE = "ASSAY_FORKSERVER"
PRELOAD = ("torch", "torch._dynamo", "assay.training.run", "assay.evaluation.run", "assay.tracing.run")
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_LENGTH = struct.Struct("!I")
_STOP_SECONDS = 60.0
"""For the server to end its children, which outlive it if it is killed."""

Main = Callable[[list[str] | None], int]


class Server:
    """The server as its owner sees it. It ends with `stop`, or when the owner's process ends."""

    def __init__(self, python: str = sys.executable) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="assay-", ignore_cleanup_errors=True)
        self.address = str(Path(self._folder.name) / "socket")
        environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "OPENBLAS_NUM_THREADS": "1",
        }
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(self.address)
            listener.listen(256)
            self._process = subprocess.Popen(
                [python, "-P", "-m", "assay.forkserver", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(listener.fileno(),),
                env=environment,
                start_new_session=True,
            )
        os.environ[VARIABLE] = self.address

    def stop(self) -> None:
        os.environ.pop(VARIABLE, None)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def dispatch(script: str, main: Main) -> NoReturn:
    """Run an entry point in a child of the server, or here where there is none; exit with its status."""
    connection = _connect(os.environ.get(VARIABLE))
    sys.exit(main(None) if connection is None else _delegate(connection, script, sys.argv[1:]))


def _connect(address: str | None) -> socket.socket | None:
    if address is None:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        return None
    return connection


def _delegate(connection: socket.socket, script: str, arguments: list[str]) -> int:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    request = json.dumps(
        {"script": str(Path(script).resolve()), "argv": arguments, "cwd": str(Path.cwd()), "env": environment}
    ).encode()
    descriptors = array.array("i", [0, 1, 2])
    connection.sendmsg([_LENGTH.pack(len(request))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    connection.sendall(request)

    def hand_on(received: int, _: object) -> None:
        with contextlib.suppress(OSError):  # the child has just ended: its status is on the way
            connection.sendall(bytes([received]))

    for number in FORWARDED:
        signal.signal(number, hand_on)
    status = b""
    with contextlib.suppress(ConnectionError):
        status = connection.recv(_LENGTH.size, socket.MSG_WAITALL)
    if len(status) < _LENGTH.size:
        print("assay: the process that forks jobs ended early; the job starts again", file=sys.stderr)
        return 1
    return int(_LENGTH.unpack(status)[0])


def serve(listener: socket.socket) -> None:
    """Fork a child for each request until standard input closes; then end the children too."""
    _preload(Path(listener.getsockname()).parent)
    adopt_orphans()
    for number in FORWARDED:
        signal.signal(number, signal.SIG_IGN)
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    clients: dict[int, socket.socket] = {}
    selector = selectors.DefaultSelector()
    for source in (listener, woken, sys.stdin):
        selector.register(source, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                with contextlib.suppress(TimeoutError):
                    end_descendants(os.getpid())  # what a dead child left behind, and came here, included
                shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)
                return
            if key.fileobj is woken:
                with contextlib.suppress(BlockingIOError):
                    woken.recv(4096)
                _reap(clients, selector)
            elif key.fileobj is listener:
                client = listener.accept()[0]
                child = _fork(client, (listener, woken, wake, *clients.values()))
                if child is not None:
                    clients[child] = client
                    selector.register(client, selectors.EVENT_READ, data=child)
            else:
                _follow(key, clients, selector)


def _preload(folder: Path) -> None:
    """folder: the server's own, which goes with it, for the temporary files that PyTorch makes while it is loaded."""
    tempfile.tempdir = str(folder)
    for name in PRELOAD:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    tempfile.tempdir = None


def _receive(client: socket.socket) -> tuple[dict[str, object], list[int]] | None:
    """The client's request and its three standard files; None from one that went away."""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(3 * descriptors.itemsize)
    header, ancillary, _, _ = client.recvmsg(_LENGTH.size, room)
    if len(header) < _LENGTH.size or not ancillary:
        return None
    descriptors.frombytes(ancillary[0][2])
    length = _LENGTH.unpack(header)[0]
    request = client.recv(length, socket.MSG_WAITALL)
    if len(request) < length:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    return json.loads(request), list(descriptors)


def _fork(client: socket.socket, inherited: tuple[socket.socket, ...]) -> int | None:
    received = _receive(client)
    if received is None:
        client.close()
        return None
    request, descriptors = received
    # A signal for a child that has not come to its own handling of it yet waits, where this process would ignore it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    try:
        child = os.fork()
    except OSError as error:  # no room for another process: those that run are not to end for that
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for descriptor in descriptors:
            os.close(descriptor)
        client.close()
        print(f"assay: no process could be started for a job: {error.strerror}", file=sys.stderr)
        return None
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        with contextlib.suppress(PermissionError):
            os.setpgid(child, child)
        for descriptor in descriptors:
            os.close(descriptor)
        return child
    status = 1
    try:
        for connection in (client, *inherited):
            connection.close()
        status = _work(request, descriptors)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _work(request: dict[str, object], descriptors: list[int]) -> int:
    """In the child: take over the client's files, folder and environment, then run its entry point."""
    signal.set_wakeup_fd(-1)
    for number in (*FORWARDED, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    os.setpgid(0, 0)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", closefd=False, buffering=1)
    sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
    os.chdir(str(request["cwd"]))
    environment, arguments = request["env"], request["argv"]
    assert isinstance(environment, dict) and isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    script = str(request["script"])
    sys.argv = [script, *arguments]
    spec = importlib.util.spec_from_file_location("__assay_entry__", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return int(module.main(arguments))


def _reap(clients: dict[int, socket.socket], selector: selectors.BaseSelector) -> None:
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            _end_strays(clients)
            return
        client = clients.pop(child, None)
        if client is None:
            continue
        code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(OSError):
            client.sendall(_LENGTH.pack(code if code >= 0 else 128 - code))
        with contextlib.suppress(KeyError):
            selector.unregister(client)
        client.close()


def _follow(
    key: selectors.SelectorKey, clients: dict[int, socket.socket], selector: selectors.BaseSelector
) -> None:
    """A client sent a signal for its child, or is gone: then its child has nobody to work for."""
    assert isinstance(key.fileobj, socket.socket)
    if clients.get(key.data) is not key.fileobj:  # its child has ended too, and was reaped a moment ago
        return
    try:
        received = key.fileobj.recv(1)
    except OSError:
        received = b""
    if received:
        with contextlib.suppress(ProcessLookupError):
            os.kill(key.data, received[0])
    else:
        _kill(key.data)
        selector.unregister(key.fileobj)


def _kill(child: int) -> None:
    """A child and all that descends from it, which its death would set free."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGSTOP)
        with contextlib.suppress(TimeoutError):
            end_descendants(child)
        os.kill(child, signal.SIGKILL)


def _end_strays(clients: dict[int, socket.socket]) -> None:
    """What outlived the child that started it has nobody to work for either."""
    for stray in set(children(os.getpid())) - clients.keys():
        with contextlib.suppress(ProcessLookupError):
            os.kill(stray, signal.SIGKILL)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    # Its owner waits for its end, and an orderly one of a process that has torch loaded takes a while.
    os._exit(0)
