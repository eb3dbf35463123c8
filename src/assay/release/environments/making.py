"""An environment that is made beside whoever asks: by a process, which can take minutes and can be ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from assay.release.environments.place import Kind, PlaceError, lease
from assay.release.environments.prepare import Environment, place_of

_LAST_LINES = 3
_KILL_SECONDS = 10.0
"""After it was asked to end."""


class Making:
    """The environment of a bundle on its way: `poll` until it is there, or `abandon` it and `poll_end` until it has ended.

    output: file of what the process prints. Raises: OSError, PlaceError.
    """

    def __init__(self, kind: Kind, bundle: Path, output: Path) -> None:
        self._kind, self._bundle, self._output = kind, bundle, output
        self._until = 0.0
        self._place = None if kind == "host" else place_of(kind, bundle)
        self._process = None if kind == "host" else self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        """In a session of its own, so that what it starts ends with it."""
        words = ["-m", "assay.cli", "release", "env", "make", str(self._bundle), "--environment", self._kind]
        with self._output.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-P", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def poll(self) -> Environment | None:
        """None: not yet. Raises: PlaceError saying what stands in the way."""
        if self._place is None or self._process is None:
            return Environment("host", "host")
        status = self._process.poll()
        if status is None:
            return None
        if status != 0:
            raise PlaceError(self._last_words(status))
        try:
            held = lease(self._place, wait=False)
        except BlockingIOError:  # somebody removes it, who came before this one could hold it
            return None
        try:
            if self._place.read() is not None:
                return Environment(self._kind, self._place.name, self._place, held)
            self._process = self._start()
        except BaseException:
            os.close(held)
            raise
        os.close(held)
        return None

    def _last_words(self, status: int) -> str:
        lines = self._output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        why = " / ".join(lines[-_LAST_LINES:]) or f"its maker ended with status {status}"
        return f"the environment could not be made: {why}; all that was printed is in {self._output}"

    def abandon(self) -> None:
        """Ask all its processes to end."""
        self._until = time.monotonic() + _KILL_SECONDS
        self._send(signal.SIGTERM)

    def poll_end(self) -> bool:
        """Whether nothing of it runs any more; what does not end when asked is killed."""
        process = self._process
        if process is None or process.returncode is not None:
            return True
        # Looked at before it is reaped: until then the group's number can be nobody else's.
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > self._until:
                self._send(signal.SIGKILL)
            return False
        self._send(signal.SIGKILL)
        process.wait()
        return True

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, number)
