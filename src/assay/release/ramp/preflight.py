"""What must be right before a release begins: all that is wrong is told at once, and nothing has been started yet."""

import errno
import json
import os
import shutil
import socket
import ssl
import stat
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from assay.release.asking import asked
from assay.release.bundle.manifest import Manifest
from assay.release.bundle.read import read
from assay.release.layout import Layout
from assay.release.ramp.state import Version
from assay.release.schema import Release, Tls
from assay.release.security.jwks import watch_keys
from assay.release.security.signatures import watch_secrets

HEALTH_SECONDS = 30.0
"""A version that does not say within as long that it is well is not."""
LEAST_FREE_BYTES = 200 * 1024 * 1024
_ENVIRONMENT = "env:"


class Refused(ValueError):
    """What speaks against beginning, a line each."""


@dataclass(frozen=True)
class Pair:
    """The two versions, read and compared with their checksums."""

    stable: Version
    candidate: Version
    old: Manifest
    new: Manifest


def check(
    release: Release, layout: Layout, pair: Pair, *, forced: str | None, front: list[str] | None
) -> list[str]:
    """Everything that can be known before anything is started. forced: why a worse candidate is let through.

    front: what speaks against the one that is there already; None: there is none, and the port has to be free.

    Returns: what is noteworthy and no reason to refuse. Raises: Refused.
    """
    against = [
        *_alike(pair),
        *_files(release),
        *_place(release, layout),
        *(_port(release) if front is None else front),
    ]
    said, worse = verdict(pair.new, pair.old)
    if release.serving.jwt is None:
        said.append(
            "serving.jwt is null: nobody is identified, so no step is ever decided; a person has to promote"
        )
    if worse and forced is None:
        against.append(
            f"offline the candidate is worse: {'; '.join(worse)}; to release it all the same, write why: --force REASON"
        )
    if against:
        raise Refused("\n".join(f"{release.name}: {text}" for text in against))
    return said


def pair_of(stable: Path, candidate: Path) -> Pair:
    """Raises: BundleError for a bundle that is missing or was changed."""
    old, new = read(stable).manifest, read(candidate).manifest
    return Pair(
        Version(version=old.version, folder=str(stable.absolute())),
        Version(version=new.version, folder=str(candidate.absolute())),
        old,
        new,
    )


def verdict(new: Manifest, old: Manifest) -> tuple[list[str], list[str]]:
    """What the experiment said of the candidate, and what speaks against it: that it is `worse` than what users have.

    Of the experiment's first metric, which its verdict is about. A candidate that is better there may well cost more.
    """
    if new.verdict is None:
        return ["offline: nothing was compared"], []
    said = [f"offline: {new.verdict.headline}"]
    if not new.verdict.contract_valid:
        said.append(
            "offline: the comparison's contract was not valid: its numbers do not compare the models alone"
        )
    against = {(new.arm, old.arm, "worse"), (old.arm, new.arm, "better")}
    worse = [claim for claim in new.verdict.claims if (claim.arm, claim.baseline, claim.verdict) in against]
    first = [claim.sentence for claim in worse if new.verdict.metric in (claim.metric, None)]
    said += [f"offline: {claim.sentence}" for claim in worse if claim.sentence not in first]
    return said, first


def _alike(pair: Pair) -> Iterator[str]:
    old, new = pair.old, pair.new
    if old.version == new.version:
        yield f"versions: stable and candidate are the same version, {old.version}; name two"
    if old.input.shape != new.input.shape:
        yield f"versions: stable takes {list(old.input.shape)}, the candidate {list(new.input.shape)}: requests would not fit"
    if old.classes != new.classes:
        yield f"versions: classes differ: {_first_difference(old.classes, new.classes)}; answers would mean other things"


def _first_difference(old: list[str], new: list[str]) -> str:
    if len(old) != len(new):
        return f"{len(old)} and {len(new)} of them"
    number = next(number for number, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1])
    return f"number {number} is {old[number]!r} and {new[number]!r}"


