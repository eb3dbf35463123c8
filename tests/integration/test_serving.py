"""`assay release serve` for real: gunicorn under load while versions change, and while each of its processes is killed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from keptalive import Traffic

from assay.release.bundle.read import read
from assay.release.environments.place import Place
from assay.release.environments.prepare import Environment
from assay.release.server.files import Process, Service, Worker, read_file
from assay.release.server.groups import Group, open_group, send, start
from assay.release.server.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "release"))
from made_bundle import made_bundle, made_results

pytestmark = pytest.mark.integration
BODY = orjson.dumps({"inputs": [[float(i) for i in range(64)]]})
PATIENCE = 400.0
"""Workers that load PyTorch have 180 s to show a sign of life; two orders may wait for them."""


def eventually(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


class Served:
    """A supervisor in a folder of its own."""

    def __init__(self, folder: Path, bundle: Path, *options: str) -> None:
        self.folder, self.bundle, self.options = folder, bundle, options
        self.start()

    def start(self, *more: str) -> None:
        command = [
            sys.executable,
            "-m",
            "assay.cli",
            "release",
            "serve",
            str(self.bundle),
            "--folder",
            str(self.folder),
        ]
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.output = (self.folder.parent / "output").open("ab")
        self.process = subprocess.Popen(
            [*command, "--port", "0", *self.options, *more], stdout=self.output, stderr=self.output
        )
        eventually(self.up, "it serves")

    def up(self) -> bool:
        assert self.process.poll() is None, self.said
        service = self.service
        return service is not None and service.process.pid == self.process.pid and service.active is not None

    @property
    def said(self) -> str:
        return (self.folder.parent / "output").read_text()

    @property
    def service(self) -> Service | None:
        return read_file(self.folder / "service.json", Service)

    @property
    def port(self) -> int:
        service = self.service
        assert service is not None
        return service.port

    @property
    def active(self) -> Group:
        service = self.service
        assert service is not None
        group = open_group(self.folder / "groups" / str(service.active))
        assert group is not None
        return group

    def swap(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "assay.cli", "release", "swap", *words, "--folder", str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def processes(self) -> list[Process]:
        found = (open_group(path) for path in (self.folder / "groups").glob("*"))
        return [process for group in found if group is not None for process in group.files.processes()]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)
        send(self.processes(), signal.SIGKILL)
        self.output.close()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    results = made_results(tmp_path_factory.mktemp("serving"), seeds=1)
    return made_bundle(results, "mlp"), made_bundle(results, "wide")


@pytest.fixture
def served(bundles: tuple[Path, Path], tmp_path: Path) -> Iterator[Served]:
    running = Served(tmp_path / ("a long folder's name " * 6) / "service", bundles[0])
    try:
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module")
def names(bundles: tuple[Path, Path]) -> list[str]:
    return [read(bundle).manifest.version for bundle in bundles]


def test_no_request_fails_while_versions_change_back_and_forth(
    served: Served, bundles: tuple[Path, Path], names: list[str], tmp_path: Path
) -> None:
    with Traffic(served.port, BODY) as traffic:
        traffic.more()
        for words, name in (
            ((str(bundles[1]),), names[1]),
            (("--back",), names[0]),
            (("--back",), names[1]),
            ((str(bundles[0]),), names[0]),
        ):
            done = served.swap(*words)
            taken_over = time.monotonic()
            assert done.returncode == 0 and done.stdout.splitlines()[-1] == "done", done
            assert traffic.since(taken_over) == {name}
        spoiled = spoil(bundles[1], tmp_path / "spoiled")
        refused = served.swap(str(spoiled))
        assert refused.returncode == 1 and "not the model that was measured" in refused.stdout
        traffic.more()
        assert traffic.since(taken_over) == {names[0]}
        status, health = served.get("/health/ready")
        assert status == 200 and json.loads(health)["model_version"] == names[0]
        assert served.swap("--retire").returncode == 0
        eventually(lambda: len(served.processes()) == 3, "what was retired ends")
        assert served.swap("--back").returncode == 1, "nothing is kept warm"
        traffic.more()
    assert not traffic.failed and traffic.versions == set(names)


def spoil(bundle: Path, folder: Path) -> Path:
    """A bundle whose files are what its manifest says, but whose golden outputs are another model's."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from assay.records import sha256_file
    from assay.release.bundle.manifest import version_of

    subprocess.run(["cp", "-r", str(bundle), str(folder)], check=True)
    tensors = load_file(folder / "golden.safetensors")
    save_file(tensors | {"outputs": tensors["outputs"] + np.float32(0.5)}, folder / "golden.safetensors")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["files"]["golden.safetensors"] = sha256_file(folder / "golden.safetensors")
    manifest["version"] = version_of(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def test_a_killed_worker_costs_its_own_requests_and_is_replaced(served: Served) -> None:
    with Traffic(served.port, BODY) as traffic:
        traffic.more()
        victim = served.active.workers[0].process
        os.kill(victim.pid, signal.SIGKILL)
        eventually(lambda: not victim.alive, "it dies")
        eventually(lambda: served.active.whole and served.active.accepting == 2, "it is replaced")
        traffic.more()
        worst = len(traffic.failed)
    assert worst <= traffic.connections, traffic.failed
    assert victim not in [worker.process for worker in served.active.workers]


def test_without_its_master_a_version_answers_until_it_has_another(served: Served) -> None:
    with Traffic(served.port, BODY) as traffic:
        traffic.more()
        before = served.active
        os.kill(before.files.processes()[0].pid, signal.SIGKILL)
        eventually(lambda: served.active.number > before.number and served.active.led, "another group")
        traffic.more()
        eventually(lambda: len(served.processes()) == 3, "what was left of the first ends")
    assert not traffic.failed


def test_versions_outlive_their_supervisor_and_another_takes_over(
    served: Served, bundles: tuple[Path, Path], names: list[str]
) -> None:
    port = served.port
    with Traffic(port, BODY) as traffic:
        traffic.more()
        group = served.active.number
        served.process.kill()
        served.process.wait()
        traffic.more()
        refused = served.swap(str(bundles[1]))
        assert refused.returncode == 2 and "no `assay release serve` runs there" in refused.stderr
        with standing_still(served.active.workers, 12):
            served.start()
        assert served.port == port and served.active.number == group
        second = subprocess.run(
            [
                sys.executable,
                "-m",
                "assay.cli",
                "release",
                "serve",
                str(bundles[0]),
                "--folder",
                str(served.folder),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert second.returncode == 2 and "another `assay release serve` runs there" in second.stderr
        assert served.swap(str(bundles[1])).returncode == 0
        assert traffic.since(time.monotonic()) == {names[1]}
    assert not traffic.failed
    served.process.terminate()
    assert served.process.wait(PATIENCE) == 0
    assert not served.processes() and served.service is None


@contextlib.contextmanager
def standing_still(workers: list[Worker], seconds: float) -> Iterator[None]:
    """Stopped, and going on after a while: longer than nothing is heard of them where all is well."""
    processes = [worker.process for worker in workers]
    send(processes, signal.SIGSTOP)
    timer = threading.Timer(seconds, send, (processes, signal.SIGCONT))
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_version_that_cannot_be_served_never_answers(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    spoiled = spoil(bundles[0], tmp_path / "spoiled")
    command = [sys.executable, "-m", "assay.cli", "release", "serve", str(spoiled), "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "not the model that was measured" in done.stdout


def test_each_worker_has_cores_of_its_own(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two cores are needed")
    running = Served(tmp_path / "service", bundles[0], "--workers", "2", "--cpus", "2")
    try:
        cores = [os.sched_getaffinity(worker.process.pid) for worker in running.active.workers]
    finally:
        running.end()
    assert list(map(len, cores)) == [1, 1] and cores[0] != cores[1]


def whole_lines(path: Path) -> list[str]:
    """Of a file that is written to: the last one may be half there."""
    return path.read_text().rpartition("\n")[0].splitlines()


def test_what_workers_count_is_summed_and_written_down(served: Served) -> None:
    with Traffic(served.port, BODY) as traffic:
        traffic.more(100)

    def counted(name: str) -> float:
        lines = served.get("/metrics")[1].decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))

    eventually(lambda: counted('assay_serving_requests_total{code="ok"}') == traffic.count, "each is counted")
    logs = served.folder / "predictions"

    def written() -> list[dict[str, object]]:
        return [json.loads(line) for path in logs.glob("*.jsonl") for line in whole_lines(path)]

    eventually(lambda: len(written()) == traffic.count, "a line for each")
    eventually(
        lambda: counted('assay_serving_log_lines_total{outcome="written"}') == traffic.count,
        "lines are counted",
    )
    assert len({line["request_id"] for line in written()}) == traffic.count


def test_a_version_runs_in_its_environment_with_the_code_of_its_bundle(
    bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    place = Place(tmp_path / "environments", "serve-made-by-hand")
    venv.create(place.folder, symlinks=True)
    packages = next((place.folder / "lib").glob("python*/site-packages"))
    (packages / "these.pth").write_text(sysconfig.get_path("purelib") + "\n")
    settings = Settings(bundle=bundles[0], predictions=tmp_path / "predictions")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        group = start(tmp_path / "groups", 1, settings, listener, Environment("venv", place.name, place))
        try:
            eventually(lambda: group.whole or group.refusal(), "it is ready")
            assert group.refusal() is None
            environment = Path(f"/proc/{group.workers[0].process.pid}/environ").read_bytes().split(b"\0")
            assert f"PYTHONPATH={bundles[0] / 'code'}".encode() in environment
            assert not group.accepting, "its gate is closed"
            group.begin_ending()
            eventually(lambda: group.ended(patience=0), "it ends")
        finally:
            send(group.files.processes(), signal.SIGKILL)
