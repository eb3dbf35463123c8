"""What goes into an archive, and from where."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from assay.archive.calls_for import Belonging, missing
from assay.archive.private import Private
from assay.archive.reading import CODE, EXPERIMENT, IMAGE, LOGS, RESULTS
from assay.config.schema import Experiment
from assay.models.sources import source_files
from assay.records import RecordError

CHECKOUT = (
    "Snakefile",
    "LICENSE",
    "pyproject.toml",
    "containers",
    "profiles/default",
    "requirements",
    "src",
    "workflow",
)
"""What of the checkout it takes to run an experiment, and the lock files."""
OVERRIDES = "overrides.json"
WEIGHTS = "model.safetensors"

Content = bytes | Path
"""What is written into an archive, or the file that has it."""


@dataclass(frozen=True)
class Sources:
    """Where all that is archived lies."""

    experiment_file: Path
    """As the user wrote it."""
    overrides: str
    """Values from the command line that replaced some of the file's, as JSON."""
    results: Path
    logs: Path
    code: Path
    """The checkout."""
    module_roots: Sequence[Path]
    image_lock: Path | None = None
    image: Path | None = None
    """The container image itself, where the experiment wants it in."""


def gather(experiment: Experiment, sources: Sources, private: Private) -> dict[str, Content]:
    """Name in the archive: content.

    Raises: RecordError where something is missing; ValueError where a secret would get in.
    """
    if lacking := missing(experiment, sources.results):
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise RecordError(f"{sources.results / lacking[0]}: is missing{more}; run the experiment again")
    name = experiment.name
    logs = dict(_files(sources.logs, f"{LOGS}/{name}"))
    checked: dict[str, Content] = {
        **dict(_results(experiment, sources.results, f"{RESULTS}/{name}")),
        **_experiment(experiment, sources),
        **_image(sources),
    }
    for place, content in checked.items():
        if not place.endswith((".safetensors", ".sif")):
            private.check(place, content)
    own = f"{LOGS}/{name}/archive.log"
    texts = {place: private.text_log(path.read_bytes()) for place, path in logs.items() if place != own}
    return {**checked, **texts, **_code(sources.code)}


def _files(folder: Path, place: str) -> Iterator[tuple[str, Path]]:
    """All files below a folder, but for hidden ones and what is no result; the place of each in the archive."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        below = PurePosixPath(place, Path(here).relative_to(folder).as_posix())
        for name in sorted(names):
            path = Path(here) / name
            if not name.startswith(".") and path.is_file():
                yield str(below / name), path


def _results(experiment: Experiment, results: Path, place: str) -> Iterator[tuple[str, Path]]:
    """Without the data, which are not ours to hand on, and without weights that the experiment does not want in."""
    belonging = Belonging(experiment)
    for name, path in _files(results, place):
        inside = PurePosixPath(name).relative_to(place)
        is_data = inside.parts[0] == "data" and inside.suffix != ".json"
        unwanted = inside.name == WEIGHTS and not experiment.archive.weights
        passing = inside.parts[0] in ("archive", "tracking") or "checkpoint" in inside.parts[-2:-1]
        if not (is_data or unwanted or passing) and inside in belonging:
            yield name, path


def _experiment(experiment: Experiment, sources: Sources) -> dict[str, Content]:
    """The file as written and the user's own modules, as they lie to each other below the folders where they are sought."""
    found: dict[str, Content] = {f"{EXPERIMENT}/{sources.experiment_file.name}": sources.experiment_file}
    if sources.overrides not in ("", "{}"):
        found[f"{EXPERIMENT}/{OVERRIDES}"] = sources.overrides.encode() + b"\n"
    roots = sorted(sources.module_roots, key=lambda root: -len(root.parts))
    named = [experiment.data.source, *(arm.model.source for arm in experiment.arms.values())]
    for source in dict.fromkeys(named):
        for path in source_files(source, sources.module_roots):
            root = next(root for root in roots if path.is_relative_to(root))
            found[f"{EXPERIMENT}/{path.relative_to(root).as_posix()}"] = path
    return found


def _code(checkout: Path) -> dict[str, Content]:
    found: dict[str, Content] = {}
    for name in CHECKOUT:
        path = checkout / name
        if path.is_file():
            found[f"{CODE}/{name}"] = path
        found |= {
            place: file
            for place, file in _files(path, f"{CODE}/{name}")
            if ".egg-info/" not in place and not place.endswith((".pyc", ".so"))
        }
    return found


def _image(sources: Sources) -> dict[str, Content]:
    found: dict[str, Content] = {}
    if sources.image_lock is not None:
        found[f"{IMAGE}/{sources.image_lock.name}"] = sources.image_lock
    if sources.image is not None:
        found[f"{IMAGE}/{sources.image.name}"] = sources.image
    return found
