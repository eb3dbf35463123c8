"""The clock that every log, record and telemetry line tells its time by. Imports nothing heavy."""

from datetime import UTC, datetime


def now() -> str:
    """The time in UTC, RFC 3339 with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
