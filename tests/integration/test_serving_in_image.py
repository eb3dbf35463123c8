"""`environment: apptainer`, really served: a whole version runs in the image of its run, is replaced and is killed there."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from keptalive import Traffic
from oci_registry import MISSING
from test_serving import BODY, PATIENCE, Served, eventually

from assay.config.bases import Base
from assay.image.recipe import FOLDER_VARIABLE, Recipe, place
from assay.release.bundle.read import read
from assay.release.environments.place import VARIABLE, Place
from assay.release.environments.prepare import place_of, prepare
from assay.release.environments.references import processes
from assay.release.server.groups import send

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "release"))
from made_bundle import made_bundle, made_results

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def image_lock(base: Base, images: Path) -> Path:
    return place(Recipe(base), images).lock


@pytest.fixture(scope="module")
def bundles(image_lock: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of two models whose run had the same image and the same lock: they share an environment."""
    results = made_results(tmp_path_factory.mktemp("in-image"), seeds=1)
    return made_bundle(results, "mlp", image_lock=image_lock), made_bundle(
        results, "wide", image_lock=image_lock
    )


@pytest.fixture(scope="module")
def environment(
    bundles: tuple[Path, Path], image_lock: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """The environment of both, made once: with the image it takes minutes."""
    root = tmp_path_factory.mktemp("environments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(root))
        patch.setenv(FOLDER_VARIABLE, str(image_lock.parents[1]))
        prepare("apptainer", bundles[0]).close()
        found = place_of("apptainer", bundles[0])
        assert place_of("apptainer", bundles[1]) == found
        yield found


@pytest.fixture
def served(bundles: tuple[Path, Path], environment: Place, tmp_path: Path) -> Iterator[Served]:
    running = Served(tmp_path / "a folder" / "service", bundles[0], "--environment", "apptainer")
    try:
        yield running
    finally:
        running.end()


def answers_as_measured(port: int, bundle: Path) -> None:
    """It gives the bundle's golden outputs."""
    known = read(bundle)
    inputs, _ = known.golden()
    body = np.ascontiguousarray(inputs, dtype="<f4").tobytes()
    kind = "application/octet-stream"
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", body, {"Content-Type": kind, "Accept": kind}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        assert response.headers["X-Model-Version"] == known.manifest.version
        outputs = np.frombuffer(response.read(), dtype="<f4").reshape(len(inputs), -1)
    assert known.problem(outputs) is None


def pruned(environment: Place) -> str:
    command = [
        sys.executable,
        "-m",
        "assay.cli",
        "release",
        "env",
        "prune",
        "--releases",
        str(environment.root),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def left(environment: Place, service: Path) -> list[str]:
    """Processes that run in the environment, stand on its image or belong to the service."""
    words = [os.fsencode(path) for path in (environment.sif.resolve(), service)]
    found = [str(number) for number in processes(environment)]
    for path in Path("/proc").iterdir():
        try:
            command = (path / "cmdline").read_bytes() if path.name.isdigit() else b""
        except OSError:
            continue
        if any(word in command for word in words):
            found.append(f"{path.name} {command!r}")
    return found


def test_a_version_in_an_image_is_served_replaced_and_killed_without_a_failed_request(
    served: Served, bundles: tuple[Path, Path], environment: Place
) -> None:
    names = [read(bundle).manifest.version for bundle in bundles]
    for worker in served.active.workers:
        inside = Path(f"/proc/{worker.process.pid}/root/opt/assay/environment")
        assert inside.is_dir(), "it runs in the image"
        variables = Path(f"/proc/{worker.process.pid}/environ").read_bytes()
        assert f"PYTHONPATH={bundles[0] / 'code'}:".encode() in variables, "with the Assay of its bundle"
    answers_as_measured(served.port, bundles[0])
    said = pruned(environment)
    assert said.startswith(f"kept {environment.folder}: in use by a process"), said

    with Traffic(served.port, BODY) as traffic:
        traffic.more()
        for words, name, bundle in (
            ((str(bundles[1]),), names[1], bundles[1]),
            (("--back",), names[0], bundles[0]),
        ):
            done = served.swap(*words)
            assert done.returncode == 0, done
            with Traffic(served.port, BODY) as after:
                after.more()
            assert after.versions == {name} and not after.failed
            answers_as_measured(served.port, bundle)
        before = served.active
        send(before.files.processes()[:1], signal.SIGKILL)
        eventually(lambda: served.active.number > before.number and served.active.led, "another master")
        traffic.more()
        answers_as_measured(served.port, bundles[0])
    assert not traffic.failed, traffic.failed


def test_a_version_in_an_image_outlives_its_supervisor_and_leaves_nothing(
    served: Served, bundles: tuple[Path, Path], environment: Place
) -> None:
    port, group = served.port, served.active
    with Traffic(port, BODY) as traffic:
        traffic.more()
        served.process.kill()
        served.process.wait()
        traffic.more()
        assert "in use by a process" in pruned(environment), "it is what runs there that keeps it"
        served.start()
        assert served.port == port and served.active.number == group.number
        traffic.more()
    assert not traffic.failed, traffic.failed
    victim = group.workers[0].process
    send([victim], signal.SIGKILL)
    eventually(lambda: not victim.alive and served.active.whole, "a worker is replaced by its master")
    assert json.loads(served.get("/health/ready")[1])["model_version"] == read(bundles[0]).manifest.version
    served.process.terminate()
    assert served.process.wait(PATIENCE) == 0
    assert not served.processes()
    eventually(lambda: not left(environment, served.folder), "nothing is left of it")
    assert environment.sif.exists(), "it is there until somebody prunes"
    assert pruned(environment).startswith(f"removed {environment.folder}")
    assert not environment.folder.exists()
