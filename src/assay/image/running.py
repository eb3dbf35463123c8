"""How jobs run in the image: a clean environment, and what a job needs of the machine."""

import os
import shlex
from collections.abc import Iterable, MutableMapping
from pathlib import Path

from assay.isolation.machine import GPU

PASSED = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
PASSED_PREFIXES = ("SLURM_", "ASSAY_")
INJECTED = ("APPTAINERENV_", "SINGULARITYENV_")
"""Variables by which Apptainer sets others in the image."""
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
"""Apptainer hides them; a job's own is what bounds it where the kernel lets one be made."""


def confine(environment: MutableMapping[str, str]) -> None:
    """Let Apptainer hand on what a job needs of its environment, and nothing that somebody else injects."""
    for name in [name for name in environment if name.startswith(INJECTED)]:
        del environment[name]
    for name, value in list(environment.items()):
        if name in PASSED or name.startswith(PASSED_PREFIXES):
            environment[f"APPTAINERENV_{name}"] = value


def arguments(given: str, binds: Iterable[Path], *, gpu: bool | None = None) -> str:
    """Of `apptainer exec`: the user's own, isolation, and what must be seen inside.

    binds: folders and files that jobs read or write, besides the current folder.
    gpu: whether to bring in NVIDIA's driver; None: where this node has one.
    """
    words = ["--cleanenv", "--no-home", "--no-eval"]
    if GPU.exists() if gpu is None else gpu:
        words.append("--nv")
    for path in _outermost(path.resolve() for path in (*binds, _CONTROL_GROUPS)):
        words += ["--bind", str(path)]
    return " ".join([given, *map(shlex.quote, words)]).strip()


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Without those that another one, or the current folder, holds."""
    chosen: list[Path] = [Path.cwd()]
    for path in sorted(set(paths), key=lambda path: len(path.parts)):
        if path.exists() and not any(path.is_relative_to(other) for other in chosen):
            chosen.append(path)
    return chosen[1:]


def names_lock(environment: MutableMapping[str, str], lock: Path) -> None:
    """Tell jobs which image they run in: their records quote its lock."""
    environment["ASSAY_IMAGE_LOCK"] = os.fspath(lock.absolute())
