"""The identity service as a process that lives on when the controller does not."""

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from assay.records import Typed
from assay.release.layout import Layout
from assay.release.ports import free_port
from assay.release.ramp.parts import PartError
from assay.release.schema import Release
from assay.release.security.service import identity_process
from assay.release.server.files import Process, process_of, read_file, write_file


class Known(Typed):
    """`run/identity/process.json`."""

    process: Process
    port: int


@dataclass
class Identity:
    """Asked by the front whose a token is; without one nobody is identified, and all have the stable version."""

    release: Release
    layout: Layout

    @property
    def address(self) -> str | None:
        """None: nobody is identified."""
        known = self._known()
        return None if known is None else f"127.0.0.1:{known.port}"

    def ensure(self) -> None:
        """Start it where it does not run. Raises: PartError."""
        if self.release.serving.jwt is None:
            return
        known = self._known()
        if known is not None and known.process.alive:
            return
        port = free_port() if known is None else known.port
        try:
            command, environment = identity_process(self.release, f"127.0.0.1:{port}")
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
            with contextlib.suppress(ProcessLookupError):
                os.kill(known.process.pid, signal.SIGTERM)

    def _known(self) -> Known | None:
        return read_file(self._folder / "process.json", Known)

    @property
    def _folder(self) -> Path:
        return self.layout.folder / "run" / "identity"
