"""Names that one process on this machine has at a time: abstract Unix sockets, bound.

The kernel gives each name once, on the whole machine and whoever asks, and takes it back when the process ends,
however it ends: no file, no folder, no clean-up. A container sees the same names as long as it has the host's network.
"""

import socket

NAMES = "assay"
"""What all of them begin with."""


def bind(name: str) -> socket.socket | None:
    """The name, held as long as the socket is open; None where somebody has it."""
    taken = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        taken.bind(f"\0{NAMES}/{name}")
    except OSError:
        taken.close()
        return None
    return taken


def is_free(name: str) -> bool:
    """Whether nobody has it at this moment."""
    held = bind(name)
    if held is None:
        return False
    held.close()
    return True
