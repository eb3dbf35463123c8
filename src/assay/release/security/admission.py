"""What a version asks of every request, put together from the release file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from assay.release.schema import Serving
from assay.release.security.limits import UserLimit
from assay.release.security.salt import read_salt
from assay.release.security.signatures import SignatureCheck
from assay.release.security.sources import Standing
from assay.release.security.tokens import Verifier


class Admission:
    """Of one worker, made after it was forked. All methods take microseconds and wait for nothing but memory.

    salt: the release's. shared: folder of what workers share (`Layout.shared`).
    """

    def __init__(self, serving: Serving, role: str, salt: Path | None, shared: Path | None) -> None:
        """Raises: ValueError naming the key, file and what is wrong; OSError where `shared` cannot be made."""
        self._verifier = self._signatures = self._limit = None
        if serving.jwt is not None:
            if salt is None:
                raise ValueError("serving.jwt: no salt to hash users with; name its file")
            self._verifier = Verifier(serving.jwt, read_salt(salt))
        if serving.signatures is not None:
            self._signatures = SignatureCheck(serving.signatures, _in(shared) / "nonces", role)
        if serving.limits.per_user is not None:
            self._limit = UserLimit(serving.limits.per_user, _in(shared) / "limits", role)

    def identify(self, authorization: Sequence[bytes]) -> str:
        """The user's digest, empty where nobody is named; counted against their limit. Before the body is read.

        authorization: the values of all headers of that name. Raises: Refusal.
        """
        if self._verifier is None:
            return ""
        user = self._verifier.identify(authorization).user
        if self._limit is not None:
            self._limit.count(user)
        return user

    def check(
        self, method: bytes, target: bytes, headers: Mapping[bytes, bytes], body: bytes, request_id: bytes
    ) -> None:
        """Whether the caller signed the request, and for the first time. Raises: Refusal."""
        if self._signatures is not None:
            self._signatures.verify(method, target, headers, body, request_id)

    def standings(self) -> dict[str, Standing]:
        """How the files of keys stand now: `jwks`, `signatures`."""
        found = {} if self._verifier is None else {"jwks": self._verifier.keys.standing()}
        if self._signatures is not None:
            found["signatures"] = self._signatures.secrets.standing()
        return found

    def close(self) -> None:
        for part in (self._signatures, self._limit):
            if part is not None:
                part.close()


def _in(shared: Path | None) -> Path:
    if shared is None:
        raise ValueError("serving: signatures and limits per user need a folder that workers share; name it")
    return shared