def _files(release: Release) -> Iterator[str]:
    """Files that the release names: there, and secret where they have to be."""
    jwt, signatures, tls = release.serving.jwt, release.serving.signatures, release.routing.tls
    if jwt is not None:
        shared = any(algorithm.startswith("HS") for algorithm in jwt.algorithms)
        wrong = list(_file("serving.jwt.jwks", jwt.jwks, secret=shared))
        yield from wrong or _unusable(lambda: watch_keys(jwt.jwks, jwt.algorithms))
    if signatures is not None:
        wrong = list(_file("serving.signatures.secrets", signatures.secrets, secret=True))
        yield from wrong or _unusable(lambda: watch_secrets(signatures.secrets))
    if tls is not None:
        wrong = [
            *_file("routing.tls.certificate", tls.certificate, secret=False),
            *_file("routing.tls.key", tls.key, secret=True),
        ]
        yield from wrong or _unusable(lambda: _certificate(tls))


def _unusable(read: Callable[[], object]) -> Iterator[str]:
    """What the program that is to use a file says of its content."""
    try:
        read()
    except ValueError as error:
        yield str(error)


def _certificate(tls: Tls) -> None:
    """Raises: ValueError."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            tls.certificate, tls.key, password=lambda: b""
        )
    except (OSError, ValueError) as error:
        what = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ValueError(
            f"routing.tls: {tls.certificate} with {tls.key}: {what}; write the files of a certificate chain and of its "
            "key, both PEM, the key without a passphrase"
        ) from None


def _file(key: str, name: str, *, secret: bool) -> Iterator[str]:
    if name.startswith(_ENVIRONMENT):
        if name.removeprefix(_ENVIRONMENT) not in os.environ:
            yield f"{key}: the variable {name.removeprefix(_ENVIRONMENT)} is not set"
        return
    try:
        found = Path(name).stat()
        with Path(name).open("rb"):
            pass
    except OSError as error:
        yield f"{key}: {name}: {error.strerror}; write the path of a file that can be read here"
        return
    if not stat.S_ISREG(found.st_mode):
        yield f"{key}: {name}: is no file"
    elif secret and found.st_mode & 0o077:
        yield f"{key}: {name}: others may read it; run: chmod 600 {name}"
    elif found.st_mode & 0o002:
        yield f"{key}: {name}: everybody may write to it; run: chmod o-w {name}"


def _place(release: Release, layout: Layout) -> Iterator[str]:
    """Room for logs, and a folder that can be written to."""
    try:
        layout.folder.mkdir(parents=True, exist_ok=True)
        probe = layout.folder / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        yield f"folder: {layout.folder}: cannot be written to ({error.strerror})"
        return
    free = shutil.disk_usage(layout.folder).free
    if free < LEAST_FREE_BYTES:
        yield f"folder: {layout.folder}: {free / 1e6:.0f} MB free, {LEAST_FREE_BYTES / 1e6:.0f} are the least for its logs"


def _port(release: Release) -> Iterator[str]:
    address, port = release.routing.address, release.routing.port
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            instead = {
                errno.EADDRNOTAVAIL: "write an address of this machine, 127.0.0.1, or 0.0.0.0 for all of them",
                errno.EACCES: "write a port from 1024 on: this user may not listen on those below",
            }.get(error.errno or 0, "end what listens there, or write another port")
            key = "address" if error.errno == errno.EADDRNOTAVAIL else "port"
            yield f"routing.{key}: {address} port {port}: {os.strerror(error.errno or 0)}; {instead}"


def health(address: str, version: str) -> list[str]:
    """What speaks against a version that runs: it must answer, and be the one that is meant, golden outputs and all."""
    try:
        said = dict(json.loads(asked(f"http://{address}/health/ready", HEALTH_SECONDS)))
    except urllib.error.HTTPError as error:
        return [f"{address}: /health/ready answers {error.code}"]
    except (OSError, ValueError, TypeError, HTTPException) as error:
        return [f"{address}: /health/ready: {error}"]
    if said.get("model_version") != version:
        return [f"{address}: serves {said.get('model_version')}, not {version}"]
    golden = said.get("golden") or {}
    deviation, tolerance = golden.get("deviation"), golden.get("tolerance")
    if deviation is None or tolerance is None or not deviation <= tolerance:
        return [f"{address}: golden outputs are off by {deviation}, {tolerance} is what arithmetic explains"]
    return []
