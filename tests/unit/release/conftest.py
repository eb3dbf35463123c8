"""A finished experiment and the bundles of its two arms, made once."""

import os
from pathlib import Path

import pytest
from made_bundle import made_bundle, made_results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def bundle(results: Path) -> Path:
    """Of the arm `mlp`. To be read; who changes one makes a copy."""
    return made_bundle(results)


@pytest.fixture(scope="session")
def other_bundle(results: Path) -> Path:
    """Of the arm `wide`."""
    return made_bundle(results, "wide")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> dict[Path, bytes]:
    """What the disk has: content of files when they were flushed to it; folders have none."""
    found: dict[Path, bytes] = {}
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        flush(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        found[path] = path.read_bytes() if path.is_file() else b""

    monkeypatch.setattr(os, "fsync", fsync)
    return found


@pytest.fixture
def site_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on many clusters: for all of HTTP, and here nobody listens there."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
