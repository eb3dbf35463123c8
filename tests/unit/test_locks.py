"""The lock files: names, versions and hashes, and nothing else."""

import importlib.metadata
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("requirements", "containers")
    for path in ROOT.glob(f"{folder}/*.txt")
)
NOT_COPYLEFT = {"docutils"}  # public domain but for an Emacs mode, which is not installed
COPYLEFT = re.compile(r"(?<!lesser )(?<!library )\b(a?gpl|general public license)", re.IGNORECASE)


def pins(name: str) -> dict[str, str]:
    """Versions by package."""
    found = re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
    return dict(found)


def test_the_locks_are_those_that_the_tools_write() -> None:
    image = ["bootstrap.txt", "requirements.txt", "torch.txt"]
    host = ["bootstrap.txt", "dev.txt", "programs.txt", "run.txt", "serve.txt", "serving-peers.txt"]
    host += ["torch-newest.txt", "torch-oldest.txt"]
    assert [path for path in LOCKS if path.startswith("containers/")] == [
        f"containers/{name}" for name in image
    ]
    assert [path for path in LOCKS if path.startswith("requirements/")] == [
        f"requirements/{name}" for name in host
    ]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_by_version_and_hash(name: str) -> None:
    entries = re.sub(r"\\\n", " ", (ROOT / name).read_text()).splitlines()
    entries = [entry for entry in entries if entry and not entry.lstrip().startswith("#")]
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9][a-z0-9._-]*==\S+ .*--hash=sha256:[0-9a-f]{64}", entry), entry


def test_what_tests_need_is_added_to_what_runs_need() -> None:
    run, dev = pins("requirements/run.txt"), pins("requirements/dev.txt")
    assert run.items() <= dev.items()
    assert {"pytest", "mypy", "ruff", "snakefmt"} <= dev.keys() - run.keys()


@pytest.mark.parametrize(
    ("name", "torch", "torchvision"),
    [("requirements/run.txt", "2.9.1", "0.24.1"), ("requirements/torch-oldest.txt", "2.6.0", "0.21.0")],
)
def test_torch_and_torchvision_are_the_pair_that_was_promised(
    name: str, torch: str, torchvision: str
) -> None:
    assert (pins(name)["torch"], pins(name)["torchvision"]) == (torch, torchvision)


def test_the_newest_torch_is_newer_than_the_default() -> None:
    newest, default = (
        tuple(map(int, pins(name)["torch"].split(".")))
        for name in ("requirements/torch-newest.txt", "requirements/run.txt")
    )
    assert newest > default


def test_no_package_that_runs_is_under_a_copyleft_licence() -> None:
    refused = []
    for name in pins("requirements/run.txt").keys() - NOT_COPYLEFT:
        try:
            metadata = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:  # for another platform or Python
            continue
        texts = [metadata.get("License-Expression") or "", *(metadata.get_all("Classifier") or [])]
        if any(COPYLEFT.search(text) for text in texts):
            refused.append(name)
    assert refused == []


def test_the_image_has_the_versions_of_the_host() -> None:
    image = pins("containers/requirements.txt") | pins("containers/torch.txt")
    assert pins("requirements/run.txt").items() <= image.items()
    assert "jupyterlab" in image and "torch" not in pins("containers/requirements.txt")
    assert (ROOT / "containers/bootstrap.txt").read_bytes() == (
        ROOT / "requirements/bootstrap.txt"
    ).read_bytes()
