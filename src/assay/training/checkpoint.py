"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

import fcntl
import os
import random
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

CURRENT, PREVIOUS = "state.pt", "state.previous.pt"


class Checkpoints:
    """The checkpoints of one run, in a folder of their own.

    A file is written beside its place, synced and renamed; the one before is kept, so that a damaged file costs
    some steps and not the run. A checkpoint made under other circumstances (`fingerprint`) is never continued.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.attempt = 1
        """How often the run was begun: one more than the checkpoint says that was loaded."""
        self.warnings: list[str] = []

    def save(self, state: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{CURRENT}"
        with temporary.open("wb") as file:
            torch.save({"fingerprint": self.fingerprint, "attempt": self.attempt, "state": dict(state)}, file)
            file.flush()
            os.fsync(file.fileno())
        current = self.folder / CURRENT
        if current.exists():
            current.replace(self.folder / PREVIOUS)
        temporary.replace(current)

    def load(self) -> dict[str, Any] | None:
        """The newest whole checkpoint of this very run; None where there is none."""
        for name in (CURRENT, PREVIOUS):
            path = self.folder / name
            if not path.exists():
                continue
            saved = self._read(path)
            if saved is not None:
                self.attempt = int(saved["attempt"]) + 1
                return dict(saved["state"])
        return None

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            fingerprint = saved["fingerprint"]
        except Exception as error:  # a damaged file fails in as many ways as there are bytes
            self._put_aside(path, f"could not be read ({type(error).__name__})")
            return None
        if fingerprint != self.fingerprint:
            self._put_aside(path, "belongs to other settings, data, code or versions")
            return None
        return dict(saved)

    def _put_aside(self, path: Path, why: str) -> None:
        aside = path.with_suffix(".unusable")
        path.replace(aside)
        self.warnings.append(f"checkpoint {path.name} {why}; put aside as {aside.name}")

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def random_state() -> dict[str, Any]:
    """The state of every global generator, in types that a weights-only load accepts."""
    legacy: Any = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
        "numpy_rest": [int(legacy["state"]["pos"]), int(legacy["has_gauss"]), float(legacy["gauss"])],
        "python": random.getstate(),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    position, has_gauss, gauss = state["numpy_rest"]
    np.random.set_state(("MT19937", state["numpy"].numpy().astype(np.uint32), position, has_gauss, gauss))
    version, values, following = state["python"]
    random.setstate((version, tuple(values), following))


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Hold a run for this process alone; wait, and say so, while an orphan of an earlier call still has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            print(
                f"{path.parent}: process {holder} still works on this run; waiting for it",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield
