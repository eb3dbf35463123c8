"""What it costs a released version to know who asks and to write down what it answered, in microseconds a request.

    python benchmarks/release_security.py [--rounds 5]

Each line is one step as a worker takes it, in one process on one core: the median of some rounds with their range. What the log's
thread does is apart from what a request waits for. `the disk` is the folder of temporary files.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY / "tests" / "unit" / "release")]

import numpy as np  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402
from tokens_made import AUDIENCE, public_jwk, shared_jwk, token, write_keys  # noqa: E402

from assay.release.log import BATCH, PredictionLog, Served, lines  # noqa: E402
from assay.release.schema import Jwt, Signatures  # noqa: E402
from assay.release.security.limits import UserLimit  # noqa: E402
from assay.release.security.signatures import SignatureCheck, sign  # noqa: E402
from assay.release.security.tokens import Verifier  # noqa: E402

COUNT = 1000
SECRET = b"s" * 64
Round = Callable[[], Callable[[], int]]
"""Prepares a round; what it returns is timed, and says how many requests it was."""


def tokens(folder: Path, algorithm: str, *, again: bool) -> Round:
    keys = {
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "HS256": lambda: SECRET,
    }
    key = keys[algorithm]()
    jwk = shared_jwk(SECRET, "1") if algorithm == "HS256" else public_jwk(key, "1")
    jwks = write_keys(folder / f"{algorithm}-{again}.json", jwk)
    issued = [token(key, algorithm, sub=str(number)) for number in range(COUNT)]
    settings = Jwt.model_validate({"jwks": str(jwks), "algorithms": [algorithm], "audience": AUDIENCE})

    def prepare() -> Callable[[], int]:
        verifier = Verifier(settings, b"0" * 32)
        if again:
            for one in issued:
                verifier.verify(one)
        return lambda: len([verifier.verify(one) for one in issued])

    return prepare


def signatures(folder: Path, size: int) -> Round:
    callers = folder / "callers"
    callers.write_text(f"client {SECRET.decode()}\n")
    callers.chmod(0o600)
    check = SignatureCheck(Signatures(secrets=str(callers)), folder / "nonces", "stable")
    body = b"0" * size

    def prepare() -> Callable[[], int]:
        signed = [sign("client", SECRET, "POST", "/predict", body) for _ in range(COUNT)]
        headers = [{name.encode(): value.encode() for name, value in one.items()} for one in signed]
        return lambda: len([check.verify(b"POST", b"/predict", one, body, b"r") for one in headers])

    return prepare


def limits(folder: Path) -> Round:
    limit = UserLimit("1000000000/minute", folder / "limits", "stable")
    return lambda: lambda: len([limit.count(str(number % 100)) for number in range(COUNT)])


def served(shape: tuple[int, ...]) -> Served:
    draw = np.random.default_rng(0)
    pixels = draw.uniform(0, 255, (1, *shape)).astype(np.float32)
    scores = draw.normal(size=(1, 10)).astype(np.float32)
    return Served("0" * 32, "v" * 12, 1.234, pixels, scores, time.time(), user="0" * 32, queue_ms=0.1)


def made(shape: tuple[int, ...]) -> Round:
    batch = [served(shape)] * BATCH
    return lambda: lambda: sum(len(lines(batch)) for _ in range(COUNT // BATCH))


def put(folder: Path) -> Round:
    one = served((8, 8, 1))

    def prepare() -> Callable[[], int]:
        log = PredictionLog(folder / "put")
        return lambda: len([log.put(one) for _ in range(COUNT)])

    return prepare


def written(folder: Path, shape: tuple[int, ...]) -> Round:
    one = served(shape)

    def prepare() -> Callable[[], int]:
        log = PredictionLog(folder / "predictions")
        for _ in range(COUNT):
            log.put(one)

        def end() -> int:
            log.close(60)
            return log.counts().written

        return end

    return prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # logs go on until the end
        folder = Path(name)
        steps: dict[str, Round] = {
            f"token, {how}, {algorithm}": tokens(folder, algorithm, again=again)
            for again, how in ((False, "verified"), (True, "remembered"))
            for algorithm in ("EdDSA", "ES256", "RS256", "HS256")
        }
        steps |= {
            f"signature and nonce, body of {size:,} bytes": signatures(folder, size) for size in (300, 12_288)
        }
        steps |= {"limit per user": limits(folder), "prediction log: what a request waits for": put(folder)}
        for shape in ((8, 8, 1), (32, 32, 3)):
            steps[f"prediction log: line made, {np.prod(shape)} values"] = made(shape)
            steps[f"prediction log: line made and written, {np.prod(shape)} values"] = written(folder, shape)
        report(steps, rounds)


def report(steps: dict[str, Round], rounds: int) -> None:
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, prepare in steps.items():
            timed = prepare()
            began = time.perf_counter()
            count = timed()
            found[name].append((time.perf_counter() - began) / count * 1e6)
    print(f"{'step':<55} {'µs':>8}  range")
    for name, times in found.items():
        print(f"{name:<55} {median(times):8.2f}  {min(times):.2f} to {max(times):.2f}")
    print(json.dumps({"microseconds": {name: median(times) for name, times in found.items()}}))


if __name__ == "__main__":
    main()
