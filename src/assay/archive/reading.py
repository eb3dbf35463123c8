"""Opening an archive, or a folder of results in its place, without trusting it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field

from assay.archive import zipped
from assay.archive.zipped import ArchiveError, Problem, printable
from assay.records import Typed

METADATA = "ro-crate-metadata.json"
CHECKSUMS = "SHA256SUMS"
ABOUT = "archive.json"
CODE, EXPERIMENT, IMAGE, LOGS, RESULTS = "code", "experiment", "image", "logs", "results"
"""Folders at the top of an archive."""


class About(Typed):
    """`archive.json`: what no other file tells."""

    schema_version: Literal[1] = 1
    assay: str
    experiment: str
    experiment_file: str = Field(description="As written: its name below `experiment/`.")
    drawn_with: str = Field(
        description="Libraries that drew the figures: others draw the same in other bytes."
    )


@dataclass(frozen=True)
class Contents:
    """What lies in an archive, in a folder."""

    path: Path
    """As it was named: the zip file, or the folder."""
    root: Path
    results: Path
    """The experiment's folder of results."""
    problems: list[Problem] = field(default_factory=list)
    """What was wrong with the zip file itself, where it was asked to be taken out all the same."""

    @property
    def is_archive(self) -> bool:
        """Whether it is one, with checksums, and not a folder of results alone."""
        return (self.root / CHECKSUMS).exists() or (self.root / METADATA).exists()


@contextmanager
def extracted(path: Path) -> Iterator[Path]:
    """The folder of results (with `experiment.yaml`) in an archive, which may also be a folder: of one that was taken
    out, or of results alone. What was taken out is removed at the end.

    Raises: ArchiveError naming the file and what is wrong with it. Checksums are not looked at: `assay verify` does.
    """
    with contents(path) as found:
        yield found.results


@contextmanager
def contents(path: Path, *, tolerant: bool = False) -> Iterator[Contents]:
    """As `extracted`, with all that lies in an archive.

    tolerant: take out what is not damaged, and tell the rest in `problems`.
    Raises: ArchiveError for an archive that would do harm, and where there are no results in it.
    """
    if path.is_dir():
        yield _found(path, path, [])
        return
    with zipped.opened(path) as archive:
        if harm := list(zipped.dangers(archive)):
            more = f" (and {len(harm) - 1} more)" if len(harm) > 1 else ""
            raise ArchiveError(f"{path}: {harm[0]}{more}; nothing was taken out of it")
        total = sum(info.file_size for info in archive.infolist())
        with tempfile.TemporaryDirectory(prefix="assay-archive-") as folder:
            free = shutil.disk_usage(folder).free
            if total > free:
                raise ArchiveError(
                    f"{path}: takes {total:,} bytes, and {folder} has {free:,}; set TMPDIR to a larger place"
                )
            problems = list(zipped.extract(archive, Path(folder)))
            if problems and not tolerant:
                raise ArchiveError(f"{path}: {problems[0]}; get it again")
            if tolerant and not problems:
                problems = list(zipped.undigested(archive))
            yield _found(path, Path(folder), problems)


def _found(path: Path, root: Path, problems: list[Problem]) -> Contents:
    if (root / "experiment.yaml").is_file():
        return Contents(path, root, root, problems)
    found = sorted((root / RESULTS).glob("*/experiment.yaml"))
    if len(found) == 1:
        return Contents(path, root, found[0].parent, problems)
    told = f"; {problems[0]}" if problems else ""
    if found:
        raise ArchiveError(
            f"{path}: has results of {len(found)} experiments: {', '.join(printable(file.parent.name) for file in found)}; "
            f"name one, e.g. {path}/results/{printable(found[0].parent.name)}"
        )
    raise ArchiveError(
        f"{path}: is no archive and no folder of results: there is no results/EXPERIMENT/experiment.yaml in it{told}"
    )
