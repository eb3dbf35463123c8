"""Load from connections that are kept open: what every request got."""

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Traffic:
    """Requests on several connections until `stop`. A connection that the server announced to end is opened anew.

    failed: (when, what), `monotonic`. versions: by version, how many answers.
    """

    port: int
    body: bytes
    connections: int = 4
    failed: list[tuple[float, str]] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    last: str = ""

    def __enter__(self) -> "Traffic":
        self._going = True
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(self.connections)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._going = False
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        return sum(self.versions.values())

    def more(self, count: int = 50, seconds: float = 60) -> None:
        """Wait for as many answers."""
        until, wanted = time.monotonic() + seconds, self.count + count
        while self.count < wanted:
            assert time.monotonic() < until, f"no answers: {self.failed[-3:]}"
            time.sleep(0.01)

    def _run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while self._going:
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.request("POST", "/predict", self.body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer: Any = json.loads(response.read())
                if response.status == 200:
                    with self._lock:
                        self.last = answer["model_version"]
                        self.versions[self.last] = self.versions.get(self.last, 0) + 1
                else:
                    self.failed.append((time.monotonic(), f"{response.status}: {answer}"))
                if response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failed.append((time.monotonic(), repr(error)))
                connection = None
            time.sleep(0.001)
