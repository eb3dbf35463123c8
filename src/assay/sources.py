"""Which source files decide what a stage produces: a change in them runs the stage again."""

from functools import cache
from hashlib import sha256
from pathlib import Path

PACKAGE = Path(__file__).parent

_BATCHES = ("data/augment.py", "data/batches.py", "data/store.py", "data/streams.py")
STAGES: dict[str, tuple[str, ...]] = {
    "resolve": (),
    "data": ("data",),
    "train": (*_BATCHES, "models", "training"),
    "evaluate": (*_BATCHES, "models", "training/execution.py", "evaluation"),
    "profile": (*_BATCHES, "models", "training", "profiling"),
    "compare": ("comparison",),
    "report": ("reporting",),
}
"""Per stage the files and folders below the package. Settings reach a stage through its parameters and
records through their schema version, so `config` and `records` are not among them."""


@cache
def stage_sha256(stage: str) -> str:
    """SHA-256 over names and contents of the stage's source files, templates included."""
    digest = sha256()
    for path in stage_files(stage):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def stage_files(stage: str) -> list[Path]:
    """The files themselves, in a fixed order."""
    files: set[Path] = set()
    for name in STAGES[stage]:
        path = PACKAGE / name
        found = path.rglob("*") if path.is_dir() else [path]
        files.update(
            file for file in found if file.is_file() and file.suffix in {".py", ".j2", ".css", ".js"}
        )
    return sorted(files)
