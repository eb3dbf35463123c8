"""Copies of requests for the shadow: handed over by the stable version, which waits for nothing and nobody.

A copy is one datagram on a Unix socket: four bytes with the length of a JSON object of headers, the object, the body. What
does not fit into the kernel's queue at once is lost, and counted; so is all of it while nobody reads.
"""

import errno
import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

COPIED = (
    *(b"authorization", b"content-type", b"accept", b"x-request-id", b"x-assay-user"),
    *(b"x-assay-key", b"x-assay-timestamp", b"x-assay-nonce", b"x-assay-signature"),
)
"""Headers without which the candidate would answer otherwise, or not be known to have answered the same."""
BUFFER = 4 * 1024 * 1024
"""Asked of the kernel, which gives less; a copy beyond what it gives is lost."""
NOBODY_SECONDS = 0.25
"""For as long nobody is looked for again."""


class Copies:
    """The sending end, one per process. Never blocks."""

    def __init__(self, path: Path) -> None:
        self.handed = 0
        self.lost = 0
        """Too large, no room, nobody there."""
        self._path = path
        self._nobody_until = 0.0
        self._socket: socket.socket | None = None

    def offer(self, headers: Mapping[bytes, bytes], body: bytes) -> None:
        """headers: names in lower case."""
        if time.monotonic() < self._nobody_until:
            self.lost += 1
            return
        kept = {n.decode(): headers[n].decode("latin-1") for n in COPIED if n in headers}
        head = json.dumps(kept).encode()
        try:
            self._connected().send(struct.pack("<I", len(head)) + head + body)
            self.handed += 1
        except BlockingIOError:
            self.lost += 1
        except OSError as error:
            self.lost += 1
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):  # others may pass
                self._forget()

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
