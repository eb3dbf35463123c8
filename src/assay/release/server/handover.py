"""The listening socket from hand to hand: a supervisor that comes anew has it from a worker that has it still."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_SECONDS = 30.0
"""A worker that stands still for a while is waited for: without the socket what it serves would have to end."""


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for a socket's file that is short whatever its folder's is: the kernel takes 107 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def offer(path: Path) -> socket.socket:
    """A Unix socket on which `give` is to be called whenever somebody comes."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _short(path) as name:
        listener.bind(name)
    path.chmod(0o600)
    listener.listen(4)
    listener.setblocking(False)
    return listener


def give(listener: socket.socket, given: socket.socket) -> None:
    """Hand `given` to who came, if it is this user or root."""
    with contextlib.suppress(OSError):
        caller, _ = listener.accept()
        with caller:
            _, user, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if user in (0, os.getuid()):
                socket.send_fds(caller, [b"x"], [given.fileno()])


def take(path: Path) -> socket.socket | None:
    """The listening socket that a worker hands over; None where nobody does."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_SECONDS)
        with _short(path) as name:
            asking.connect(name)
        _, descriptors, _, _ = socket.recv_fds(asking, 1, 1)
        if descriptors:
            return socket.socket(fileno=descriptors[0])
    return None
