"""Lines of a front's log."""

import json

GOOD = {
    "timestamp": 1.5,
    "request_id": "r",
    "user": "u",
    "assigned": "candidate",
    "route": "split",
    "status": 200,
    "seconds": 0.25,
    "share": 0.1,
    "generation": 3,
    "stable": "127.0.0.1:1",
    "candidate": "127.0.0.1:2",
    "addresses": "127.0.0.1:2, 127.0.0.1:1",
    "statuses": "500, 200",
    "times": "0.100, 0.150",
    "headers": "0.100, 0.149",
}
"""The candidate failed, the stable version answered."""


def line(**changes: object) -> bytes:
    return json.dumps(GOOD | changes, separators=(",", ":")).encode() + b"\n"
