"""The base images that an experiment may name, and how one of its own is written."""

import re
from dataclasses import dataclass

SCHEME = "docker://"
_REFERENCE = re.compile(
    r"docker://(?P<name>[a-z0-9][a-zA-Z0-9._:/-]*?)(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class Base:
    """An image in a registry: `digest` decides, `tag` is for people."""

    name: str
    tag: str | None
    digest: str

    @property
    def reference(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{SCHEME}{self.name}{tag}@{self.digest}"


def _pytorch(tag: str, digest: str) -> Base:
    return Base("pytorch/pytorch", tag, f"sha256:{digest}")


# Digests as several authors published them; `assay image list --check` asks the registry for its own word.
BASES = {
    "pytorch-2.6.0-cuda12.4": _pytorch(
        "2.6.0-cuda12.4-cudnn9-runtime", "77f17f843507062875ce8be2a6f76aa6aa3df7f9ef1e31d9d7432f4b0f563dee"
    ),
    "pytorch-2.6.0-cuda12.4-devel": _pytorch(
        "2.6.0-cuda12.4-cudnn9-devel", "0cf3402e946b7c384ba943ee05c90b4c5a4a05227923921f2b0918c011cfaf56"
    ),
    "pytorch-2.6.0-cuda12.6": _pytorch(
        "2.6.0-cuda12.6-cudnn9-runtime", "f894dae26e1ee8557c544f9cfdb9dc011b1552bf3c1e656b422f2e221d380e40"
    ),
    "pytorch-2.7.1-cuda12.8": _pytorch(
        "2.7.1-cuda12.8-cudnn9-runtime", "c16f4c749e2d9e96878875cdf6cc45cddda1d1a36fddd371dd6f2360f1b6e2a2"
    ),
    "pytorch-2.8.0-cuda12.8": _pytorch(
        "2.8.0-cuda12.8-cudnn9-runtime", "417bd75df6365104c283ea4c1651fb3530d9eb5a4c2fafa51943cff2a94e6385"
    ),
    "pytorch-2.9.1-cuda12.8": _pytorch(
        "2.9.1-cuda12.8-cudnn9-runtime", "7b324d212a4450795b49edba9949b7cdc72429148a64e974334bfe5774d51385"
    ),
}
DEFAULT_BASE = "pytorch-2.9.1-cuda12.8"


def parse(reference: str) -> tuple[str, str | None, str | None]:
    """Name, tag and digest of `docker://NAME[:TAG][@sha256:…]`. Raises: ValueError saying what to write."""
    if not reference.startswith(SCHEME):
        raise ValueError(f"{reference!r} is no reference to a registry; write docker://NAME@sha256:…")
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise ValueError(
            f"{reference!r} cannot be read; write docker://NAME@sha256:… with 64 hexadecimal digits"
        )
    return found["name"], found["tag"], found["digest"]


def own_base(reference: str) -> Base:
    """The base of a reference that has its digest. Raises: ValueError for one that has none."""
    name, tag, digest = parse(reference)
    if digest is None:
        raise ValueError(f"{reference!r} has no digest: a tag may mean another image tomorrow")
    return Base(name, tag, digest)
