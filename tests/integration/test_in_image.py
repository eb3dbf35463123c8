"""Experiments, JupyterLab and a hostile environment, in the whole image."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

from assay.config.bases import Base
from assay.image.recipe import Place, Recipe, place

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))

from project import TINY, Project, copy_project

pytestmark = pytest.mark.integration

CELL = """
import json, sys, urllib.request
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect
port, token = sys.argv[1:]
start = urllib.request.Request(f"http://127.0.0.1:{port}/api/kernels?token={token}", data=b"{}", method="POST")
kernel = json.load(urllib.request.urlopen(start))["id"]
async def run():
    connection = await websocket_connect(f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels?token={token}")
    header = {"msg_id": "1", "msg_type": "execute_request", "username": "", "session": "1", "version": "5.3"}
    content = {"code": "import torch; print(torch.arange(4).sum().item())", "silent": False}
    await connection.write_message(json.dumps(
        {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}))
    while True:
        message = json.loads(await connection.read_message())
        if message["msg_type"] == "stream":
            return message["content"]["text"]
print(IOLoop.current().run_sync(run, timeout=300))
"""


class Contained(Project):
    """A project whose jobs run in the image."""

    def command(self, *arguments: str) -> list[str]:
        return [*super().command(*arguments), "--sdm", "apptainer"]


@pytest.fixture(scope="module")
def image(images: Path, base: Base) -> Place:
    return place(Recipe(base), images)


def own_image(base: Base) -> dict[str, Any]:
    return TINY | {"image": {"reference": base.reference}}


@pytest.fixture
def contained(tmp_path: Path, image: Place, base: Base, monkeypatch: pytest.MonkeyPatch) -> Contained:
    monkeypatch.setenv("ASSAY_IMAGES", str(image.folder.parent))
    project = Contained(copy_project(tmp_path).folder)
    project.write(own_image(base))
    return project


def weights(project: Project) -> dict[str, str]:
    records = sorted(project.results.glob("runs/*/*/train/record.json"))
    return {str(path.parent): json.loads(path.read_text())["weights_sha256"] for path in records}


def test_host_and_image_give_the_same_weights_and_every_record_names_the_image(
    contained: Contained, image: Place, base: Base
) -> None:
    home = contained.folder / "home"
    planted = home / ".local/lib/python3.11/site-packages"
    planted.mkdir(parents=True)
    (planted / "sitecustomize.py").write_text("raise SystemExit('a package of the home folder got in')\n")
    evil = contained.folder / "evil"
    evil.mkdir()
    (evil / "torch.py").write_text("raise SystemExit('a package of the host got in')\n")
    hostile = {"PYTHONPATH": f"{contained.folder / 'src'}:{evil}", "APPTAINERENV_PYTHONSTARTUP": "/evil"}
    (contained.folder / "own.py").write_text(
        "import os\nfrom torch import nn\n"
        "KNOWN = ('PLANTED', 'PYTHONSTARTUP')\n"
        "def net(num_classes, in_channels, image_size):\n"
        "    found = [name for name in KNOWN if name in os.environ]\n"
        "    assert not found and 'evil' not in os.environ['PYTHONPATH'], found\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))\n"
    )
    experiment = own_image(base)
    experiment["arms"] = {
        "mlp": {"model": {"source": "own:net"}},
        "cnn": {"model": {"source": "builtin:cnn"}},
    }
    contained.write(experiment)
    done = subprocess.run(
        contained.command(),
        cwd=contained.folder,
        env=os.environ | hostile | {"PLANTED": "1", "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr + contained.logs()
    inside = weights(contained)
    lock = json.loads(image.lock.read_text())
    for path in contained.results.glob("**/record.json"):
        found = json.loads(path.read_text())["environment"]["image"]
        assert found["sif_sha256"] == lock["sif_sha256"] and found["base_digest"] == base.digest, path
    assert "Ran on the host" not in (contained.results / "report/index.html").read_text()
    assert contained.planned() == {}, "the same command again"
    image.lock.touch()
    assert contained.planned() == {}, "the age of an image is nothing"
    health = json.loads((contained.results / "health/record.json").read_text())
    assert "as locked" in health["details"]["checks"]["packages"]

    host = Project(contained.folder)
    assert host.planned()["train"] == 4, "another environment is another experiment"
    host.run()
    outside = weights(host)
    record = json.loads(next(host.results.glob("runs/*/*/train/record.json")).read_text())
    assert record["environment"]["image"] is None
    assert outside == inside, "the versions agree, so do the bits"


def test_an_image_that_was_changed_is_refused_before_any_job(contained: Contained, image: Place) -> None:
    with image.sif.open("r+b") as file:
        file.seek(image.sif.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    try:
        refused = contained.snakemake()
        assert refused.returncode != 0
        assert "was changed: its SHA-256 is" in refused.stdout + refused.stderr
        assert not list(contained.results.glob("**/record.json"))
    finally:
        with image.sif.open("r+b") as file:
            file.seek(image.sif.stat().st_size // 2)
            file.write(byte)


def test_the_dag_builds_an_image_that_is_not_there(contained: Contained, base: Base) -> None:
    (contained.folder / "containers/check.py").write_text("raise SystemExit('no image is wanted here')\n")
    assert contained.planned()["build_image"] == 1
    failed = contained.snakemake()
    assert failed.returncode != 0
    assert "Build the image that jobs run in failed" in failed.stdout + failed.stderr
    assert not list(contained.results.glob("**/record.json")), "nothing runs without it"


@pytest.fixture
def jupyter(image: Place, tmp_path: Path) -> Iterator[int]:
    """JupyterLab in the image; gives its port."""
    port = free_port()
    log = (tmp_path / "jupyter.log").open("w")
    words = ["--port", str(port), "--IdentityProvider.token=right", "--notebook-dir", str(tmp_path)]
    words += ["--allow-root"] if os.geteuid() == 0 else []
    command = [
        "apptainer",
        "run",
        "--cleanenv",
        "--home",
        str(tmp_path),
        "--app",
        "jupyter",
        str(image.sif),
        *words,
    ]
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
    end = time.monotonic() + 300
    while answer(port, "right") != 200:
        if time.monotonic() > end or process.poll() is not None:
            raise AssertionError((tmp_path / "jupyter.log").read_text())
        time.sleep(0.5)
    yield port
    process.terminate()
    process.wait(timeout=120)


def answer(port: int, token: str) -> int:
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/api/kernels?token={token}", timeout=60
        ) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_jupyter_runs_a_cell_and_refuses_a_wrong_token(jupyter: int, image: Place) -> None:
    assert answer(jupyter, "wrong") == 403
    command = ["apptainer", "--silent", "exec", "--cleanenv", "--no-home", str(image.sif), "python3", "-"]
    ran = subprocess.run(
        [*command, str(jupyter), "right"], input=CELL, capture_output=True, text=True, timeout=600
    )
    assert ran.stdout.strip() == "6", ran.stderr
