"""The registry on a real MLflow server: read back through its REST API, down, and with two writers at once."""

import multiprocessing
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import MISSING, Server, named

from assay.cli import main
from assay.release.bundle.read import read
from assay.release.registry.store import Registry, RegistryError, open_registry
from assay.release.schema import Registry as Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "unit/release"))
    from made_bundle import made_bundle, made_results

    results = made_results(tmp_path_factory.mktemp("results"))
    return made_bundle(results), made_bundle(results, "wide")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    with Server(tmp_path / "server") as running:
        yield running


def opened(server: Server, home: Path) -> Registry:
    return open_registry(Settings(model="digits", uri=server.uri), home)


def test_a_bundle_goes_there_and_comes_back(
    server: Server, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    registry = opened(server, tmp_path / "here")
    assert registry.versions() == [] and registry.aliases() == {}
    with pytest.raises(RegistryError, match="has no alias 'champion'"):
        registry.resolve("@champion")
    first, second = (registry.register(one, "won") for one in bundles)
    assert registry.register(bundles[0]) == first
    registry.move("champion", first, "released")
    registry.move("candidate", second, "to be tried")
    assert registry.move("champion", second, "promoted", release="r") == first

    asked = server.ask("registered-models/get?name=digits")["registered_model"]
    assert {one["alias"]: one["version"] for one in asked["aliases"]} == {"champion": "2", "candidate": "2"}
    record = {key: value for key, value in named(asked["tags"]).items() if key.startswith("assay.record.")}
    assert len(record) == len(registry.history.read()) == 5
    assert "promoted" in record["assay.record.000004"]
    version = server.ask("model-versions/get?name=digits&version=1")["model_version"]
    assert named(version["tags"])["assay.version"] == first and version["current_stage"] in ("", "None")

    elsewhere = opened(server, tmp_path / "elsewhere")
    assert elsewhere.versions() == [first, second]
    folder = elsewhere.resolve("@champion")
    assert (
        folder.is_relative_to(tmp_path / "elsewhere") and read(folder).manifest == read(bundles[1]).manifest
    )
    read(folder).network()
    assert not [path for path in folder.parent.iterdir() if path != folder], "nothing is left beside it"


def test_a_server_that_is_down(server: Server, bundles: tuple[Path, Path], tmp_path: Path) -> None:
    registry = opened(server, tmp_path / "here")
    version = registry.register(bundles[0])
    registry.move("champion", version, "released")
    server.stop()
    before = registry.history.read()
    for change in (
        lambda: registry.move("candidate", version, ""),
        lambda: registry.resolve("@champion"),
        lambda: registry.register(bundles[1]),
    ):
        with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1.*start the server"):
            change()
    assert registry.history.read() == before, "nothing is told of what did not happen"
    # A release that runs goes on, and its record too; the server is told later.
    registry.serves(version, release="r", role="stable", share=1.0, reason="still here")
    assert read(registry.place.version(version)).manifest.version == version
    arguments = ["release", "registry", "list", "--model", "digits", "--registry", server.uri]
    assert main(arguments) == 2
    server.start()
    registry.move("candidate", version, "")
    tags = named(server.ask("registered-models/get?name=digits")["registered_model"]["tags"])
    assert "still here" in tags["assay.record.000002"] and "assay.record.000003" in tags


def _register(uri: str, bundle: Path, home: Path, alias: str) -> None:
    registry = open_registry(Settings(model="digits", uri=uri), home)
    registry.move(alias, registry.register(bundle), "")


def test_two_writers_at_once(server: Server, bundles: tuple[Path, Path], tmp_path: Path) -> None:
    """One folder, as on one machine; and two, as on two machines: then a bundle may be there twice, and the first counts."""
    context = multiprocessing.get_context("spawn")
    asked = [(bundles[0], "here", "a"), (bundles[0], "here", "b"), (bundles[0], "there", "c")]
    processes = [
        context.Process(target=_register, args=(server.uri, bundle, tmp_path / home, alias))
        for bundle, home, alias in asked
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    registry = opened(server, tmp_path / "third")
    version = read(bundles[0]).manifest.version
    assert registry.versions() == [version] and registry.aliases() == {
        "a": version,
        "b": version,
        "c": version,
    }
    assert read(registry.resolve("@b")).manifest.version == version


def test_a_version_that_was_changed_on_the_server_is_refused(
    server: Server, bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    registry = opened(server, tmp_path / "here")
    version = registry.register(bundles[0])
    stored = next((server.folder / "artifacts").rglob("model.safetensors"))
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"model\.safetensors: was changed"):
        opened(server, tmp_path / "elsewhere").fetched(version)
    assert not list((tmp_path / "elsewhere" / "digits" / "versions").iterdir())
    shutil.rmtree(registry.place.version(version))
    stored.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors: is missing"):
        registry.fetched(version)
