"""The gate's result to a webhook: one POST of JSON, in bounded time, that decides nothing."""

import http.client
import os
import threading
import time
import urllib.error
import urllib.request
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from assay.gate.model import Gate

URL_VARIABLE, TOKEN_VARIABLE = "ASSAY_WEBHOOK_URL", "ASSAY_WEBHOOK_TOKEN"
ATTEMPTS = 3
SECONDS_PER_ATTEMPT = 10.0
SECONDS = 30.0
"""For all attempts; a server that answers byte by byte does not hold a pipeline up."""
_PAUSES = (0.5, 2.0)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Elsewhere is not who the token was meant for."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def url_problem(url: str) -> str | None:
    """What is wrong with a URL, without telling it: it may be a secret."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme not in {"http", "https"} or not host:
        return "is no URL of http or https"
    if any(character.isspace() or ord(character) < 32 for character in url):
        return "holds a space or a control character"
    if parts.username or parts.password:
        return f"holds a user or a password; write a token into {TOKEN_VARIABLE} instead"
    return None


def notify(
    gate: Gate, url: str, *, seconds: float = SECONDS, pauses: tuple[float, ...] = _PAUSES
) -> str | None:
    """Send; None where it arrived, else what went wrong, in which no part of the URL but its host is told."""
    found: list[str] = ["no answer"]
    deadline = time.monotonic() + seconds
    # A daemon: the process ends though the server goes on answering.
    thread = threading.Thread(target=_attempts, args=(gate, url, deadline, pauses, found), daemon=True)
    thread.start()
    thread.join(seconds)
    # The last attempt gives up at the same moment as this thread: whichever is first, it is told alike.
    unanswered = thread.is_alive() or found[-1] == TimeoutError.__name__
    problem = f"no answer within {seconds:g} s" if unanswered else found[-1]
    return None if problem == "" else f"webhook at {urlsplit(url).hostname}: {problem}"


def _attempts(gate: Gate, url: str, deadline: float, pauses: tuple[float, ...], found: list[str]) -> None:
    body = gate.model_dump_json().encode()
    for attempt in range(ATTEMPTS):
        left = deadline - time.monotonic()
        if left <= 0:
            return
        problem, again = _post(url, body, min(SECONDS_PER_ATTEMPT, left))
        found.append(problem)
        if not again:
            return
        if attempt < len(pauses):
            time.sleep(pauses[attempt])


def _post(url: str, body: bytes, timeout: float) -> tuple[str, bool]:
    """What went wrong (empty: nothing), and whether to try again."""
    headers = {"Content-Type": "application/json", "User-Agent": "assay"}
    if token := os.environ.get(TOKEN_VARIABLE):
        headers["Authorization"] = f"Bearer {token}"
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        with opener.open(request, timeout=timeout) as answer:
            answer.read(1)
        return "", False
    except urllib.error.HTTPError as error:
        again = error.code in {408, 425, 429} or error.code >= 500
        return f"answered {error.code}", again
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return type(reason).__name__ if not isinstance(reason, OSError) else _errno(reason), True
    except ValueError:
        return "the URL or the token cannot be sent", False


def _errno(error: OSError) -> str:
    """The system's own words, which hold no URL."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else type(error).__name__
