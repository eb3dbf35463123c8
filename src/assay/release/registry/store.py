"""A registry: versions of one model, aliases that move between them, and the record of what happened.

The bundles lie in a folder, as copies that nobody builds in, and the record beside them. Where an MLflow server is named, versions and
aliases are the server's, and the folder has the copies that were fetched from it. Stages are deprecated in MLflow; aliases are all
that is used.
"""

import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import Field

from assay.records import Typed
from assay.release.bundle.folder import copy
from assay.release.bundle.manifest import VERSION
from assay.release.bundle.read import Bundle, BundleError, read
from assay.release.registry.history import Entry, History, locked
from assay.release.schema import Registry as Settings

CHAMPION, CANDIDATE = "champion", "candidate"
HOME = Path("releases/registry")
"""Where copies and records lie that belong to a server's registry."""
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class RegistryError(ValueError):
    """A version or alias that is not there, or a registry that does not answer."""


class Backend(Protocol):
    """Where versions and aliases are. Its methods raise RegistryError where it cannot be asked."""

    name: str

    def versions(self) -> list[str]:
        """In the order in which they were registered."""
        ...

    def add(self, bundle: Bundle) -> None:
        """Register a version that is not there yet."""
        ...

    def fetch(self, version: str, folder: Path) -> None:
        """Put the version's bundle into an empty folder."""
        ...

    def aliases(self) -> dict[str, str]:
        """Version by alias."""
        ...

    def move(self, alias: str, version: str | None) -> None:
        """Point an alias at a version, or take it away."""
        ...

    def tell(self, number: int, entry: Entry) -> None:
        """Note an entry of the record, for those who look there."""
        ...


@dataclass(frozen=True)
class Place:
    """The folder of one model."""

    folder: Path

    @property
    def history(self) -> Path:
        return self.folder / "history.jsonl"

    @property
    def aliases(self) -> Path:
        return self.folder / "aliases.json"

    @property
    def told(self) -> Path:
        """How many entries of the record the server has."""
        return self.folder / "told.json"

    def version(self, version: str) -> Path:
        return self.folder / "versions" / version


class Registry:
    """Versions and aliases of one model. Every change stands in the record before it takes effect."""

    def __init__(self, model: str, uri: str, place: Place, backend: Backend) -> None:
        self.model = model
        self.uri = uri
        self.place = place
        self.backend = backend
        self.history = History(place.history)

    def register(self, folder: Path, reason: str = "") -> str:
        """Take a bundle in; one that is there already is left as it is. Returns its version.

        Raises: BundleError, RegistryError.
        """
        bundle = read(folder)
        version = bundle.manifest.version
        self._keep(bundle)
        with locked(self.place.folder / "change"):
            noted = {entry.version for entry in self.history.read() if entry.event == "registered"}
            if version not in self.backend.versions():
                self.backend.add(bundle)
            if version not in noted:
                self.history.append("registered", version, reason=reason)
        self.tell()
        return version

    def versions(self) -> list[str]:
        return self.backend.versions()

    def aliases(self) -> dict[str, str]:
        return self.backend.aliases()

    def resolve(self, reference: str) -> Path:
        """The folder of a bundle: `@ALIAS`, `@VERSION` or a version; anything else is a folder as it stands.

        Raises: RegistryError; BundleError for a copy that was changed.
        """
        word = reference.removeprefix("@")
        if not reference.startswith("@") and not VERSION.fullmatch(reference):
            return Path(reference)
        version = word if VERSION.fullmatch(word) else self.aliases().get(word)
        if version is None:
            known = self.versions()
            what = f"alias {word} {'|'.join(known)}" if known else f"add BUNDLE --alias {word}"
            raise RegistryError(
                f"{self.backend.name}: {self.model} has no alias '{word}'"
                f"{'' if known else ', and no version'}; set it: assay release registry {what} {self._options()}"
            )
        return self.fetched(version)

    def fetched(self, version: str) -> Path:
        """Where a version's bundle lies here, fetched if it does not yet. Raises: RegistryError, BundleError."""
        target = self.place.version(version)
        if not VERSION.fullmatch(version) or not target.exists():
            self._check(version)
            target.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{version}."))
            try:
                self.backend.fetch(version, work)
                found = read(work).manifest.version
                if found != version:
                    raise RegistryError(
                        f"{self.backend.name}: gives {found} for version {version} of {self.model}"
                    )
                self._keep(read(work))
            finally:
                shutil.rmtree(work, ignore_errors=True)
        if self._whole(target).manifest.version != version:
            raise RegistryError(f"{target}: holds another version; remove the folder and ask again")
        return target

    def move(self, alias: str, version: str, reason: str, *, release: str | None = None) -> str | None:
        """Point an alias at a version; returns the one that had it.

        Raises: RegistryError.
        """
        if alias == "latest":
            raise RegistryError("alias 'latest': MLflow keeps it for itself; write another, e.g. candidate")
        if not _ALIAS.fullmatch(alias):
            raise RegistryError(
                f"alias '{alias}': write small letters, digits, _ and -, e.g. champion or candidate"
            )
        self._check(version)
        with locked(self.place.folder / "change"):
            previous = self.aliases().get(alias)
            if previous != version:
                self._moved(alias, previous, version, reason, release)
        self.tell()
        return previous

    def remove(self, alias: str, reason: str) -> str | None:
        """Take an alias away; returns the version that had it. Raises: RegistryError."""
        with locked(self.place.folder / "change"):
            previous = self.aliases().get(alias)
            if previous is not None:
                self._moved(alias, previous, None, reason, None)
        self.tell()
        return previous

    def serves(self, version: str, *, release: str, role: str, share: float | None, reason: str) -> None:
        """Note that a version serves this share of identified users from now on; None: nobody.

        Nothing is asked of a server: a release does not wait for it. What it was not told, it is told with the next change.
        """
        self.history.append("serves", version, release=release, role=role, share=share, reason=reason)

    def tell(self) -> None:
        """Bring the server's copy of the record up to date; where it does not answer, the next change does."""
        with locked(self.place.told):
            known = Told.parse(self.place.told, "", "remove it").count if self.place.told.exists() else 0
            for number, entry in enumerate(self.history.read()):
                if number >= known:
                    try:
                        self.backend.tell(number, entry)
                    except RegistryError:
                        return
                    Told(count=number + 1).write(self.place.told)

    def _moved(
        self, alias: str, previous: str | None, version: str | None, reason: str, release: str | None
    ) -> None:
        """In the record, then in effect; a move that failed is taken back in the record."""
        self.history.append("alias", version, alias=alias, previous=previous, reason=reason, release=release)
        try:
            self.backend.move(alias, version)
        except ValueError as error:
            why = f"not moved: {error}"
            self.history.append("alias", previous, alias=alias, previous=version, reason=why, release=release)
            raise

    def _check(self, version: str) -> None:
        if version not in (known := self.versions()) or not VERSION.fullmatch(version):
            raise RegistryError(
                f"{self.backend.name}: {self.model} has no version '{version}'; it has {', '.join(known) or 'none'}"
            )

    def _keep(self, bundle: Bundle) -> None:
        """A copy that was damaged gives way to the whole one."""
        target = self.place.version(bundle.manifest.version)
        if target.exists():
            try:
                read(target)
            except BundleError:
                damaged = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.damaged."))
                target.rename(damaged)
                shutil.rmtree(damaged, ignore_errors=True)
        if not target.exists():
            copy(bundle.folder, [*bundle.manifest.files], target)

    def _whole(self, target: Path) -> Bundle:
        """Raises: BundleError for a copy that was changed, with the way to a new one."""
        try:
            return read(target)
        except BundleError as error:
            raise BundleError(
                f"{error}; then register it again, which replaces this copy: assay release registry add BUNDLE "
                f"{self._options()}"
            ) from None

    def _options(self) -> str:
        """By which the command finds this registry."""
        return shlex.join(["--model", self.model, "--registry", self.uri])


