"""Checking an archive without the cluster and without a network: every file, every record, every number."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import assay
from assay.archive.agreement import agreement
from assay.archive.code import code_agrees
from assay.archive.reading import ABOUT, CHECKSUMS, METADATA, About, Contents, contents
from assay.archive.recompute import Recomputed, drawing, recompute
from assay.archive.zipped import ArchiveError, Problem, printable
from assay.comparison.run import read_experiment
from assay.records import RecordError, sha256_file


@dataclass
class Verified:
    """What was looked at, and what was found."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be checked here, and why."""
    files: int | None = None
    """Files with their checksum; null: a folder of results, which has none."""
    records: int = 0
    recomputed: int = 0
    """Files that came out of the records again."""

    @property
    def holds(self) -> bool:
        return not self.problems


def verify(path: Path) -> Verified:
    """All that is wrong with an archive, with one that was taken out, or with a folder of results.

    Raises: ArchiveError where there is nothing to look at: no such file, no results in it.
    """
    try:
        with contents(path, tolerant=True) as found:
            return _verify(found)
    except ArchiveError as error:
        if not path.exists() or path.is_dir():
            raise
        return Verified([Problem(str(path), str(error).removeprefix(f"{path}: "))])


def _verify(found: Contents) -> Verified:
    verified = Verified(list(found.problems))
    about = _about(found, verified)
    if found.is_archive:
        sums = list(checksums(found.root))
        verified.problems += [one for one in sums if one.file not in {told.file for told in found.problems}]
        verified.files = sum(1 for path in found.root.rglob("*") if path.is_file())
    name = (
        found.results.relative_to(found.root).as_posix()
        if found.root != found.results
        else found.results.name
    )
    if links := [path for path in found.results.rglob("*") if path.is_symlink()]:
        verified.problems += [Problem(str(link.relative_to(found.root)), "is a link") for link in links]
        return verified
    try:
        experiment = read_experiment(found.results / "experiment.yaml")
    except RecordError as error:
        text = str(error).split("; run the experiment")[0].removeprefix(f"{found.results}/experiment.yaml: ")
        verified.problems.append(Problem(f"{name}/experiment.yaml", text))
        return verified
    if found.is_archive and experiment.name != found.results.name:
        verified.problems.append(
            Problem(f"{name}/experiment.yaml", f"is of the experiment {experiment.name}")
        )
    verified.records = sum(1 for _ in found.results.rglob("record.json"))
    verified.problems += agreement(experiment, found.results, name)
    if found.is_archive:
        problems, notes = code_agrees(found)
        verified.problems += problems
        verified.notes += notes
    again = recompute(experiment, found.results, name, about.drawn_with if about else None)
    verified.problems += again.problems
    verified.recomputed = again.compared + again.close + again.by_places
    verified.notes += _notes(again, about)
    return verified


def _about(found: Contents, verified: Verified) -> About | None:
    if not found.is_archive:
        verified.notes.append(
            "no archive but a folder of results: it has no checksums, so files that no number comes from are not checked"
        )
        return None
    try:
        return About.parse(found.root / ABOUT, "is missing", "it is not as Assay writes it")
    except RecordError as error:
        verified.problems.append(Problem(ABOUT, str(error).removeprefix(f"{found.root / ABOUT}: ")))
        return None


def checksums(root: Path) -> Iterator[Problem]:
    """Every file against the list of checksums, and the list against the files."""
    listed: dict[str, str] = {}
    if not (root / CHECKSUMS).is_file():
        yield Problem(CHECKSUMS, "is missing: there is nothing to check the files against")
        return
    for number, line in enumerate((root / CHECKSUMS).read_text("utf-8", "replace").splitlines(), 1):
        digest, gap, file = line.partition("  ")
        if not gap or len(digest) != 64 or file in listed:
            yield Problem(CHECKSUMS, f"line {number} is no checksum of a file of its own")
            continue
        listed[file] = digest
    there = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }
    for file in sorted((there | set(listed)) - {CHECKSUMS}):
        path = root / file
        if file not in there:
            yield Problem(printable(file), "is missing: it has a checksum")
        elif file not in listed:
            yield Problem(printable(file), "has no checksum: it was added")
        elif path.is_symlink() or not path.is_file():
            yield Problem(printable(file), "is a link or a device, no plain file")
        elif sha256_file(path) != listed[file]:
            yield Problem(printable(file), "is not the file that was archived: its checksum differs")
    if METADATA not in there:
        yield Problem(METADATA, "is missing: without it, it is no RO-Crate")


def _notes(again: Recomputed, about: About | None) -> Iterator[str]:
    if again.close:
        yield f"{again.close} files differ in numbers by rounding alone (1 part in 10^9 at most)"
    if again.by_places:
        assert about is not None
        yield (
            f"{again.by_places} figures were compared by what is drawn where: they were drawn with {about.drawn_with}, "
            f"and here is {drawing()}"
        )
    if again.uncompared:
        yield f"{len(again.uncompared)} pictures (PDF, PNG) were not drawn again to the byte; their SVGs were compared"
    if about is not None and about.assay != assay.__version__:
        yield f"written by Assay {about.assay}, checked by Assay {assay.__version__}"
