"""What keeps an environment: a process that runs in it, an alias, or a release that may turn back to it."""

import os
from collections.abc import Iterator
from pathlib import Path

from assay.release.environments.place import Place, PlaceError, name_of
from assay.release.layout import Layout
from assay.release.ramp.find import begun
from assay.release.ramp.journal import Journal, JournalError
from assay.release.registry.history import History
from assay.release.registry.store import Aliases
from assay.release.registry.store import Place as ModelPlace

Kept = dict[str, list[str]]
"""Why, by version or by an environment's name."""


def references(releases: Path, registries: list[Path]) -> Kept:
    """By version, and by the names of environments that its bundle needs.

    releases: the folder of releases. registries: folders of models' registries.
    Raises: PlaceError for a journal or record that cannot be read: what it refers to cannot be told.
    """
    kept: Kept = {}
    for version, why, bundle in (*_of_registries(registries), *_of_releases(releases)):
        for name in (version, *_names(bundle)):
            kept.setdefault(name, []).append(why)
    return kept


def _names(bundle: Path) -> list[str]:
    try:
        found = [name_of("venv", bundle), name_of("apptainer", bundle)]
    except ValueError as error:
        raise PlaceError(f"{bundle}: what it needs cannot be told: {error}") from None
    return [name for name in found if name is not None]


def _of_registries(registries: list[Path]) -> Iterator[tuple[str, str, Path]]:
    """Versions that have an alias, and those that had it before: what a person would turn back to."""
    for folder in registries:
        for path in sorted(folder.glob("*/history.jsonl")):
            place = ModelPlace(path.parent)
            now, before = _aliases(place)
            for alias, version in now.items():
                yield version, f"@{alias} of {path.parent.name}", place.version(version)
            for alias, version in before.items():
                why = f"@{alias} of {path.parent.name} was at it before: for a roll-back"
                yield version, why, place.version(version)


def _aliases(place: ModelPlace) -> tuple[dict[str, str], dict[str, str]]:
    """Version by alias, as it is and as it was before the last move; of a server's as far as the record here tells."""
    now: dict[str, str] = {}
    before: dict[str, str] = {}
    for entry in History(place.history).read():
        if entry.event == "alias" and entry.alias is not None:
            if entry.previous is not None:
                before[entry.alias] = entry.previous
            now.pop(entry.alias, None)
            if entry.version is not None:
                now[entry.alias] = entry.version
    if place.aliases.exists():
        now |= Aliases.parse(place.aliases, "", "set the aliases again", PlaceError).aliases
    return now, before


def _of_releases(releases: Path) -> Iterator[tuple[str, str, Path]]:
    """Both versions of a release, until it is rolled back: then the one that users have."""
    for folder in begun(releases):
        try:
            last = Journal(Layout(folder)).last()
        except JournalError as error:
            raise PlaceError(str(error)) from None
        if last is None:
            continue
        state = last.state
        versions = [("stable", state.stable), ("candidate", state.candidate)]
        for role, version in versions[:1] if state.phase == "rolled_back" else versions:
            yield version.version, f"{role} of the release {state.release}", Path(version.folder)


def processes(place: Place) -> list[int]:
    """Ids of processes of this machine that run in it, as far as the system tells.

    By their command, program, variables, current folder and mapped files: also of such that hold no lease.
    """
    folders = {os.fsencode(place.folder.absolute()), os.fsencode(place.folder.resolve())}
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid() and _is_in(path, folders):
            found.append(int(path.name))
    return sorted(found)


def _is_in(process: Path, folders: set[bytes]) -> bool:
    texts = []
    for name in ("cmdline", "environ", "maps"):
        try:
            texts.append((process / name).read_bytes())
        except OSError:
            continue
    for name in ("exe", "cwd"):
        try:
            texts.append(os.fsencode((process / name).readlink()) + b"/")
        except OSError:
            continue
    return any(folder + b"/" in text for folder in folders for text in texts)