class Told(Typed):
    """`told.json`."""

    count: int


class Aliases(Typed):
    """`aliases.json`."""

    schema_version: int = 1
    aliases: dict[str, str] = Field(description="Version by alias.")


class FolderBackend:
    """A folder alone: for one machine, or several that share a file system."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.name = str(place.folder)

    def versions(self) -> list[str]:
        found = dict.fromkeys(
            entry.version for entry in History(self._place.history).read() if entry.event == "registered"
        )
        return [version for version in found if version is not None and self._place.version(version).exists()]

    def add(self, bundle: Bundle) -> None:
        assert self._place.version(bundle.manifest.version).exists(), "it was kept first"

    def fetch(self, version: str, folder: Path) -> None:
        raise RegistryError(f"{self._place.version(version)}: is missing; register the bundle again")

    def aliases(self) -> dict[str, str]:
        path = self._place.aliases
        if not path.exists():
            return {}
        return Aliases.parse(path, "", "set the aliases again", RegistryError).aliases

    def move(self, alias: str, version: str | None) -> None:
        aliases: Mapping[str, str] = self.aliases()
        kept = {name: known for name, known in aliases.items() if name != alias}
        Aliases(aliases=kept if version is None else {**kept, alias: version}).write(self._place.aliases)

    def tell(self, number: int, entry: Entry) -> None:
        """The record lies in the same folder."""


def open_registry(settings: Settings, home: Path = HOME) -> Registry:
    """The registry of a release file. home: where copies and records lie that belong to a server's.

    Raises: RegistryError for a URI that cannot be one.
    """
    if "://" not in settings.uri:
        place = Place(Path(settings.uri) / settings.model)
        return Registry(settings.model, settings.uri, place, FolderBackend(place))
    if settings.uri.startswith("file://"):
        raise RegistryError(f"registry.uri: {settings.uri}: write the folder alone, without `file://`")
    from assay.config.tracking import problem_of_uri

    if problem := problem_of_uri(settings.uri):
        raise RegistryError(f"registry.uri: {problem}")
    from assay.release.registry.mlflow_backend import MlflowBackend

    backend = MlflowBackend(settings.uri, settings.model)
    return Registry(settings.model, settings.uri, Place(home / settings.model), backend)
