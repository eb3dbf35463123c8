"""Copies of requests for the shadow: handed over by the stable version, which waits for nothing and nobody.

A copy is one datagram on a Unix socket: four bytes with the length of a JSON object of headers, the object, the body; a large
one is a file in memory (memfd), and the datagram passes its descriptor, so that the kernel's bound on datagrams, often 200 KB,
bounds no body. What does not fit into the kernel's queue at once is lost, and counted; so is all of it while nobody reads.
"""

import errno
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

COPIED = (
    *(b"authorization", b"content-type", b"accept", b"x-request-id", b"x-assay-user"),
    *(b"x-assay-key", b"x-assay-timestamp", b"x-assay-nonce", b"x-assay-signature"),
)
"""Headers without which the candidate would answer otherwise, or not be known to have answered the same."""
DIRECT = 64 * 1024
"""Bytes of the largest datagram; what is larger goes by a descriptor."""
BUFFER = 4 * 1024 * 1024
"""Asked of the kernel, which gives less."""
_OTHERS_MAY_PASS = (errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ETOOMANYREFS)
LOST = "x-assay-lost"
"""Among the headers: how many copies this process lost since the last that it handed over."""
NOBODY_SECONDS = 0.25
"""For as long nobody is looked for again."""


class Copies:
    """The sending end, one per process. Never blocks."""

    def __init__(self, path: Path, told: Callable[[str], None] = lambda _: None) -> None:
        """told: of each copy, `handed` or `lost`: no room, nobody there."""
        self._path = path
        self._told = told
        self._lost = 0
        self._nobody_until = 0.0
        self._socket: socket.socket | None = None

    def offer(self, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """headers: names in lower case."""
        if self._offered(headers, body):
            self._lost = 0
            self._told("handed")
        else:
            self._lost += 1
            self._told("lost")

    def _offered(self, headers: Mapping[bytes, bytes], body: bytes) -> bool:
        if time.monotonic() < self._nobody_until:
            return False
        kept = {n.decode(): headers[n].decode("latin-1") for n in COPIED if n in headers}
        head = json.dumps(kept | {LOST: str(self._lost)}).encode()
        whole = struct.pack("<I", len(head)) + head + body
        try:
            if len(whole) <= DIRECT:
                self._connected().send(whole)
            else:
                _pass(self._connected(), whole)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _OTHERS_MAY_PASS:
                self._forget()
            return False
        return True

    def _connected(self) -> socket.socket:
        if self._socket is None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                made.setblocking(False)
                made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
                with short(self._path) as path:
                    made.connect(path)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    def _forget(self) -> None:
        self._nobody_until = time.monotonic() + NOBODY_SECONDS
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _pass(made: socket.socket, content: bytes) -> None:
    """As a file that lives until both ends have closed it. Raises: OSError."""
    with os.fdopen(os.memfd_create("copy", os.MFD_CLOEXEC), "wb") as file:
        file.write(content)
        file.flush()
        socket.send_fds(made, [b"\0"], [file.fileno()])


def received(made: socket.socket) -> tuple[dict[str, str], bytes]:
    """The next copy: headers and body. Raises: BlockingIOError where there is none; ValueError for what is no copy."""
    datagram, passed, _, _ = socket.recv_fds(made, 2 * DIRECT, 1, socket.MSG_DONTWAIT)
    if not passed:
        return unpacked(datagram)
    with os.fdopen(passed[0], "rb") as file:
        file.seek(0)
        return unpacked(file.read())


def receiver(path: Path) -> socket.socket:
    """The receiving end, in place of any other. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with short(temporary) as name:
        made.bind(name)
    temporary.chmod(0o600)
    temporary.replace(path)
    made.setblocking(False)
    return made


def unpacked(datagram: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body. Raises: ValueError for what is no copy."""
    if len(datagram) < 4:
        raise ValueError("no copy of a request")
    (length,) = struct.unpack("<I", datagram[:4])
    headers = json.loads(datagram[4 : 4 + length])
    if not isinstance(headers, dict):
        raise ValueError("no copy of a request")
    return {str(name): str(value) for name, value in headers.items()}, datagram[4 + length :]


@contextmanager
def short(path: Path) -> Iterator[str]:
    """A name for a socket's address, which may have 107 bytes at most, however deep its folder lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
