"""Which source files decide what a stage produces: a change in them runs the stage again."""

from functools import cache
from hashlib import sha256
from pathlib import Path

PACKAGE = Path(__file__).parent
_SUFFIXES = frozenset((".py", ".j2", ".css", ".js"))

_BATCHES = ("data/augment.py", "data/batches.py", "data/store.py", "data/streams.py")
STAGES: dict[str, tuple[str, ...]] = {
    "resolve": ("config/resolve.py",),
    "health": ("health", "image/verify.py"),
    "data": ("data",),
    "train": (*_BATCHES, "models", "training"),
    "sweep": ("config/trials.py", "sweep"),
    "evaluate": (
        *_BATCHES,
        "models",
        "training/execution.py",
        "training/graphs.py",
        "training/outcomes.py",
        "evaluation",
    ),
    "profile": (*_BATCHES, "models", "training", "profiling", "telemetry"),
    "trace": (
        *_BATCHES,
        "models",
        "training",
        "profiling/subject.py",
        "profiling/training_step.py",
        "tracing",
    ),
    "compare": ("comparison", "evaluation/metrics.py", "evaluation/table.py"),
    "report": ("reporting",),
    "archive": ("archive",),
    "bundle": ("",),
}
"""Per stage the files and folders below the package. Settings reach a stage through its parameters and
records through their schema version, so `config` and `records` are not among them. How a training is watched decides
nothing that it computes, so `telemetry` is not among its sources; it decides which profile blocks are valid. The package itself lies
in a bundle, and all of it is its source."""


def stage_sha256(stage: str) -> str:
    """SHA-256 over names and contents of the stage's source files, templates included."""
    return sources_sha256(STAGES[stage])


@cache
def sources_sha256(packages: tuple[str, ...] = ()) -> str:
    """SHA-256 over names and contents of the source files below the given files and folders of the package.

    Names are relative to the package (`data`, `data/store.py`, `records.py`; a module may go without `.py`);
    none means the whole package. Computed once per process.

    Raises: ValueError for a name that is not there.
    """
    return package_sha256(PACKAGE, packages)


def package_sha256(package: Path, packages: tuple[str, ...]) -> str:
    """As `sources_sha256`, of a package that lies elsewhere."""
    digest = sha256()
    for path in _package_files(package, packages):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _package_files(package: Path, packages: tuple[str, ...]) -> list[Path]:
    files: set[Path] = set()
    for name in packages or (".",):
        path = next((path for path in (package / name, package / f"{name}.py") if path.exists()), None)
        if path is None:
            raise ValueError(f"the package has no '{name}' in {package}")
        found = path.rglob("*") if path.is_dir() else (path,)
        files.update(file for file in found if file.suffix in _SUFFIXES and file.is_file())
    return sorted(files)
