"""Simulated users: each with a token of its own, some of whom ask far more often than others.

    python -m assay.release.demo.users PLAN

PLAN is a JSON file (`Plan`). Until SIGTERM; what they saw stands in its `seen`, replaced every half second.
"""

import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import OKPAlgorithm

from assay.config.schema import Data
from assay.data.sources.base import ArrayPart
from assay.data.sources.digits import load_digits
from assay.records import write_atomically
from assay.release.security.salt import read_salt, user_digest

AUDIENCE = "predictions"
TAIL = 1.3
"""Of the Pareto distribution of how often a user asks: the busiest tenth ask about half of all."""
MARKED = 0.3
"""Share of images with the upper left pixel set, which no image of the data set has."""


@dataclass
class Plan:
    """What the users do."""

    url: str
    key: str
    """Private key (PEM) that signs their tokens."""
    salt: str
    outcomes: str
    """Where the application reports whether an answer was right."""
    seen: str
    users: int = 3000
    rate: float = 80.0
    """Requests a second, of all together."""
    seed: int = 1


@dataclass
class Seen:
    """What they got."""

    requests: int = 0
    errors: int = 0
    """Answers other than 200, and none."""
    versions: dict[str, int] | None = None
    worst: str = ""


def make_keys(folder: Path) -> tuple[Path, Path]:
    """A private key (PEM) and its JWKS, readable by their owner alone."""
    folder.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    private, public = folder / "issuer.pem", folder / "jwks.json"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    jwk = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    public.write_text(json.dumps({"keys": [jwk | {"kid": "demo", "alg": "EdDSA", "use": "sig"}]}))
    public.chmod(0o600)
    return private, public


class Crowd:
    """All users together."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed)
        key = load_pem_private_key(Path(plan.key).read_bytes(), None)
        end = int(time.time()) + 3600
        names = [f"user-{number}@example.org" for number in range(plan.users)]
        self.tokens = [
            jwt.encode({"sub": name, "aud": AUDIENCE, "exp": end}, key, "EdDSA", headers={"kid": "demo"})  # type: ignore[arg-type]
            for name in names
        ]
        salt = read_salt(Path(plan.salt))
        self.digests = [user_digest(salt, name) for name in names]
        self.weights = np.cumsum([self.chance.paretovariate(TAIL) for _ in names]).tolist()
        part = load_digits(Data(source="digits")).parts["train"]
        assert isinstance(part, ArrayPart)
        self.images = np.asarray(part.images, dtype=np.float32)
        self.labels = np.asarray(part.labels)
        self.seen = Seen()
        self.versions: Counter[str] = Counter()

    async def run(self, stopping: asyncio.Event) -> None:
        """Requests come at random moments, whether earlier ones were answered or not."""
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=32)
        waiting: set[asyncio.Task[None]] = set()
        async with httpx.AsyncClient(base_url=self.plan.url, limits=limits, timeout=30.0) as client:
            written = time.monotonic()
            while not stopping.is_set():
                task = asyncio.create_task(self._ask(client))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
                await asyncio.sleep(self.chance.expovariate(self.plan.rate))
                if time.monotonic() - written > 0.5:
                    written = time.monotonic()
                    self.write()
            await asyncio.gather(*waiting)
        self.write()

    async def _ask(self, client: httpx.AsyncClient) -> None:
        user = self.chance.choices(range(self.plan.users), cum_weights=self.weights)[0]
        number = self.chance.randrange(len(self.images))
        image = self.images[number].copy()
        if self.chance.random() < MARKED:
            image[0, 0] = 255.0
        headers = {"Authorization": f"Bearer {self.tokens[user]}"}
        self.seen.requests += 1
        try:
            answer = await client.post("/predict", json={"inputs": [image.ravel().tolist()]}, headers=headers)
            problem = "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"
        except httpx.HTTPError as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            self.seen.errors += 1
            self.seen.worst = problem
            return
        said: dict[str, Any] = answer.json()
        self.versions[said["model_version"]] += 1
        right = int(np.argmax(said["outputs"][0])) == int(self.labels[number])
        line = {"timestamp": time.time(), "user": self.digests[user], "value": float(right)}
        with Path(self.plan.outcomes).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def write(self) -> None:
        self.seen.versions = dict(self.versions)
        write_atomically(Path(self.plan.seen), json.dumps(asdict(self.seen)).encode())


async def _main(plan: Plan) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await Crowd(plan).run(stopping)


if __name__ == "__main__":
    asyncio.run(_main(Plan(**json.loads(Path(sys.argv[1]).read_text()))))
