"""Answers to requests that never reach the model, or whose answer is no answer."""

from assay.release.security.refusal import Refusal


class RefusedRequest(Refusal):
    """A request that is answered by a 4xx or 5xx; its reason says what to write instead.

    close: whether the connection cannot go on, because the body was not read.
    """

    def __init__(
        self,
        status: int,
        code: str,
        reason: str,
        *,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        close: bool = False,
    ) -> None:
        super().__init__(status, code, reason, headers)
        self.close = close
