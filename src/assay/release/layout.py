"""Where a release keeps what: the paths are part of the interface."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The folder of one release, `releases/NAME`."""

    folder: Path

    @property
    def resolved(self) -> Path:
        """The release file with every default, as the release began."""
        return self.folder / "release.yaml"

    @property
    def salt(self) -> Path:
        """Drawn when the release begins, 32 hexadecimal digits, readable by its owner alone."""
        return self.folder / "salt"

    @property
    def state(self) -> Path:
        """What the controller wants to hold, and why; replaced atomically."""
        return self.folder / "state.json"

    @property
    def journal(self) -> Path:
        """Every change of `state`, one JSON line each, appended and flushed to the disk before it takes effect."""
        return self.folder / "journal.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the controller as long as it lives."""
        return self.folder / ".lock"

    @property
    def told(self) -> Path:
        """How much of the journal the webhook has."""
        return self.folder / "run" / "webhook.json"

    @property
    def room(self) -> Path:
        """There while the controller can write: it is removed where the disk is full, which is all that works then."""
        return self.folder / "run" / "room"

    @property
    def orders(self) -> Path:
        """What a person wants, one file per order, taken by the controller."""
        return self.folder / "orders"

    @property
    def access(self) -> Path:
        """The front's log, one JSON line per request (`observations.Access`)."""
        return self.folder / "logs" / "access.jsonl"

    @property
    def shadow_log(self) -> Path:
        """What became of copies of requests, lines as in `access`."""
        return self.folder / "logs" / "shadow.jsonl"

    @property
    def shadow_queue(self) -> Path:
        """The socket by which the stable version hands over copies of requests."""
        return self.folder / "run" / "shadow.sock"

    @property
    def outcomes(self) -> Path:
        """What the application reports about users: JSON lines (`observations.Outcome`)."""
        return self.folder / "logs" / "outcomes.jsonl"

    def predictions(self, role: str) -> Path:
        """The folder of a version's prediction logs, one file per worker."""
        return self.folder / "logs" / f"predictions-{role}"

    def service(self, role: str) -> Path:
        """A running version: process ids, sockets, what its programs print."""
        return self.folder / "run" / role

    @property
    def shared(self) -> Path:
        """What all workers of both versions share: `nonces` of signed requests, `limits` of users."""
        return self.folder / "run" / "shared"

    @property
    def shadow(self) -> Path:
        """Which share of the stable version's requests is copied, and where to: read again when it changes."""
        return self.folder / "run" / "shadow.json"

    @property
    def judge(self) -> Path:
        """What the judge has read so far, and what it made of it."""
        return self.folder / "judge.json"

    @property
    def drift(self) -> Path:
        """The same of drift."""
        return self.folder / "drift.json"

    @property
    def front(self) -> Path:
        """The front: rendered configurations by generation, and `active`, a link to the one in use."""
        return self.folder / "run" / "front"
