"""The identity service as a process that lives on when the controller does not."""

import math
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from assay.records import Typed
from assay.release.layout import Layout
from assay.release.ports import free_port
from assay.release.ramp.parts import PartError
from assay.release.routing.front import port_is_free
from assay.release.routing.processes import printing_to, send
from assay.release.schema import Release
from assay.release.security.service import identity_process
from assay.release.server.files import Process, process_of, read_file, write_file

HERE = "127.0.0.1"
AGAIN_SECONDS = 5.0
"""Between two tries to start it."""
TAKEN_SECONDS = 5.0
"""A port that is somebody else's for as long is given up."""


class Known(Typed):
    """`run/identity/process.json`."""

    process: Process
    port: int


@dataclass
class Identity:
    """Asked by the front whose a token is; without one nobody is identified, and all have the stable version."""

    release: Release
    layout: Layout
    _tried: float = -math.inf
    """When it was started last, by this controller (monotonic)."""
    _taken: float = math.inf
    """Since when its port has been somebody else's."""

    @property
    def address(self) -> str | None:
        """None: nobody is identified."""
        known = self._known()
        return None if known is None else f"{HERE}:{known.port}"

    def ensure(self) -> None:
        """Start it where it does not run. Raises: PartError as long as it does not answer."""
        if self.release.serving.jwt is None:
            return
        known = self._known()
        alive = known is not None and known.process.alive
        if known is not None and alive and _listens(known.port):
            return
        if not alive:
            self._end_left_over()
        if not alive and time.monotonic() - self._tried >= AGAIN_SECONDS:
            port = self._port(known)
            if port is not None:
                self._start(port)
        raise PartError(
            "identity service: does not answer, and new users have the stable version; it says why in "
            f"{self._folder / 'output.log'}"
        )

    def _end_left_over(self) -> None:
        """A worker whose master was killed goes on, and holds the port: its output tells it."""
        for process in printing_to(self._folder / "output.log"):
            send(process, signal.SIGTERM)

    def _port(self, known: Known | None) -> int | None:
        """The one that the front knows, if it can be had; None: not yet, as who has it may be about to end."""
        if known is None:
            return free_port()
        if port_is_free(HERE, known.port):
            return known.port
        self._taken = min(self._taken, time.monotonic())
        return free_port() if time.monotonic() - self._taken >= TAKEN_SECONDS else None

    def _start(self, port: int) -> None:
        self._tried, self._taken = time.monotonic(), math.inf
        try:
            command, environment = identity_process(self.release, f"{HERE}:{port}")
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / "output.log").open("ab") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env=os.environ | environment,
                )
            write_file(self._folder / "process.json", Known(process=process_of(process.pid), port=port))
        except (ValueError, OSError) as error:
            raise PartError(f"identity service: {error}") from None

    @property
    def alive(self) -> bool:
        known = self._known()
        return known is not None and known.process.alive

    def stop(self) -> None:
        known = self._known()
        if known is not None and known.process.alive:
            send(known.process.pid, signal.SIGTERM)
        else:
            self._end_left_over()

    def _known(self) -> Known | None:
        return read_file(self._folder / "process.json", Known)

    @property
    def _folder(self) -> Path:
        return self.layout.folder / "run" / "identity"


def _listens(port: int) -> bool:
    """By a connection, which the kernel takes for a process that stands still, too."""
    with socket.socket() as probe:
        probe.settimeout(2.0)
        return probe.connect_ex((HERE, port)) == 0
