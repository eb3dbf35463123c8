"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

import fcntl
import os
import random
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
    some steps and not the run. A checkpoint made under other circumstances (`fingerprint`) is never continued, and
    one made on another number of devices is left alone: what it cost is the user's to give up.

    shape: devices of a node, and nodes.
    """

    def __init__(self, folder: Path, fingerprint: str, shape: tuple[int, int] = (1, 1)) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.shape = shape
        self.attempt = 1
        """How often the run was begun: one more than the checkpoint says that was loaded."""
        self.warnings: list[str] = []

    def save(self, state: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{CURRENT}"
        with temporary.open("wb") as file:
            content = {"fingerprint": self.fingerprint, "shape": self.shape, "attempt": self.attempt}
            torch.save(content | {"state": dict(state)}, file)
            file.flush()
            os.fsync(file.fileno())
        current = self.folder / CURRENT
        if current.exists():
            current.replace(self.folder / PREVIOUS)
        temporary.replace(current)

    def load(self) -> dict[str, Any] | None:
        """The newest whole checkpoint of this very run; None where there is none.

        Raises: ValueError for one that was made on another number of devices.
        """
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
            fingerprint, (devices, nodes) = saved["fingerprint"], saved["shape"]
        except Exception as error:  # a damaged file fails in as many ways as there are bytes
            self._put_aside(path, f"could not be read ({type(error).__name__})")
            return None
        if fingerprint != self.fingerprint:
            self._put_aside(path, "belongs to other settings, data, code or versions")
            return None
        if (devices, nodes) != self.shape:
            raise ValueError(
                f"{path}: this run was begun with `devices: {devices}` and `nodes: {nodes}` and is now to go on with "
                f"`devices: {self.shape[0]}` and `nodes: {self.shape[1]}`, which would not give the same bits; write "
                f"`execution: {{devices: {devices}, nodes: {nodes}}}` to go on, or remove {self.folder} to begin anew"
            )
        return dict(saved)

    def _put_aside(self, path: Path, why: str) -> None:
        aside = path.with_suffix(".unusable")
        path.replace(aside)
        self.warnings.append(f"checkpoint {path.name} {why}; put aside as {aside.name}")


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every global generator that a run draws from, in types that a weights-only load accepts."""
    legacy: Any = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
        "numpy_rest": [int(legacy["state"]["pos"]), int(legacy["has_gauss"]), float(legacy["gauss"])],
        "python": random.getstate(),
    }


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
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
