"""Load from connections that are kept open: what every request got."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 180.0


@dataclass
class Traffic:
    """Requests on several connections until `stop`. A connection that the server announced to end is opened anew.

    failed: (when, what), `monotonic`. answers: (`monotonic` when the request before it on its connection was sent, or
    that was made; version).
    """

    port: int
    body: bytes
    connections: int = 4
    failed: list[tuple[float, str]] = field(default_factory=list)
    answers: list[tuple[float, str]] = field(default_factory=list)

    def __enter__(self) -> "Traffic":
        self._going = True
        self._threads = [threading.Thread(target=self._run) for _ in range(self.connections)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._going = False
        for thread in self._threads:
            thread.join()

    @property
    def versions(self) -> set[str]:
        return {version for _, version in self.answers}

    @property
    def count(self) -> int:
        return len(self.answers)

    def more(self, count: int = 50, seconds: float = PATIENCE) -> None:
        """Wait for as many answers."""
        wanted = self.count + count
        self._wait(lambda: self.count >= wanted, seconds)

    def since(self, moment: float, count: int = 50) -> set[str]:
        """Versions of as many answers after a moment, but for the first on a connection that was there before: that one
        may still be of whom it was made with, who ends it with this answer."""

        def found() -> list[str]:
            return [version for before, version in self.answers if before > moment]

        self._wait(lambda: len(found()) >= count, PATIENCE)
        return set(found())

    def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"no answers: {self.failed[-3:]}"
            time.sleep(0.01)

    def _run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        before = 0.0
        while self._going:
            try:
                if connection is None:
                    before = time.monotonic()
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
                sent = time.monotonic()
                connection.request("POST", "/predict", self.body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer: Any = json.loads(response.read())
                if response.status == 200:
                    self.answers.append((before, answer["model_version"]))
                else:
                    self.failed.append((time.monotonic(), f"{response.status}: {answer}"))
                before = sent
                if response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failed.append((time.monotonic(), repr(error)))
                connection = None
            time.sleep(0.001)
