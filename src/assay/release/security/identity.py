"""The identity service: tells the front whose a token is.

`GET /identity` with the request's header Authorization -> 200 with `X-Assay-User`, the user's digest, and `X-Accel-Expires`, the
seconds for which the front may keep the answer; or 401. `GET /health/ready` says whether the keys are those of the file.
"""

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from assay.config.arm import Section
from assay.release.schema import Jwt
from assay.release.security.refusal import Refusal
from assay.release.security.salt import read_salt
from assay.release.security.tokens import Verifier

SETTINGS = "ASSAY_IDENTITY"
"""The variable with the service's settings: names of files, no secret."""
KEPT = 60
"""Most seconds that the front keeps an answer: as long at most may it know a user whose key was removed."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Answer = tuple[int, dict[str, Any], tuple[tuple[bytes, bytes], ...]]


class Settings(Section):
    jwt: Jwt
    salt: Path


class Service:
    def __init__(self, settings: Settings) -> None:
        """Raises: ValueError where keys or salt cannot be used."""
        self._verifier = Verifier(settings.jwt, read_salt(settings.salt))

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "lifespan is off"
        status, said, headers = self._answer(scope)
        body = orjson.dumps(said)
        fixed = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, scope: dict[str, Any]) -> Answer:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, {"error": "method"}, ((b"allow", b"GET, HEAD"),)
        match scope["path"]:
            case "/identity":
                return self._identity([v for name, v in scope["headers"] if name == b"authorization"])
            case "/health/live":
                return 200, {"live": True}, ()
            case "/health/ready":
                self._verifier.keys.current()
                return 200, {"ready": True, "problem": self._verifier.keys.problem}, ()
        return 404, {"error": "path"}, ()

    def _identity(self, authorization: list[bytes]) -> Answer:
        try:
            user, expires = self._verifier.identify(authorization)
        except Refusal as refused:
            said = {"error": refused.code, "reason": str(refused)}
            return refused.status, said, (*refused.headers, (b"x-accel-expires", b"0"))
        kept = max(0, min(KEPT, int(expires - time.time())))
        return 200, {"user": user}, ((b"x-assay-user", user.encode()), (b"x-accel-expires", b"%d" % kept))


def application() -> Service:
    """For gunicorn: `assay.release.security.identity:application()`. Raises: ValueError."""
    return Service(Settings.model_validate_json(os.environ[SETTINGS]))
