"""Ports for servers that are to be found where they were, also after they were started again."""

import random
import socket
from pathlib import Path

FIRST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """One that nobody listens on now, of those that the kernel does not give to connections: none takes it meanwhile.

    Where there are none such, one that the kernel gives.
    """
    for port in random.SystemRandom().sample(range(FIRST, max(FIRST, _first_of_the_kernel())), k=_tries()):
        if (found := _bound(port)) is not None:
            return found
    found = _bound(0)
    assert found is not None
    return found


def _tries() -> int:
    return min(100, max(0, _first_of_the_kernel() - FIRST))


def _first_of_the_kernel() -> int:
    try:
        return int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return FIRST


def _bound(port: int) -> int | None:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
        found: int = probe.getsockname()[1]
        return found
