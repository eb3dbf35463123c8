"""Versions and aliases on an MLflow server, through its client."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.release.bundle.manifest import MANIFEST, VERSION
from assay.release.bundle.read import Bundle
from assay.release.registry.history import Entry
from assay.release.registry.store import RegistryError
from assay.tracking.send import DEFAULTS, told

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "assay-bundles"
"""MLflow keeps files of versions as artefacts of runs: of this experiment's."""
_ARTEFACT = "bundle"
_VERSION, _RECORD = "assay.version", "assay.record"
_LONGEST = 5_000
"""Characters of a tag's value that MLflow takes."""


class MlflowBackend:
    """A registered model: one model version per bundle, with the bundle's version as a tag."""

    def __init__(self, uri: str, model: str) -> None:
        self.name = uri
        self._uri = uri
        self._model = model

    def versions(self) -> list[str]:
        return [version for _, version in self._known()]

    def add(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        with self._asking() as client:
            self._create_model(client)
            run = client.create_run(
                self._experiment(client),
                run_name=f"{manifest.name} {manifest.version}",
                tags={_VERSION: manifest.version},
            )
            with tempfile.TemporaryDirectory(prefix="assay-bundle-") as folder:
                # Of the folder what the manifest names, and no bytecode beside it.
                for place in (*manifest.files, MANIFEST):
                    target = Path(folder) / place
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(bundle.folder / place, target)
                client.log_artifacts(run.info.run_id, folder, _ARTEFACT)
            client.set_terminated(run.info.run_id)
            client.create_model_version(
                self._model,
                source=f"{run.info.artifact_uri}/{_ARTEFACT}",
                run_id=run.info.run_id,
                tags={_VERSION: manifest.version},
                description=None if manifest.verdict is None else manifest.verdict.headline,
            )

    def fetch(self, version: str, folder: Path) -> None:
        number = self._number(version)
        with self._asking() as client:
            run = client.get_model_version(self._model, number).run_id
            if run is None:
                raise RegistryError(
                    f"{self.name}: version {number} of {self._model} has no run, and so no files"
                )
            found = client.download_artifacts(run, _ARTEFACT, str(folder))
        for path in list(Path(found).iterdir()):
            path.rename(folder / path.name)
        Path(found).rmdir()

    def aliases(self) -> dict[str, str]:
        by_number = dict(self._known())
        with self._asking() as client:
            model = self._registered(client)
            aliases: dict[str, str] = {} if model is None else dict(model.aliases)
        return {
            alias: by_number[str(number)] for alias, number in aliases.items() if str(number) in by_number
        }

    def move(self, alias: str, version: str | None) -> None:
        number = None if version is None else self._number(version)
        with self._asking() as client:
            if number is None:
                client.delete_registered_model_alias(self._model, alias)
            else:
                client.set_registered_model_alias(self._model, alias, number)

    def tell(self, number: int, entry: Entry) -> None:
        with self._asking() as client:
            self._create_model(client)
            text = entry.model_dump_json(exclude_none=True)
            client.set_registered_model_tag(self._model, f"{_RECORD}.{number:06}", text[:_LONGEST])

    def _known(self) -> list[tuple[str, str]]:
        """MLflow's number and the bundle's version of each, oldest first. Those that Assay did not make are none."""
        found: list[tuple[int, str]] = []
        with self._asking() as client:
            token: str | None = None
            while True:
                page = client.search_model_versions(
                    f"name='{self._model}'", max_results=1000, page_token=token
                )
                tagged = [(int(one.version), one.tags.get(_VERSION, "")) for one in page]
                found += [(number, version) for number, version in tagged if VERSION.fullmatch(version)]
                token = page.token
                if not token:
                    break
        # Two that register the same bundle at once make two of it: the older one counts.
        first: dict[str, int] = {}
        for number, version in sorted(found):
            first.setdefault(version, number)
        return [(str(number), version) for version, number in first.items()]

    def _number(self, version: str) -> str:
        for number, known in self._known():
            if known == version:
                return number
        raise RegistryError(f"{self.name}: {self._model} has no version '{version}'")

    def _registered(self, client: "MlflowClient") -> Any:
        """The registered model; None: there is none yet."""
        from mlflow.exceptions import MlflowException

        try:
            return client.get_registered_model(self._model)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _create_model(self, client: "MlflowClient") -> None:
        from mlflow.exceptions import MlflowException

        if self._registered(client) is not None:
            return
        try:
            client.create_registered_model(self._model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _experiment(self, client: "MlflowClient") -> str:
        from mlflow.exceptions import MlflowException

        known = client.get_experiment_by_name(EXPERIMENT)
        if known is None:
            try:
                return str(client.create_experiment(EXPERIMENT))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                known = client.get_experiment_by_name(EXPERIMENT)
        assert known is not None, "somebody else just made it"
        return str(known.experiment_id)

    @contextmanager
    def _asking(self) -> Iterator["MlflowClient"]:
        """A client, in bounded time. Raises: RegistryError where the server does not answer or refuses."""
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        try:
            import mlflow

            yield mlflow.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        except (RegistryError, AssertionError):
            raise
        except Exception as error:  # MLflow's own, requests', urllib3's, the artefact store's
            raise RegistryError(
                f"{self.name}: {told(error)}; start the server, or look at its log, and run the same command again"
            ) from None
