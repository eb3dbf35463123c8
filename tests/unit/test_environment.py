"""Where and with which code a record came to be."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch

from assay import environment, sources
from assay.records import sha256_file


@pytest.fixture(autouse=True)
def fresh() -> None:
    sources.sources_sha256.cache_clear()
    environment._checkout.cache_clear()


def test_capture_tells_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.IMAGE_LOCK, raising=False)
    found = environment.capture(threads=2, device=torch.device("cpu"))
    assert found.packages["numpy"] == numpy.__version__
    assert found.packages["torch"] == torch.__version__.partition("+")[0] or torch.__version__
    assert found.cpu and found.cpu_count >= 1 and found.threads == 2 and found.image is None
    assert found.device is not None and (found.device.type, found.device.name) == ("cpu", found.cpu)
    assert environment.capture(threads=None, device=None).device is None


@pytest.fixture
def in_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As inside an image of base aa, whose lock lies at the path that is returned."""
    (tmp_path / "labels.json").write_text('{"org.assay.base.digest": "sha256:aa"}')
    monkeypatch.setattr(environment, "IN_IMAGE", tmp_path)
    lock = tmp_path / "lock.json"
    lock.write_text('{"base_digest": "sha256:aa", "sif_sha256": "bb", "content_sha256": "cc", "python": "3"}')
    monkeypatch.setenv(environment.IMAGE_LOCK, str(lock))
    return lock


def test_in_an_image_its_lock_is_quoted(in_image: Path) -> None:
    image = environment.capture(threads=None, device=None).image
    assert image == {"base_digest": "sha256:aa", "sif_sha256": "bb", "content_sha256": "cc"}


def test_the_lock_of_another_image_is_refused(in_image: Path) -> None:
    in_image.write_text(in_image.read_text().replace("sha256:aa", "sha256:dd"))
    with pytest.raises(ValueError, match="is the lock of base sha256:dd, this image is from sha256:aa"):
        environment.capture(threads=None, device=None)


def test_on_the_host_a_variable_makes_no_image(in_image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "IN_IMAGE", in_image.parent / "nowhere")
    assert environment.capture(threads=None, device=None).image is None


def test_it_starts_without_pytorch_and_in_no_time() -> None:
    program = (
        "import sys, time, assay.records; start = time.perf_counter()\n"
        "from assay import environment\n"
        "environment.capture(threads=1, device='cpu'); environment.code('train')\n"
        "print(time.perf_counter() - start)\n"
        "assert not {'torch', 'numpy', 'pynvml'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", program]
    variables = os.environ | {"PYTHONPATH": str(environment.PACKAGE.parent)}
    took = [float(subprocess.check_output(command, env=variables, text=True)) for _ in range(5)]
    assert min(took) < 0.25


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_select_device_without_a_gpu() -> None:
    assert environment.select_device("auto") == environment.select_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"execution\.device: cuda, but PyTorch .*; write device: auto"):
        environment.select_device("cuda")
    with pytest.raises(ValueError, match="no device 'tpu'; write auto, cpu or cuda"):
        environment.select_device("tpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_told_by_uuid() -> None:
    device = environment.select_device("auto")
    found = environment.capture(threads=1, device=device).device
    assert found is not None and found.type == "cuda" and found.name == torch.cuda.get_device_name(device)
    assert found.uuid is not None and found.uuid.startswith("GPU-") and found.driver
    assert found.memory_mb is not None and found.memory_mb > 1000


def test_a_gpu_without_nvml_is_told_by_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="Some GPU", uuid="12-34", total_memory=2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = environment.capture(threads=1, device="cuda:0").device
    assert found is not None and (found.uuid, found.memory_mb, found.driver) == ("GPU-12-34", 1024, None)


def package(root: Path) -> Path:
    folder = root / "src" / "assay"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "store.py").write_text("a = 1\n")
    (folder / "records.py").write_text("b = 1\n")
    (folder / "notes.txt").write_text("not code\n")
    return folder


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_code_tells_commit_and_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = package(tmp_path)
    monkeypatch.setattr(environment, "PACKAGE", folder)

    def checkout() -> tuple[str | None, bool | None]:
        environment._checkout.cache_clear()
        found = environment.code("train")
        return found.commit, found.modified

    assert checkout() == (None, None)
    git(tmp_path, "init", "-q")
    assert checkout() == (None, None)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "record.json").write_text("{}")
    assert checkout() == (commit, False)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert checkout() == (commit, False)
    (folder / "new.py").write_text("")
    assert checkout() == (commit, True)
    monkeypatch.setenv("PATH", "")
    assert checkout() == (None, None)


def test_code_carries_the_users_files(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("x = 1\n")
    found = environment.code("train", [file])
    assert found.user_sources == {file.as_posix(): sha256_file(file)} and len(found.sources_sha256) == 64
    took = []
    for _ in range(5):
        start = time.perf_counter()
        environment.code("train")
        took.append(time.perf_counter() - start)
    assert min(took) < 0.01
