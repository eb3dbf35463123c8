"""Whether the code in an archive is the code that its records tell of."""

from pathlib import Path

from assay.archive.reading import CODE, EXPERIMENT, Contents
from assay.archive.zipped import Problem
from assay.records import Record, RecordError, sha256_file
from assay.sources import PACKAGE, STAGES, package_sha256

_JUDGES = ("compare", "report")


def code_agrees(found: Contents) -> tuple[list[Problem], list[str]]:
    """Problems, and notes on what could not be checked.

    A record tells the hash of its stage's source files; which files these are, each version of Assay says for itself.
    """
    package = found.root / CODE / "src" / "assay"
    own = {sha256_file(path) for path in (found.root / EXPERIMENT).rglob("*") if path.is_file()}
    same_stages = _same(package / "sources.py", PACKAGE / "sources.py")
    hashes = {stage: _stage(package, stage) for stage in STAGES} if same_stages else {}
    problems, notes = [], []
    for path in sorted(found.results.rglob("record.json")):
        try:
            record = Record.read(path)
        except RecordError:
            continue  # told elsewhere
        name = path.relative_to(found.root).as_posix()
        # A better check of a node reruns nothing.
        if (
            record.stage in hashes
            and record.stage != "health"
            and record.code.sources_sha256 != hashes[record.stage]
        ):
            problems.append(
                Problem(name, f"was made by other code of stage {record.stage} than lies in {CODE}/")
            )
        for file, sha256 in record.code.user_sources.items():
            if sha256 not in own:
                problems.append(Problem(name, f"was made by another {file} than lies in {EXPERIMENT}/"))
    if not same_stages:
        notes.append(
            "the code is of another version of Assay: whether it is the records' own was not checked"
        )
    if not same_stages or any(hashes[stage] != package_sha256(PACKAGE, STAGES[stage]) for stage in _JUDGES):
        notes.append(
            "its comparison and report were written by other code than computes them again here: what differs may come "
            "from that; verify with the Assay that lies in it: PYTHONPATH=code/src python -m assay verify ."
        )
    return problems, notes


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and one.read_bytes() == other.read_bytes()


def _stage(package: Path, stage: str) -> str | None:
    try:
        return package_sha256(package, STAGES[stage])
    except ValueError:
        return None
