"""Telling a webhook of every line of the journal, without ever making the controller wait.

The journal is the queue: what was delivered is a number in a file, so nothing is lost when the receiver or the
controller is down, and a line may be delivered twice; `number` tells them apart.
"""

import contextlib
import json
import threading
import urllib.request
from typing import Any

from assay.records import write_atomically
from assay.release.layout import Layout
from assay.release.ramp.journal import Journal, JournalError, Line
from assay.release.ramp.state import title
from assay.release.schema import Release

TIMEOUT_SECONDS = 10.0
FIRST_RETRY, LONGEST_RETRY = 1.0, 300.0


class Webhook:
    """A thread that sends while the controller decides."""

    def __init__(self, url: str, layout: Layout, release: Release) -> None:
        self._url, self._layout, self._release = url, layout, release
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="webhook")
        self._told = 0
        """Sent by this process, whether that could be written down or not."""
        self.problem: str | None = None
        """Why the last delivery failed; None: it did not."""

    def start(self) -> None:
        self._thread.start()

    def tell(self, line: Line) -> None:
        self._wake.set()

    def stop(self, seconds: float = 5.0) -> None:
        """Send what is left, within a time; the rest is sent when a controller starts again."""
        self._ending.set()
        self._wake.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        pause = FIRST_RETRY
        while True:
            self._wake.clear()
            if self._send_all():
                pause = FIRST_RETRY
                if self._ending.is_set():
                    return
                self._wake.wait()
            else:
                if self._ending.wait(pause):
                    return
                pause = min(2 * pause, LONGEST_RETRY)

    def _send_all(self) -> bool:
        try:
            waiting = Journal(self._layout).lines()[self._sent() :]
        except (JournalError, OSError) as error:
            self.problem = str(error)
            return False
        for line in waiting:
            try:
                if line.number > self._told:
                    self._send(line)
                self._told = line.number
                write_atomically(self._layout.told, json.dumps({"told": line.number}).encode() + b"\n")
            except (OSError, ValueError) as error:
                self.problem = f"{self._url}: {error}"
                return False
        self.problem = None
        return True

    def _sent(self) -> int:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads(self._layout.told.read_bytes())["told"])
        return 0

    def _send(self, line: Line) -> None:
        body = json.dumps(content(line, self._release)).encode()
        request = urllib.request.Request(
            self._url, data=body, headers={"Content-Type": "application/json", "User-Agent": "assay"}
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            answer.read(1024)


def content(line: Line, release: Release) -> dict[str, Any]:
    """What is told of a line; `text` is for chats."""
    state = line.state
    where = title(state, release)
    return {
        "release": state.release,
        "number": line.number,
        "timestamp": line.timestamp,
        "event": line.event,
        "phase": state.phase,
        "step": state.step,
        "share": state.wanted.share,
        "held": state.held,
        "reason": line.reason,
        "by": line.by,
        "stable": state.stable.version,
        "candidate": state.candidate.version,
        "text": f"{state.release}: {line.event}: {where}: {line.reason}",
    }
