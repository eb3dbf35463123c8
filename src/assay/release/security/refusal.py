"""What a caller is told who is not let in."""


class Refusal(Exception):
    """status: of HTTP. code: one word for programs and metrics. reason: for people.

    No text of one has anything in it that came from the caller, a key or a secret.
    """

    def __init__(
        self, status: int, code: str, reason: str, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason
        self.headers = headers


def no_identity(reason: str, *, asked: bool = True) -> Refusal:
    """401 as RFC 6750 has it. asked: whether a token was given at all."""
    error = f' error="invalid_token", error_description="{reason}"' if asked else ""
    return Refusal(401, "identity", reason, ((b"www-authenticate", f"Bearer{error}".encode()),))


def no_signature(reason: str) -> Refusal:
    return Refusal(401, "signature", reason, ((b"www-authenticate", b"Assay-Signature"),))


def too_many(reason: str, seconds: int) -> Refusal:
    return Refusal(429, "limit", reason, ((b"retry-after", b"%d" % max(1, seconds)),))
