"""Ports for the servers that tests start, which nobody else is given in the meantime.

A port that the kernel chose and that was let go of again is handed out to the next who asks, before the server that it
was for has bound it. These lie below those that the kernel hands out, and each is held against the tests of all other
processes by a name that one process on this machine has at a time (`assay.isolation.names`), until this one ends.
"""

import random
import socket

from assay.isolation.names import bind

FIRST_PORT, PORTS = 10_000, 10_000
"""Below the ports at which the nodes of a run meet (`assay.training.rendezvous`)."""
_claimed: list[socket.socket] = []


def free_port() -> int:
    """A port at which nobody listens, and which is this process's to give to a server."""
    for port in random.SystemRandom().sample(range(FIRST_PORT, FIRST_PORT + PORTS), PORTS):
        if claim(port):
            return port
    raise RuntimeError("every port is taken")


def claim(port: int) -> bool:
    """Hold a port against all other tests; False where one of them has it, or somebody listens."""
    name = bind(f"test-port/{port}")
    if name is None:
        return False
    if in_use(port):
        name.close()
        return False
    _claimed.append(name)
    return True


def in_use(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False
